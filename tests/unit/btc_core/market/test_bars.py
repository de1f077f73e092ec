"""Minute bars: from published files and REST, what is taken and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from btc_core.clock import NS_PER_MIN, now_ns
from btc_core.errors import ExchangeError, InvalidInput
from btc_core.exchanges.kraken import Kraken
from btc_core.market.bars import parse_csv, read_bars
from btc_core.settings import ExchangeSettings
from btc_core.tables.rows import minute_bars
from tests.http_server import answering
from tests.paths import DATA

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.unit


def test_csv_becomes_sorted_bars_without_repeats() -> None:
    bars = parse_csv("120,2,3,1,2.5,0.5,7\n60,1,2,1,2,0.25,3\n120,2,3,1,2.5,0.5,7\n", "file.csv")
    assert bars["ts_ns"].tolist() == [NS_PER_MIN, 2 * NS_PER_MIN]
    assert bars["close"].tolist() == [2.0, 2.5]
    assert bars["trades"].tolist() == [3, 7]


def test_an_empty_history_is_no_bars() -> None:
    assert len(parse_csv("", "file.csv")) == 0


@pytest.mark.parametrize(
    "line",
    ["60,1,2,1,2,0.25", "60,1,2,1,x,0.25,3", "60,0,2,1,2,0.25,3", "60,1,1,2,1,0.25,3", "60,1,2,1,2,-1,3",
     "61,1,2,1,2,0.25,3", "60,1,nan,1,2,0.25,3", "<html>"],
)  # fmt: skip
def test_impossible_history_is_refused(line: str) -> None:
    with pytest.raises(InvalidInput):
        parse_csv(line, "file.csv")


def test_a_parquet_file_gives_the_bars_that_were_written(tmp_path: Path) -> None:
    bars = parse_csv("60,1,2,1,2,0.25,3\n120,2,3,1,2.5,0.5,7\n", "file.csv")
    pq.write_table(minute_bars(bars, "BTC/USD", "file"), tmp_path / "bars.parquet")
    assert np.array_equal(read_bars(tmp_path / "bars.parquet"), bars)


def test_a_parquet_file_without_a_column_is_refused_by_its_name(tmp_path: Path) -> None:
    pq.write_table(pa.table({"ts": [1], "open": [1.0]}), tmp_path / "bars.parquet")
    with pytest.raises(InvalidInput, match="high, low, close, volume are missing"):
        read_bars(tmp_path / "bars.parquet")


def test_published_bars_of_two_years_are_read_whole() -> None:
    file = DATA / "btcusdt_1m_2022_2023.parquet"
    if not file.is_file():
        pytest.skip("recorded minute bars are not on this machine")
    assert len(read_bars(file)) == 1_051_120


@pytest.fixture
def exchange() -> Iterator[tuple[str, list[str]]]:
    """An HTTP server that answers CSV at /history and OHLC at the exchange's path, and keeps what was asked."""
    asked: list[str] = []
    minute = now_ns() // NS_PER_MIN * 60

    def answer(path: str) -> tuple[int, bytes]:
        asked.append(path)
        times = [minute - 120, minute - 60, minute]
        if path.startswith("/history"):
            body = "".join(f"{time},1,2,1,2,0.25,3\n" for time in times)
        elif path.endswith("Refused"):
            body = json.dumps({"error": ["EGeneral:Too many requests"]})
        else:
            rows = [[time, "1", "2", "1", "2", "1.5", "0.25", 3] for time in times]
            body = json.dumps({"error": [], "result": {"XXBTZUSD": rows, "last": minute}})
        return 200 if "days=9" not in path else 500, body.encode()

    with answering(answer) as url:
        yield url, asked


def test_only_closed_minutes_are_fetched_from_either_source(exchange: tuple[str, list[str]]) -> None:
    url, asked = exchange
    live = ExchangeSettings(rest_url=url)
    simulated = ExchangeSettings(mode="sim", history_url=f"{url}/history")
    bars, source = Kraken(simulated).minute_bars("BTC/USD", 3)
    assert (len(bars), source) == (2, "history")
    same, source = Kraken(live).minute_bars("BTC/USD", 3)
    assert source == "rest"
    assert np.array_equal(bars, same)
    assert asked == ["/history/XBTUSD_1.csv?days=3", "/0/public/OHLC?pair=XBTUSD&interval=1"]
    with pytest.raises(ExchangeError, match="500"):
        Kraken(simulated).minute_bars("BTC/USD", 9)


def test_what_the_exchange_refuses_is_told_in_its_words(exchange: tuple[str, list[str]]) -> None:
    with pytest.raises(ExchangeError, match="EGeneral:Too many requests"):
        Kraken(ExchangeSettings(rest_url=exchange[0])).get("Refused")
