"""The token bucket."""

from __future__ import annotations

import pytest

from exchange_simulator.rate_limit import RateLimit

pytestmark = pytest.mark.unit


def test_a_rate_limit_allows_its_burst_and_then_its_rate() -> None:
    limit = RateLimit(20, 20)
    assert sum(limit.allows(100.0) for _ in range(30)) == 20
    assert not limit.allows(100.01)
    assert limit.allows(100.06)
