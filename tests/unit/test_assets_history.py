"""Bars from the exchange: what is taken, what is refused, and how far back is asked for."""

from __future__ import annotations

import http.server
import json
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, now_ns
from btc_core.errors import ExchangeError, InvalidInput
from btc_core.settings import ExchangeSettings, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_assets import history

pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:dagster"),
]


@pytest.fixture
def module() -> object:
    from btc_assets import history

    return history


def test_csv_becomes_sorted_bars_without_repeats(module: history) -> None:
    bars = module.parse_csv("120,2,3,1,2.5,0.5,7\n60,1,2,1,2,0.25,3\n120,2,3,1,2.5,0.5,7\n")
    assert bars["ts_ns"].tolist() == [NS_PER_MIN, 2 * NS_PER_MIN]
    assert bars["close"].tolist() == [2.0, 2.5]
    assert bars["trades"].tolist() == [3, 7]


def test_an_empty_history_is_no_bars(module: history) -> None:
    assert len(module.parse_csv("")) == 0


@pytest.mark.parametrize(
    "line",
    ["60,1,2,1,2,0.25", "60,1,2,1,x,0.25,3", "60,0,2,1,2,0.25,3", "60,1,1,2,1,0.25,3", "60,1,2,1,2,-1,3",
     "61,1,2,1,2,0.25,3", "60,1,nan,1,2,0.25,3", "<html>"],
)  # fmt: skip
def test_impossible_history_is_refused(module: history, line: str) -> None:
    with pytest.raises(InvalidInput):
        module.parse_csv(line)


def test_the_minute_in_progress_is_left_out_of_ohlc(module: history) -> None:
    row = ["1", "2", "1", "2", "1.5", "0.25", 3]
    answer = {"error": [], "result": {"XXBTZUSD": [[60, *row], [120, *row]], "last": 60}}
    bars = module.parse_ohlc(answer)
    assert bars["ts_ns"].tolist() == [NS_PER_MIN]
    assert bars["volume"].tolist() == [0.25]


def test_what_the_exchange_refuses_is_told_in_its_words(module: history) -> None:
    with pytest.raises(ExchangeError, match="EGeneral:Too many requests"):
        module.parse_ohlc({"error": ["EGeneral:Too many requests"]})
    with pytest.raises(ExchangeError, match="another form"):
        module.parse_ohlc({"error": [], "result": {"XXBTZUSD": [[60]], "last": 1}, "more": 1} | {"result": {}})


def test_the_whole_window_is_asked_for_first_and_then_only_what_is_new(module: history) -> None:
    now = 1_000 * NS_PER_DAY
    assert module.missing_days((0, 0, 0), 121, now) == 121
    assert module.missing_days((10, now - 5 * NS_PER_DAY, now), 121, now) == 121
    assert module.missing_days((10, now - 130 * NS_PER_DAY, now - NS_PER_MIN), 121, now) == 2
    assert module.missing_days((10, now - 130 * NS_PER_DAY, now - 3 * NS_PER_DAY), 121, now) == 5


@pytest.fixture
def exchange() -> Iterator[tuple[str, list[str]]]:
    """An HTTP server that answers CSV at /history and OHLC at the exchange's path, and keeps what was asked."""
    asked: list[str] = []
    minute = now_ns() // NS_PER_MIN * 60

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            times = [minute - 120, minute - 60, minute]
            if self.path.startswith("/history"):
                body = "".join(f"{time},1,2,1,2,0.25,3\n" for time in times)
            else:
                rows = [[time, "1", "2", "1", "2", "1.5", "0.25", 3] for time in times]
                body = json.dumps({"error": [], "result": {"XXBTZUSD": rows, "last": minute}})
            self.send_response(200 if "days=9" not in self.path else 500)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_only_closed_minutes_are_fetched_from_either_source(module: history, exchange: tuple[str, list[str]]) -> None:
    url, asked = exchange
    live = Settings(exchange=ExchangeSettings(rest_url=url))
    simulated = Settings(exchange=ExchangeSettings(mode="sim", history_url=f"{url}/history"))
    bars, source = module.fetch(simulated, 3)
    assert (len(bars), source) == (2, "history")
    same, source = module.fetch(live, 3)
    assert source == "rest"
    assert np.array_equal(bars, same)
    assert asked == ["/history?days=3", "/0/public/OHLC?pair=XBTUSD&interval=1"]
    with pytest.raises(ExchangeError, match="500"):
        module.fetch(simulated, 9)
