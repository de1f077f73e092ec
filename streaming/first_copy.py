"""One stream out of two connections to the same exchange: each message is taken from whichever brings it first.

A stall, a new subscription or a restart of one connection then costs nothing, because the other one has the message.
A message is matched with its copy once, so a connection that sends the same thing twice is not silenced. A quote that is
older than the newest one of the other connection is left out: it would make an old price the current one.
What does not belong here: connections (`exchange_link`), or trades that one connection repeats (`bronze`).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from btc_core import metrics
from btc_core.market.frames import StatusFrame, TickerFrame, TradeFrame, timestamp_ns

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from btc_core.market.frames import ChannelFrame

MATCH_S = 30.0
"""How long a message waits for its copy. A connection that is further behind is replaced (`BTC_STREAM_DATA_DEADLINE_S`)."""
MAX_WAITING = 200_000
"""Messages that wait for their copies at most; more than a minute of the busiest market."""


class _Waiting:
    """A message that one connection brought and the other did not, yet."""

    __slots__ = ("arrived_s", "counted", "key", "link", "matched")

    def __init__(self, key: Hashable, link: int, arrived_s: float, *, counted: bool) -> None:
        self.key = key
        self.link = link
        self.arrived_s = arrived_s
        self.counted = counted
        """Whether it counts if its copy never comes; a snapshot repeats what is old."""
        self.matched = False


class FirstCopies:
    """Decides which messages of two links to one exchange are new. `now_s` is monotonic seconds."""

    def __init__(self, exchange: str) -> None:
        self._exchange = exchange
        self._unmatched: dict[Hashable, list[_Waiting]] = {}
        self._waiting: deque[_Waiting] = deque()
        """All messages of the last `MATCH_S`, matched or not, oldest first."""
        self._newest_quote: dict[str, tuple[int, int]] = {}
        """By symbol the time (ns) and the link of the newest quote."""

    def is_new(self, link: int, symbol: str, frame: ChannelFrame, raw: bytes, now_s: float) -> bool:
        """Whether any part of this frame has not come from the other link."""
        self._expire(now_s)
        new = [key for key in _keys(frame, raw) if not self._is_copy(key, link)]
        counted = getattr(frame, "type", "update") == "update"
        for key in new:
            waiting = _Waiting(key, link, now_s, counted=counted)
            self._unmatched.setdefault(key, []).append(waiting)
            self._waiting.append(waiting)
        if not new:
            metrics.LINK_FRAMES.labels(self._exchange, str(link), "copy").inc()
            return False
        if isinstance(frame, TickerFrame) and self._is_late(link, symbol, frame):
            metrics.LINK_FRAMES.labels(self._exchange, str(link), "late").inc()
            return False
        metrics.LINK_FRAMES.labels(self._exchange, str(link), "first").inc()
        return True

    def _is_copy(self, key: Hashable, link: int) -> bool:
        """Whether the other link has brought this; the two are then matched."""
        for waiting in self._unmatched.get(key, ()):
            if waiting.link != link:
                waiting.matched = True
                self._remove(waiting)
                return True
        return False

    def _remove(self, waiting: _Waiting) -> None:
        same = self._unmatched[waiting.key]
        same.remove(waiting)
        if not same:
            del self._unmatched[waiting.key]

    def _is_late(self, link: int, symbol: str, frame: TickerFrame) -> bool:
        moment_ns = timestamp_ns(frame.data[-1].timestamp, 0)
        newest_ns, newest_link = self._newest_quote.get(symbol, (0, link))
        if 0 < moment_ns < newest_ns and newest_link != link:
            return True
        self._newest_quote[symbol] = moment_ns, link
        return False

    def _expire(self, now_s: float) -> None:
        """Give up on copies that did not come in time, and count what only one link had."""
        while self._waiting and (now_s - self._waiting[0].arrived_s > MATCH_S or len(self._waiting) > MAX_WAITING):
            waiting = self._waiting.popleft()
            if not waiting.matched:
                self._remove(waiting)
                metrics.LINK_FRAMES.labels(self._exchange, str(waiting.link), "only").inc(waiting.counted)


def _keys(frame: ChannelFrame, raw: bytes) -> Sequence[Hashable]:
    """What identifies the parts of a frame on any connection."""
    if isinstance(frame, TickerFrame | TradeFrame):
        return frame.data
    if isinstance(frame, StatusFrame):
        return [(status.system, status.version) for status in frame.data]
    return [raw]
