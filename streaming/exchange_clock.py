"""The exchange's clock against ours, from pings: how far it is ahead, and how long a round trip takes.

What does not belong here: reading our own clock (`btc_core.clock`).
"""

from __future__ import annotations

from collections import deque

from btc_core import metrics
from btc_core.clock import NS_PER_S

SAMPLES = 8
"""The offset of the quickest of these counts: the slower ones waited somewhere, on one of the two ways (as in NTP)."""


class ExchangeClock:
    """`offset_ns` is the exchange's clock minus ours; 0 until the first answer."""

    def __init__(self) -> None:
        self.offset_ns = 0
        self.round_trip_ns = 0
        self._samples: deque[tuple[int, int]] = deque(maxlen=SAMPLES)

    def ponged(self, sent_ns: int, time_in_ns: int, time_out_ns: int, received_ns: int) -> None:
        """Take one answer: our send and receive times and the exchange's between them.

        >>> clock = ExchangeClock()
        >>> clock.ponged(1_000, 5_400, 5_500, 2_100)  # 500 ns there and 500 ns back, 3,900 ns ahead
        >>> clock.offset_ns, clock.round_trip_ns
        (3900, 1000)
        """
        self.round_trip_ns = max(0, received_ns - sent_ns - (time_out_ns - time_in_ns))
        offset_ns = (time_in_ns - sent_ns + time_out_ns - received_ns) // 2
        if self._samples and abs(offset_ns - self.offset_ns) > max(self.round_trip_ns, self._samples[-1][0]):
            self._samples.clear()  # a clock was set: what was measured before says nothing
        self._samples.append((self.round_trip_ns, offset_ns))
        self.offset_ns = min(self._samples)[1]
        metrics.CLOCK_OFFSET.labels("exchange").set(self.offset_ns / NS_PER_S)
        metrics.ROUND_TRIP.labels("exchange").observe(self.round_trip_ns / NS_PER_S)

    def observe(self, channel: str, ts_event_ns: int, ts_recv_ns: int) -> None:
        """Count the time from the exchange to us, the offset taken out; a negative one counts as none."""
        latency_ns = ts_recv_ns - ts_event_ns + self.offset_ns
        if latency_ns < 0:
            metrics.FEED_LATENCY_NEGATIVE.labels(channel).inc()
        metrics.FEED_LATENCY.labels(channel).observe(max(0, latency_ns) / NS_PER_S)
