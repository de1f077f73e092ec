"""Minute bars from files and from REST: the accepted bars, and the errors for bad ones."""

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


def test_csv_lines_become_sorted_bars_without_duplicates() -> None:
    bars = parse_csv("120,2,3,1,2.5,0.5,7\n60,1,2,1,2,0.25,3\n120,2,3,1,2.5,0.5,7\n", "file.csv")
    assert bars["ts_ns"].tolist() == [NS_PER_MIN, 2 * NS_PER_MIN]
    assert bars["close"].tolist() == [2.0, 2.5]
    assert bars["trades"].tolist() == [3, 7]


def test_an_empty_file_gives_no_bars() -> None:
    assert len(parse_csv("", "file.csv")) == 0


@pytest.mark.parametrize(
    "line",
    ["60,1,2,1,2,0.25", "60,1,2,1,x,0.25,3", "60,0,2,1,2,0.25,3", "60,1,1,2,1,0.25,3", "60,1,2,1,2,-1,3",
     "61,1,2,1,2,0.25,3", "60,1,nan,1,2,0.25,3", "<html>"],
)  # fmt: skip
def test_a_line_that_is_not_a_possible_bar_is_refused(line: str) -> None:
    with pytest.raises(InvalidInput):
        parse_csv(line, "file.csv")


def test_a_parquet_file_gives_back_the_bars_that_were_written(tmp_path: Path) -> None:
    bars = parse_csv("60,1,2,1,2,0.25,3\n120,2,3,1,2.5,0.5,7\n", "file.csv")
    pq.write_table(minute_bars(bars, "BTC/USD", "file"), tmp_path / "bars.parquet")
    assert np.array_equal(read_bars(tmp_path / "bars.parquet"), bars)


def test_the_error_for_a_parquet_file_names_the_missing_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"ts": [1], "open": [1.0]}), tmp_path / "bars.parquet")
    with pytest.raises(InvalidInput, match="high, low, close, volume are missing"):
        read_bars(tmp_path / "bars.parquet")


def test_every_bar_of_a_two_year_file_is_read() -> None:
    file = DATA / "btcusdt_1m_2022_2023.parquet"
    if not file.is_file():
        pytest.skip("this machine has no recorded minute bars")
    assert len(read_bars(file)) == 1_051_120


@pytest.fixture
def exchange() -> Iterator[tuple[str, list[str]]]:
    """Serve CSV at /history and OHLC at the exchange's path; yield the address and the list of requested paths."""
    requested: list[str] = []
    minute = now_ns() // NS_PER_MIN * 60

    def answer(path: str) -> tuple[int, bytes]:
        requested.append(path)
        times = [minute - 120, minute - 60, minute]
        if path.startswith("/history"):
            body = "".join(f"{time},1,2,1,2,0.25,3\n" for time in times)
        elif path.endswith("Refused"):
            body = json.dumps({"error": ["EGeneral:Too many requests"]})
        elif path.endswith("AssetPairs"):
            body = json.dumps({"error": [], "result": {"XXBTZUSD": {"wsname": "XBT/USD", "altname": "XBTUSD"}}})
        else:
            rows = [[time, "1", "2", "1", "2", "1.5", "0.25", 3] for time in times]
            body = json.dumps({"error": [], "result": {"XXBTZUSD": rows, "last": minute}})
        return 200 if "days=9" not in path else 500, body.encode()

    with answering(answer) as url:
        yield url, requested


def test_the_open_minute_is_left_out_for_both_sources(exchange: tuple[str, list[str]]) -> None:
    url, requested = exchange
    live = ExchangeSettings(rest_url=url)
    simulated = ExchangeSettings(mode="sim", history_url=f"{url}/history")
    bars, source = Kraken(simulated).minute_bars("BTC/USD", 3)
    assert (len(bars), source) == (2, "history")
    rest_bars, source = Kraken(live).minute_bars("BTC/USD", 3)
    assert source == "rest"
    assert np.array_equal(bars, rest_bars)
    assert requested == [
        "/history/XBTUSD_1.csv?days=3",
        "/0/public/AssetPairs",
        "/0/public/OHLC?pair=XBTUSD&interval=1",
    ]
    with pytest.raises(ExchangeError, match="500"):
        Kraken(simulated).minute_bars("BTC/USD", 9)


def test_the_error_for_a_refused_request_has_the_text_of_the_exchange(exchange: tuple[str, list[str]]) -> None:
    with pytest.raises(ExchangeError, match="EGeneral:Too many requests"):
        Kraken(ExchangeSettings(rest_url=exchange[0])).get("Refused")


@pytest.mark.parametrize("body", [b"<html>", b'{"error":[],"result":"\xff"}', b"[]", b'{"error":[]}'])
def test_an_answer_that_is_not_what_kraken_documents_raises_exchange_error(body: bytes) -> None:
    with answering(lambda _path: (200, body)) as url, pytest.raises(ExchangeError):
        Kraken(ExchangeSettings(rest_url=url)).minute_bars("BTC/USD", 1)
