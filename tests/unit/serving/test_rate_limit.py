"""The rate limit of one address: whole bursts, a steady rate after them, and rates below one a second."""

from __future__ import annotations

import pytest

from btc_core.clock import NS_PER_S
from serving import rate_limit
from serving.problem_details import Problem
from serving.rate_limit import RateLimit
from tests.serving_world import FakeClock


def admitted(limit: RateLimit, client: str = "10.0.0.1", requests: int = 1_000) -> int:
    """How many of many requests at one instant pass before the first refusal."""
    for count in range(requests):
        try:
            limit.check(client)
        except Problem:
            return count
    return requests


@pytest.mark.parametrize("per_s", [1, 2, 3, 5, 7, 10, 50, 100, 333])
def test_a_burst_is_admitted_to_the_last_request_and_then_one_for_each_interval(per_s: int) -> None:
    clock = FakeClock()
    limit = RateLimit(per_s, clock)
    assert admitted(limit) == per_s
    clock.now += NS_PER_S // per_s + 1_000_000  # the library counts in milliseconds
    assert admitted(limit) == 1
    clock.now += 10 * NS_PER_S
    assert admitted(limit) == per_s


def test_a_rate_below_one_a_second_admits_one_request_for_each_interval() -> None:
    clock = FakeClock()
    limit = RateLimit(0.5, clock)
    assert admitted(limit) == 1
    with pytest.raises(Problem) as refused:
        limit.check("10.0.0.1")
    assert refused.value.headers == {"Retry-After": "3"}
    assert refused.value.more == {"retry_after_s": 2.0}
    clock.now += 2 * NS_PER_S
    assert admitted(limit) == 1


def test_only_so_many_clients_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "MAX_CLIENTS", 2)
    limit = RateLimit(1, FakeClock())
    assert [admitted(limit, client) for client in ("first", "second", "third")] == [1, 1, 1]
    assert admitted(limit, "third") == 0
    assert admitted(limit, "first") == 1, "it was forgotten for the third"
