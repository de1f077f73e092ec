"""Market time, and the clock of the exchange, which a fault can set ahead or behind.

Market time says when something happens on the market. The exchange stamps it with its own clock, which shows market
time plus the skew of that moment. What does not belong here: waiting (`websocket.feeds`), or which data is stamped
(`published_tape`).
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from btc_core.clock import NS_PER_MIN, NS_PER_S, SYSTEM_CLOCK

if TYPE_CHECKING:
    from btc_core.clock import Clock

MAX_SKEW_S = 2.0
"""The exchange's clock is never further than this from market time. A larger skew means more trades to read for REST."""
MAX_SKEW_NS = int(MAX_SKEW_S * NS_PER_S)


class MarketClock:
    """Market time: it starts at wall time and runs `speed` times as fast; at speed 0 only `set` moves it."""

    def __init__(self, speed: float = 1.0, clock: Clock = SYSTEM_CLOCK) -> None:
        self.speed = speed
        self._clock = clock
        self._market_ns = self._wall_ns = clock.now_ns()
        self._was_set = False
        self._scaled = speed not in {0.0, 1.0}
        self._skews = [(0, 0)]
        """Pairs of a market time and the skew from then on, both in ns."""

    def now_ns(self) -> int:
        """The present market time, ns since the epoch."""
        if self.speed == 0 and self._was_set:
            return self._market_ns
        elapsed_ns = self._clock.now_ns() - self._wall_ns
        return self._market_ns + (int(elapsed_ns * self.speed) if self._scaled else elapsed_ns)

    def monotonic_s(self) -> float:
        """Monotonic seconds of the machine; only differences mean anything."""
        return self._clock.monotonic_s()

    def set(self, market_ns: int) -> None:
        """Make `market_ns` the present market time."""
        self._market_ns, self._wall_ns, self._was_set = market_ns, self._clock.now_ns(), True

    @property
    def ever_skewed(self) -> bool:
        """Whether the exchange's clock ever differed from market time."""
        return len(self._skews) > 1

    def set_skew(self, skew_ns: int) -> None:
        """Set the exchange's clock this far ahead of market time (behind when negative) from now on."""
        self._skews.append((self.now_ns(), skew_ns))

    def skew_ns(self, market_ns: int) -> int:
        """How far the exchange's clock was ahead at this market time."""
        if not self.ever_skewed:
            return 0
        return self._skews[bisect_right(self._skews, market_ns, key=lambda skew: skew[0]) - 1][1]

    def exchange_now_ns(self) -> int:
        """The present as the exchange's own clock shows it."""
        now_ns = self.now_ns()
        return now_ns + self.skew_ns(now_ns)

    def skewed_minutes(self) -> frozenset[int]:
        """The minutes since 1970 in which trades may be missing or added because the clock was skewed."""
        ends = [*(start_ns for start_ns, _ in self._skews[1:]), self.now_ns()]
        return frozenset(
            minute
            for (start_ns, skew_ns), end_ns in zip(self._skews, ends, strict=True)
            if skew_ns
            for minute in range((start_ns - MAX_SKEW_NS) // NS_PER_MIN, (end_ns + MAX_SKEW_NS) // NS_PER_MIN + 1)
        )

    def wait_s(self, market_ns: int) -> float:
        """Seconds of the machine until this market time; negative when it has passed."""
        return (market_ns - self.now_ns()) / NS_PER_S / self.speed
