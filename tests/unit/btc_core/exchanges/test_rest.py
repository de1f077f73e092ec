"""Requests to REST: what each refusal becomes, and the request budget that one process has."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from btc_core.errors import ExchangeError, NotOffered, RateLimited
from btc_core.exchange_settings import ExchangeSettings
from btc_core.exchanges import rest
from btc_core.exchanges.kraken import Kraken
from btc_core.exchanges.rest import PAUSE_FIRST_S, RequestBudget, budget_of, fetch
from tests.http_server import answering, listening

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.unit

BUDGET = budget_of("kraken")


@pytest.fixture(autouse=True)
def _own_budget() -> Iterator[None]:
    """Give each test the whole request budget, and leave none of its refusals behind."""
    for name, value in vars(RequestBudget()).items():
        setattr(BUDGET, name, value)
    yield
    for name, value in vars(RequestBudget()).items():
        setattr(BUDGET, name, value)


@contextmanager
def refusing(status: int, **headers: str) -> Iterator[str]:
    """A server that answers every request with this status and these headers."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with listening(Handler) as url:
        yield url


@pytest.mark.parametrize("status", [403, 418, 429, 503])
def test_a_retry_after_in_seconds_is_obeyed_by_every_request_of_the_process(status: int) -> None:
    with refusing(status, Retry_After="40") as url, pytest.raises(RateLimited, match="wait 40 s"):
        fetch(url, {}, BUDGET)
    assert 20.0 < BUDGET.ready_in_s() <= 40.0, "much longer than the pause that doubles"


def test_a_retry_after_may_be_a_date() -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=900), usegmt=True)
    with refusing(429, Retry_After=at) as url, pytest.raises(RateLimited):
        fetch(url, {}, BUDGET)
    assert 800.0 < BUDGET.ready_in_s() <= 900.0


def test_without_a_retry_after_the_pauses_double_until_a_request_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "time", SimpleNamespace(monotonic=lambda: 0.0))
    budget = RequestBudget()
    pauses = []
    for _ in range(3):
        budget.refused(None)
        pauses.append(budget.ready_in_s())
    assert pauses == [PAUSE_FIRST_S, 2 * PAUSE_FIRST_S, 4 * PAUSE_FIRST_S]
    budget = RequestBudget()
    budget.refused(None)
    budget.answered()
    budget.refused(None)
    assert budget.ready_in_s() == PAUSE_FIRST_S


@pytest.mark.parametrize(("status", "error"), [(404, NotOffered), (500, ExchangeError), (503, ExchangeError)])
def test_another_status_is_not_a_rate_limit(status: int, error: type[ExchangeError]) -> None:
    with refusing(status) as url, pytest.raises(error, match=str(status)) as raised:
        fetch(url, {}, BUDGET)
    assert not isinstance(raised.value, RateLimited)
    assert BUDGET.ready_in_s() == 0.0


def test_a_rate_limit_of_one_exchange_makes_no_other_wait() -> None:
    with refusing(429, Retry_After="40") as url, pytest.raises(RateLimited):
        Kraken(ExchangeSettings(rest_url=url)).get("Time")
    assert BUDGET.ready_in_s() > 20.0
    assert budget_of("binance-perp").ready_in_s() == budget_of("binance").ready_in_s() == 0.0


def test_two_clients_of_one_process_share_the_request_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Kraken, "rest_pause_s", 0.2)
    sent: list[float] = []

    def answer(_path: str) -> tuple[int, bytes]:
        sent.append(time.monotonic())
        return 200, b'{"error":[],"result":{}}'

    with answering(answer) as url:
        repair, history = (Kraken(ExchangeSettings(rest_url=url)) for _ in range(2))
        started_s = time.monotonic()
        for client in (repair, history, repair, history):
            client.get("Time")
    assert sent[-1] - started_s >= 3 * 0.2


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("EAPI:Rate limit exceeded", RateLimited),
        ("EGeneral:Too many requests", RateLimited),
        ("EQuery:Unknown asset pair", NotOffered),
        ("EService:Unavailable", ExchangeError),
    ],
)
def test_the_errors_of_kraken_that_come_with_status_200_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, text: str, error: type[ExchangeError]
) -> None:
    refusals: list[object] = []
    monkeypatch.setattr(BUDGET, "refused", refusals.append)
    with answering(lambda _: (200, json.dumps({"error": [text]}).encode())) as url:
        kraken = Kraken(ExchangeSettings(rest_url=url))
        with pytest.raises(error, match=text) as raised:
            kraken.get("Trades")
    assert type(raised.value) is error
    assert bool(refusals) is (error is RateLimited), "only a rate limit makes the next request wait"


ASKER = """
import sys
import btc_core.exchanges.rest as rest
from btc_core.errors import RateLimited
from btc_core.exchanges.kraken import Kraken
from btc_core.exchange_settings import ExchangeSettings
rest.PAUSE_FIRST_S, Kraken.rest_pause_s = 0.1, 0.2
kraken, refused = Kraken(ExchangeSettings(rest_url=sys.argv[1])), 0
for _ in range(8):
    while True:
        try:
            kraken.trade_page("BTC/USD", 1)
            break
        except RateLimited:
            refused += 1
print(refused)
"""


def test_two_processes_that_exceed_the_limit_together_slow_down_and_both_get_every_answer() -> None:
    lock, answered_s = threading.Lock(), [0.0]

    def answer(path: str) -> tuple[int, bytes]:
        if "AssetPairs" in path:
            return 200, b'{"error":[],"result":{"XXBTZUSD":{"wsname":"XBT/USD","altname":"XBTUSD"}}}'
        with lock:
            if time.monotonic() - answered_s[0] < 0.15:  # one process stays below this limit, two together do not
                return 429, b"slow down"
            answered_s[0] = time.monotonic()
        return 200, b'{"error":[],"result":{"XXBTZUSD":[],"last":"1"}}'

    with answering(answer) as url:
        command = [sys.executable, "-c", ASKER, url]
        askers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        refused = [int(asker.communicate(timeout=180)[0]) for asker in askers]
    assert [asker.returncode for asker in askers] == [0, 0]
    assert sum(refused) <= 40, "a refused process does not storm"
