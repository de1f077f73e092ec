"""Minute bars from REST: the accepted bars, and the errors for bad ones."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from btc_core.clock import NS_PER_MIN, NS_PER_S
from btc_core.errors import ExchangeError, InvalidInput
from btc_core.exchange_settings import ExchangeSettings
from btc_core.exchanges import rest
from btc_core.exchanges.kraken import Kraken
from btc_core.market.bars import BARS
from btc_core.market.checked_bars import interval_min, parse_csv, sorted_bars
from tests.http_server import answering

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.unit

START_S = 1_743_465_600
"""2025-04-01."""


def test_csv_lines_become_sorted_bars_without_duplicates() -> None:
    rows = (f"{START_S + 60},2,3,1,2.5,0.5,7", f"{START_S},1,2,1,2,0.25,3", f"{START_S + 60},2,3,1,2.5,0.5,7")
    bars = parse_csv("\n".join(rows), "file.csv")
    assert (bars["ts_ns"] - START_S * NS_PER_S).tolist() == [0, NS_PER_MIN]
    assert bars["close"].tolist() == [2.0, 2.5]
    assert bars["trades"].tolist() == [3, 7]


def test_an_empty_file_gives_no_bars() -> None:
    assert len(parse_csv("", "file.csv")) == 0


@pytest.mark.parametrize(
    "line",
    ["1,2,1,2,0.25", "1,2,1,x,0.25,3", "0,2,1,2,0.25,3", "1,1,2,1,0.25,3", "1,2,1,2,-1,3", "1,nan,1,2,0.25,3",
     "1,2,1.5,2,0.25,3", "1,2,1,2,inf,3", "1,2e9,1,2,0.25,3", "1,2,1,2,0.25,nan", "1,2,1,2,0.25,-2"],
)  # fmt: skip
def test_a_line_that_is_not_a_possible_bar_is_refused(line: str) -> None:
    with pytest.raises(InvalidInput):
        parse_csv(f"{START_S},{line}", "file.csv")


@pytest.mark.parametrize("time", [START_S + 1, 0, 4_102_444_800, "nan"])
def test_a_bar_between_minutes_before_the_market_or_in_the_future_is_refused(time: float) -> None:
    with pytest.raises(InvalidInput):
        parse_csv(f"{time},1,2,1,2,0.25,3", "file.csv")


def test_the_error_for_a_line_that_is_no_bar_names_the_line() -> None:
    with pytest.raises(InvalidInput, match=r"answer, line 2: expected the numbers .*, not '<html>'"):
        parse_csv(f"{START_S},1,2,1,2,0.25,3\n<html>", "answer")


def test_different_bars_of_the_same_minute_are_refused() -> None:
    with pytest.raises(InvalidInput, match="different bars of the same minute"):
        parse_csv(f"{START_S},1,2,1,2,0.25,3\n{START_S},1,2,1,1.5,0.25,3", "file.csv")


def test_equal_bars_whose_volume_was_summed_in_another_order_are_one_bar() -> None:
    bars = np.zeros(2, BARS)
    bars["ts_ns"] = START_S * NS_PER_S
    for name in ("open", "high", "low", "close"):
        bars[name] = 1.0
    bars["volume"] = 0.1 + 0.2, 0.3
    assert len(sorted_bars(bars, "bars")) == 1


@pytest.mark.parametrize("minutes", [5, 15, 60, 240, 1_440])
def test_the_length_of_bars_follows_from_their_times(minutes: int) -> None:
    opens = START_S * NS_PER_S + np.arange(200) * minutes * NS_PER_MIN
    assert interval_min(opens) == minutes
    assert interval_min(np.append(opens, opens[-1] + NS_PER_MIN)) == minutes, "one bar off the grid"
    assert interval_min(opens[:2]) == minutes


def test_minute_bars_of_a_thin_market_are_minute_bars() -> None:
    minutes = np.sort(np.random.default_rng(5).choice(100_000, 60, replace=False))
    assert interval_min(START_S * NS_PER_S + minutes * NS_PER_MIN) == 1
    two_bars = START_S * NS_PER_S + np.array([0, 10]) * NS_PER_MIN
    assert interval_min(two_bars, named_min=1) == 1, "too few to tell, and the name of the file says it"


@pytest.fixture
def exchange() -> Iterator[tuple[str, list[str]]]:
    """Serve CSV at /history and OHLC at the exchange's path; yield the address and the list of requested paths.

    The newest bar is that of the minute of `START_S`.
    """
    requested: list[str] = []
    minute = START_S

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


def test_the_open_minute_is_left_out_for_both_sources(
    exchange: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, requested = exchange
    monkeypatch.setattr(rest, "now_ns", lambda: (START_S + 30) * NS_PER_S)
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
