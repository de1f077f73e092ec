"""The pauses between connections, at times that the tests choose."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response

from streaming.reconnecting import BACKOFF_FIRST_S, BACKOFF_MAX_S, Reconnecting, new_budget

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def longest_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every random pause is its upper limit."""
    monkeypatch.setattr("random.uniform", lambda _low, high: high)


def refused(status: int, **headers: str) -> InvalidStatus:
    return InvalidStatus(
        Response(status, "", Headers({name.replace("_", "-"): text for name, text in headers.items()}))
    )


def test_a_server_that_sends_a_snapshot_and_closes_is_connected_to_more_and_more_rarely() -> None:
    reconnecting = Reconnecting()
    pauses = []
    for _ in range(8):
        reconnecting.ended(0.1, received_data=True)
        pauses.append(reconnecting.pause_s())
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_only_a_connection_that_delivered_for_a_minute_is_followed_by_the_next_at_once() -> None:
    reconnecting = Reconnecting()
    reconnecting.ended(59.0, received_data=True)
    reconnecting.ended(600.0, received_data=False)
    assert reconnecting.pause_s() == 2.0
    reconnecting.ended(60.0, received_data=True)
    assert reconnecting.pause_s() == 0.0


def test_the_budget_allows_at_most_105_connections_in_ten_minutes() -> None:
    budget = new_budget()
    opened, now_s = 0, 1_000.0
    while now_s < 1_600.0:
        wait_s = budget.take(now_s)
        opened += wait_s == 0
        now_s += max(wait_s, 0.01)
    assert 100 <= opened <= 105


@pytest.mark.parametrize("status", [403, 429])
def test_a_refused_handshake_pauses_for_a_minute_and_then_longer(status: int) -> None:
    reconnecting = Reconnecting()
    pauses = []
    for _ in range(6):
        reconnecting.ended(0.0, received_data=False)
        pauses.append(reconnecting.pause_s(refused(status)))
    assert pauses == [60.0, 120.0, 240.0, 480.0, 600.0, 600.0]
    reconnecting.ended(1.0, received_data=False)
    reconnecting.ended(0.0, received_data=False)
    assert reconnecting.pause_s(refused(status)) == 60.0


def test_retry_after_is_obeyed_as_seconds_and_as_a_date_and_bounded() -> None:
    reconnecting = Reconnecting()
    assert reconnecting.pause_s(refused(429, Retry_After="77")) == 77.0
    assert reconnecting.pause_s(refused(503, Retry_After="90")) == 90.0
    assert reconnecting.pause_s(refused(429, Retry_After="9" * 400)) == 3_600.0
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=2_000), usegmt=True)
    assert 1_900.0 < reconnecting.pause_s(refused(403, Retry_After=soon)) <= 2_000.0
    for nonsense in ("soon", "", "-5", "1e9", "Thu, 99 Foo 2026 00:00:00 GMT"):
        assert Reconnecting().pause_s(refused(429, Retry_After=nonsense)) == 60.0


def test_an_exchange_that_is_unreachable_all_night_is_still_tried() -> None:
    reconnecting = Reconnecting()
    for _ in range(5_000):
        reconnecting.ended(0.0, received_data=False)
    assert BACKOFF_FIRST_S < reconnecting.pause_s(OSError()) == BACKOFF_MAX_S
