"""The trade ids of one symbol: which trades are new, which ids are missing, and how each gap ends.

What does not belong here: fetching missing trades (`repair`), or writing rows (`bronze`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import msgspec

from btc_core import metrics
from btc_core.market.continuity import TradeContinuity, Verdict
from btc_core.market.messages import GapNotice
from btc_core.tables.rows import GapMark

if TYPE_CHECKING:
    from btc_core.market.events import TradeEvent
    from btc_core.market.messages import AbsentTrades


class Gap:
    """A range of missing trade ids, and how many of them are still missing.

    `after_ns` and `before_ns` are the exchange times of the trades around it, `seen_ns` is when it was noticed.
    """

    def __init__(self, first_id: int, last_id: int, after_ns: int, before_ns: int, seen_ns: int) -> None:
        self.first_id = first_id
        self.last_id = last_id
        self.after_ns = after_ns
        self.before_ns = before_ns
        self.changed_ns = seen_ns
        self.missing = last_id - first_id + 1
        self.absent = 0

    @property
    def state(self) -> str:
        """`open`, `repaired` or `absent`."""
        if self.missing:
            return "open"
        return "absent" if self.absent else "repaired"

    def mark(self, symbol: str) -> GapMark:
        """The gap as a row of `gap_marks`."""
        return GapMark(
            symbol, self.before_ns, self.first_id, self.last_id, self.changed_ns, self.missing, self.absent, self.state
        )

    def notice(self, symbol: str) -> GapNotice:
        """The gap as a message of the topic `gaps`."""
        return GapNotice(
            symbol, self.first_id, self.last_id, self.state, self.after_ns, self.before_ns, self.changed_ns
        )


class SavedSequence(msgspec.Struct, frozen=True):
    """A `TradeSequence` in a checkpoint."""

    symbol: str
    last_id: int | None
    open_ids: list[tuple[int, int]]
    """Inclusive ranges of missing ids."""
    gaps: list[tuple[int, int, int, int, int, int, int]]
    """Open gaps: the five arguments of `Gap`, then `missing` and `absent`."""
    last_ns: int
    """Exchange time of the last trade in sequence."""


class TradeSequence:
    """The trades of one symbol in the order of the log."""

    def __init__(self, symbol: str) -> None:
        self._symbol = symbol
        self._continuity = TradeContinuity()
        self._open: list[Gap] = []
        self._last_ns = 0

    def observe(self, trade: TradeEvent, ts_recv_ns: int, origin: str) -> tuple[bool, Gap | None]:
        """Take the next trade of the log; returns whether it is new, and the gap that it opened or closed."""
        verdict = self._continuity.observe(trade.trade_id)
        if verdict is Verdict.DUPLICATE:
            return False, None
        if verdict is Verdict.FILLS_GAP:
            gap = next(gap for gap in self._open if gap.first_id <= trade.trade_id <= gap.last_id)
            metrics.SETTLED_TRADES.labels(self._symbol, "live" if origin == "ws" else "repaired").inc()
            return True, gap if self._settle_ids(gap, 1, ts_recv_ns) else None
        opened = None
        if verdict is Verdict.OPENS_GAP:
            first, last = self._continuity.open_gaps[-1]
            opened = Gap(first, last, self._last_ns, trade.ts_event_ns, ts_recv_ns)
            self._open.append(opened)
            self._set_gauges()
        self._last_ns = trade.ts_event_ns
        return True, opened

    def confirm_absent(self, absent: AbsentTrades, ts_recv_ns: int) -> list[Gap]:
        """Stop waiting for ids that the exchange does not have; returns the gaps that are closed by this."""
        closed = []
        for gap in list(self._open):
            first, last = max(gap.first_id, absent.first_id), min(gap.last_id, absent.last_id)
            count = self._continuity.mark_absent(first, last) if first <= last else 0
            if count:
                gap.absent += count
                metrics.SETTLED_TRADES.labels(self._symbol, "absent").inc(count)
                if self._settle_ids(gap, count, ts_recv_ns):
                    closed.append(gap)
        return closed

    def save(self) -> SavedSequence:
        """The sequence as `load` takes it."""
        gaps = [
            (gap.first_id, gap.last_id, gap.after_ns, gap.before_ns, gap.changed_ns, gap.missing, gap.absent)
            for gap in self._open
        ]
        return SavedSequence(self._symbol, self._continuity.last_id, self._continuity.open_gaps, gaps, self._last_ns)

    @classmethod
    def load(cls, saved: SavedSequence) -> Self:
        """A sequence that continues where the saved one was."""
        sequence = cls(saved.symbol)
        sequence._continuity = TradeContinuity(saved.last_id, saved.open_ids)
        sequence._last_ns = saved.last_ns
        for *place, missing, absent in saved.gaps:
            gap = Gap(*place)
            gap.missing, gap.absent = missing, absent
            sequence._open.append(gap)
        sequence._set_gauges()
        return sequence

    def _settle_ids(self, gap: Gap, count: int, ts_recv_ns: int) -> bool:
        """Take `count` ids off the gap's missing ones; True when none is left and the gap is closed."""
        gap.missing -= count
        gap.changed_ns = ts_recv_ns
        if gap.missing == 0:
            self._open.remove(gap)
        self._set_gauges()
        return gap.missing == 0

    def remove_gauges(self) -> None:
        """Stop exporting the gauges of this symbol, because another process may follow it now."""
        metrics.OPEN_GAPS.remove(self._symbol)
        metrics.MISSING_TRADES.remove(self._symbol)

    def _set_gauges(self) -> None:
        metrics.OPEN_GAPS.labels(self._symbol).set(len(self._open))
        metrics.MISSING_TRADES.labels(self._symbol).set(self._continuity.missing())
