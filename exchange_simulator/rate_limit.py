"""The limits of requests: the token bucket of WebSocket and REST, and a time for which REST refuses every request.

What does not belong here: the answer to a client above its limit (`websocket.hub`, `rest.api`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exchange_simulator.market.clock import MarketClock


class RateLimit:
    """A token bucket that allows `per_s` requests a second on average, and `burst` at once."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._tokens = burst
        self._refilled_s: float | None = None

    def allows(self, now_s: float) -> bool:
        """Take a token if there is one; `now_s` is monotonic."""
        if self._refilled_s is not None:
            self._tokens = min(self._burst, self._tokens + (now_s - self._refilled_s) * self._per_s)
        self._refilled_s = now_s
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class Throttle:
    """A time for which every request is refused."""

    def __init__(self, clock: MarketClock) -> None:
        self._clock = clock
        self._until_s = 0.0

    def start(self, seconds: float) -> None:
        """Refuse every request for this long from now on; 0 ends it."""
        self._until_s = self._clock.monotonic_s() + seconds if seconds else 0.0

    def retry_after_s(self) -> int:
        """Whole seconds for which requests are refused; 0 when they are answered."""
        return max(0, math.ceil(self._until_s - self._clock.monotonic_s()))
