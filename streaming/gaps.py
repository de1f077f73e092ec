"""The trade sequence of one symbol: which trades are new, which ids are missing, and what becomes of the gaps.

What does not belong here: fetching what is missing (`repair`), or writing rows (`bronze`).
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
    from btc_core.market.messages import Absent


class Gap:
    """One run of missing ids as it was first seen."""

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
        """The row of `gap_marks`."""
        return GapMark(
            symbol, self.before_ns, self.first_id, self.last_id, self.changed_ns, self.missing, self.absent, self.state
        )

    def notice(self, symbol: str) -> GapNotice:
        """What the topic `gaps` is told."""
        return GapNotice(
            symbol, self.first_id, self.last_id, self.state, self.after_ns, self.before_ns, self.changed_ns
        )


class SavedSequence(msgspec.Struct, frozen=True):
    """One symbol of a checkpoint."""

    symbol: str
    last_id: int | None
    open_ids: list[tuple[int, int]]
    gaps: list[tuple[int, int, int, int, int, int, int]]
    last_ns: int


class TradeSequence:
    """The trades of one symbol in the order of the log."""

    def __init__(self, symbol: str) -> None:
        self._symbol = symbol
        self._seen = TradeContinuity()
        self._open: list[Gap] = []
        self._last_ns = 0

    def take(self, trade: TradeEvent, ts_recv_ns: int, origin: str) -> tuple[bool, Gap | None]:
        """Whether the trade is new, and the gap that it opened or closed."""
        verdict = self._seen.observe(trade.trade_id)
        if verdict is Verdict.DUPLICATE:
            return False, None
        if verdict is Verdict.FILLS_GAP:
            gap = next(gap for gap in self._open if gap.first_id <= trade.trade_id <= gap.last_id)
            metrics.SETTLED_TRADES.labels(self._symbol, "live" if origin == "ws" else "repaired").inc()
            return True, gap if self._fewer(gap, 1, ts_recv_ns) else None
        opened = None
        if verdict is Verdict.OPENS_GAP:
            first, last = self._seen.open_gaps[-1]
            opened = Gap(first, last, self._last_ns, trade.ts_event_ns, ts_recv_ns)
            self._open.append(opened)
            self._set_gauges()
        self._last_ns = trade.ts_event_ns
        return True, opened

    def give_up(self, absent: Absent, ts_recv_ns: int) -> list[Gap]:
        """Ids that will never come; the gaps that this settles."""
        settled = []
        for gap in list(self._open):
            first, last = max(gap.first_id, absent.first_id), min(gap.last_id, absent.last_id)
            count = self._seen.give_up(first, last) if first <= last else 0
            if count:
                gap.absent += count
                metrics.SETTLED_TRADES.labels(self._symbol, "absent").inc(count)
                if self._fewer(gap, count, ts_recv_ns):
                    settled.append(gap)
        return settled

    def save(self) -> SavedSequence:
        """All of it, for `load`."""
        gaps = [
            (gap.first_id, gap.last_id, gap.after_ns, gap.before_ns, gap.changed_ns, gap.missing, gap.absent)
            for gap in self._open
        ]
        return SavedSequence(self._symbol, self._seen.last_id, self._seen.open_gaps, gaps, self._last_ns)

    @classmethod
    def load(cls, saved: SavedSequence) -> Self:
        """Go on as the one that was saved."""
        sequence = cls(saved.symbol)
        sequence._seen = TradeContinuity(saved.last_id, saved.open_ids)
        sequence._last_ns = saved.last_ns
        for *place, missing, absent in saved.gaps:
            gap = Gap(*place)
            gap.missing, gap.absent = missing, absent
            sequence._open.append(gap)
        sequence._set_gauges()
        return sequence

    def _fewer(self, gap: Gap, count: int, ts_recv_ns: int) -> bool:
        """So many ids of the gap are settled; True when that was the last."""
        gap.missing -= count
        gap.changed_ns = ts_recv_ns
        if gap.missing == 0:
            self._open.remove(gap)
        self._set_gauges()
        return gap.missing == 0

    def remove_gauges(self) -> None:
        """Another process may have this market now: its gauges are not ours any more."""
        metrics.OPEN_GAPS.remove(self._symbol)
        metrics.MISSING_TRADES.remove(self._symbol)

    def _set_gauges(self) -> None:
        metrics.OPEN_GAPS.labels(self._symbol).set(len(self._open))
        metrics.MISSING_TRADES.labels(self._symbol).set(self._seen.missing())
