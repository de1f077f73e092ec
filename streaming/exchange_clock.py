"""The offset of the exchange's clock from ours and the round-trip time, measured with pings.

What does not belong here: reading our own clock (`btc_core.clock`).
"""

from __future__ import annotations

from collections import deque

from btc_core import metrics
from btc_core.clock import NS_PER_S

SAMPLES = 8
"""Answers to choose from: the one with the shortest round trip gives the offset, because slower ones were delayed in one
of the two directions (the clock filter of NTP)."""


ROUNDING_NS = 1_000_000
"""An answer may claim to have taken this much longer than the ping was under way: clocks step and are rounded."""


class ExchangeClock:
    """The newest measurement; `offset_ns` is the exchange's clock minus ours, 0 until the first answer."""

    def __init__(self) -> None:
        self.offset_ns = 0
        self.round_trip_ns = 0
        self._samples: deque[tuple[int, int]] = deque(maxlen=SAMPLES)

    @property
    def measured_offset_ns(self) -> int | None:
        """The offset, or None until there is an answer."""
        return self.offset_ns if self._samples else None

    def measure(self, sent_ns: int, time_in_ns: int, time_out_ns: int, received_ns: int) -> None:
        """Take the four times of one ping: sent by us, received and answered by the exchange, received by us.

        An impossible answer, which took the exchange longer than the ping was under way, is ignored.

        >>> clock = ExchangeClock()
        >>> clock.measure(1_000, 5_400, 5_500, 2_100)  # 500 ns in each direction, 3,900 ns ahead
        >>> clock.offset_ns, clock.round_trip_ns
        (3900, 1000)
        """
        if not 0 <= time_out_ns - time_in_ns <= received_ns - sent_ns + ROUNDING_NS:
            return
        self.round_trip_ns = max(0, received_ns - sent_ns - (time_out_ns - time_in_ns))
        offset_ns = (time_in_ns - sent_ns + time_out_ns - received_ns) // 2
        if self._samples and abs(offset_ns - self.offset_ns) > max(self.round_trip_ns, self._samples[-1][0]):
            self._samples.clear()  # one of the clocks was set: older measurements no longer apply
        self._samples.append((self.round_trip_ns, offset_ns))
        self.offset_ns = min(self._samples)[1]
        metrics.CLOCK_OFFSET.labels("exchange").set(self.offset_ns / NS_PER_S)
        metrics.ROUND_TRIP.labels("exchange").observe(self.round_trip_ns / NS_PER_S)

    def observe(self, channel: str, ts_event_ns: int, ts_recv_ns: int) -> None:
        """Record the latency of a frame from the exchange to us, corrected by the offset; a negative one counts as zero."""
        latency_ns = ts_recv_ns - ts_event_ns + self.offset_ns
        if latency_ns < 0:
            metrics.FEED_LATENCY_NEGATIVE.labels(channel).inc()
        metrics.FEED_LATENCY.labels(channel).observe(max(0, latency_ns) / NS_PER_S)
