"""The offset of the exchange's clock from ours and the round-trip time, measured with pings or with the times in frames.

An exchange whose answer to a ping contains its clock is measured as NTP does it. Binance and Coinbase send no such answer.
Their frames have the time at which the exchange made them, so the receive time minus that time is the delay on the way
minus the offset. The smallest difference in a second belongs to the frame with the shortest delay, which is taken to be half
of the round trip of a WebSocket ping.
What does not belong here: reading our own clock (`btc_core.clock`).
"""

from __future__ import annotations

from collections import deque
from statistics import median_low

from btc_core import metrics
from btc_core.clock import NS_PER_S

SAMPLES = 8
"""Answers to choose from: the one with the shortest round trip gives the offset, because slower ones were delayed in one
of the two directions (the clock filter of NTP)."""
ROUNDING_NS = 1_000_000
"""An answer may claim to have taken this much longer than the ping was under way: clocks step and are rounded."""
WINDOW_S = 20
"""Seconds with frames from which an offset is taken. Their median is used, so frames with a wrong time do not set the offset
unless they come in half of these seconds, and the offset follows a step of a clock within half of them."""
MIN_SECONDS = 5
"""Seconds with frames before which there is no offset."""


class ExchangeClock:
    """The newest measurement; `offset_ns` is the exchange's clock minus ours, 0 until the first one."""

    def __init__(self, exchange: str) -> None:
        self._exchange = exchange
        self.offset_ns = 0
        self.round_trip_ns = 0
        self._samples: deque[tuple[int, int]] = deque(maxlen=SAMPLES)
        self._round_trips_ns: deque[int] = deque(maxlen=SAMPLES)
        """Round trips of the newest WebSocket pings. The answer to a ping contains no time of the exchange."""
        self._differences: deque[tuple[int, int]] = deque(maxlen=WINDOW_S)
        """By second of receipt the smallest receive time minus event time of a frame in it (ns)."""
        self._is_measured = False

    @property
    def measured_offset_ns(self) -> int | None:
        """The offset, or None until it was measured."""
        return self.offset_ns if self._is_measured else None

    def measure(self, sent_ns: int, time_in_ns: int, time_out_ns: int, received_ns: int) -> None:
        """Take the four times of one ping: sent by us, received and answered by the exchange, received by us.

        An impossible answer, which took the exchange longer than the ping was under way, is ignored.

        >>> clock = ExchangeClock("kraken")
        >>> clock.measure(1_000, 5_400, 5_500, 2_100)  # 500 ns in each direction, 3,900 ns ahead
        >>> clock.offset_ns, clock.round_trip_ns
        (3900, 1000)
        """
        if not 0 <= time_out_ns - time_in_ns <= received_ns - sent_ns + ROUNDING_NS:
            return
        round_trip_ns = max(0, received_ns - sent_ns - (time_out_ns - time_in_ns))
        offset_ns = (time_in_ns - sent_ns + time_out_ns - received_ns) // 2
        if self._samples and abs(offset_ns - self.offset_ns) > max(round_trip_ns, self._samples[-1][0]):
            self._samples.clear()  # one of the clocks was set: older measurements no longer apply
        self._samples.append((round_trip_ns, offset_ns))
        self._set(min(self._samples)[1])
        self._set_round_trip(round_trip_ns)

    def measure_round_trip(self, round_trip_ns: int) -> None:
        """Take the round trip of a WebSocket ping; the offset follows from the times in frames."""
        self._round_trips_ns.append(round_trip_ns)
        self._set_round_trip(round_trip_ns)

    def observe(self, channel: str, ts_event_ns: int, ts_recv_ns: int) -> None:
        """Record the latency of a frame from the exchange to us, corrected by the offset; a negative one counts as zero."""
        latency_ns = ts_recv_ns - ts_event_ns + self.offset_ns
        if latency_ns < 0:
            metrics.FEED_LATENCY_NEGATIVE.labels(self._exchange, channel).inc()
        metrics.FEED_LATENCY.labels(self._exchange, channel).observe(max(0, latency_ns) / NS_PER_S)
        if not self._samples:
            self._compare(ts_event_ns, ts_recv_ns)

    def _compare(self, ts_event_ns: int, ts_recv_ns: int) -> None:
        """Take the times of a frame; a second's smallest difference counts once the second is over."""
        second, difference_ns = ts_recv_ns // NS_PER_S, ts_recv_ns - ts_event_ns
        if self._differences and self._differences[-1][0] == second:
            self._differences[-1] = second, min(difference_ns, self._differences[-1][1])
            return
        if self._round_trips_ns and len(self._differences) >= MIN_SECONDS:
            typical_ns = median_low(smallest_ns for _, smallest_ns in self._differences)
            self._set(min(self._round_trips_ns) // 2 - typical_ns)
        self._differences.append((second, difference_ns))

    def _set(self, offset_ns: int) -> None:
        self.offset_ns, self._is_measured = offset_ns, True
        metrics.CLOCK_OFFSET.labels(self._exchange).set(offset_ns / NS_PER_S)

    def _set_round_trip(self, round_trip_ns: int) -> None:
        self.round_trip_ns = round_trip_ns
        metrics.ROUND_TRIP.labels(self._exchange).observe(round_trip_ns / NS_PER_S)
