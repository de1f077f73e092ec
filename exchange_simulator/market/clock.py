"""Market time: the present of the market, and the stamps that the exchange's own clock gives.

What does not belong here: who waits for a moment (`feeds`), or what is stamped (`told_tape`).
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from btc_core.clock import NS_PER_MIN, NS_PER_S, SYSTEM_CLOCK

if TYPE_CHECKING:
    from btc_core.clock import Clock


class MarketClock:
    """Market time: wall time from the start on, `speed` times as fast; speed 0 stands still between calls of `set`."""

    def __init__(self, speed: float = 1.0, clock: Clock = SYSTEM_CLOCK) -> None:
        self.speed = speed
        self._clock = clock
        self._market_ns = self._wall_ns = clock.now_ns()
        self._started = False
        self._scaled = speed not in {0.0, 1.0}
        self._skews = [(0, 0)]
        """From which moment on the exchange's own clock, with which it stamps, is how many ns ahead."""

    def now_ns(self) -> int:
        """The present of the market, ns since the epoch."""
        if self.speed == 0 and self._started:
            return self._market_ns
        elapsed_ns = self._clock.now_ns() - self._wall_ns
        return self._market_ns + (int(elapsed_ns * self.speed) if self._scaled else elapsed_ns)

    def monotonic_s(self) -> float:
        """Monotonic seconds of the machine; only differences mean anything."""
        return self._clock.monotonic_s()

    def set(self, market_ns: int) -> None:
        """It is now `market_ns` on the market."""
        self._market_ns, self._wall_ns, self._started = market_ns, self._clock.now_ns(), True

    @property
    def ever_skewed(self) -> bool:
        """Whether any stamp differs from the moment it stands for."""
        return len(self._skews) > 1

    def set_skew(self, skew_ns: int) -> None:
        """The exchange stamps everything from now on this much too late (or too early)."""
        self._skews.append((self.now_ns(), skew_ns))

    def skew_ns(self, market_ns: int) -> int:
        """What the stamp of this moment adds to it."""
        if not self.ever_skewed:
            return 0
        return self._skews[bisect_right(self._skews, market_ns, key=lambda skew: skew[0]) - 1][1]

    def told_ns(self) -> int:
        """The present as the exchange's own clock has it."""
        now_ns = self.now_ns()
        return now_ns + self.skew_ns(now_ns)

    def skewed_minutes(self, reach_ns: int) -> frozenset[int]:
        """The minutes since 1970 whose trades may be stamped with another minute, `reach_ns` around each skew."""
        ends = [*(start_ns for start_ns, _ in self._skews[1:]), self.now_ns()]
        return frozenset(
            minute
            for (start_ns, skew_ns), end_ns in zip(self._skews, ends, strict=True)
            if skew_ns
            for minute in range((start_ns - reach_ns) // NS_PER_MIN, (end_ns + reach_ns) // NS_PER_MIN + 1)
        )

    def wait_s(self, market_ns: int) -> float:
        """Seconds of the machine until that moment; negative when it has passed."""
        return (market_ns - self.now_ns()) / NS_PER_S / self.speed
