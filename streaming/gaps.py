"""The trades of one symbol in the order of the log: their rows, which ids are missing, and how each gap ends.

What does not belong here: the decision about a trade (`market.continuity`), fetching missing trades (`repair`), or
writing rows (`bronze`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import msgspec

from btc_core import metrics
from btc_core.market.continuity import Verdict, count_ids
from btc_core.market.messages import GapNotice
from btc_core.tables.rows import GapMark
from btc_core.tables.trade_recorder import RecorderState, TradeRecorder

if TYPE_CHECKING:
    from btc_core.market.continuity import Gap
    from btc_core.market.events import TradeEvent
    from btc_core.market.messages import AbsentTrades
    from btc_core.tables.rows import Logged
    from btc_core.tables.trade_recorder import TradeRows


def mark_of(gap: Gap, symbol: str, changed_ns: int) -> GapMark:
    """The gap as a row of `gap_marks`; `changed_ns` is when it was seen, or when its state changed."""
    missing, absent = count_ids(gap.missing), count_ids(gap.absent)
    return GapMark(symbol, gap.before_ns, gap.first_id, gap.last_id, changed_ns, missing, absent, gap.state)


def notice_of(gap: Gap, symbol: str, changed_ns: int) -> GapNotice:
    """The gap as a message of the topic `gaps`."""
    return GapNotice(
        symbol, gap.first_id, gap.last_id, gap.state, gap.after_ns, gap.before_ns, changed_ns, gap.between_epochs
    )


class SavedSequence(msgspec.Struct, frozen=True):
    """A `TradeSequence` in a checkpoint."""

    symbol: str
    trades: RecorderState


class TradeSequence:
    """The trades of one symbol, with its metrics."""

    def __init__(self, symbol: str, state: RecorderState | None = None) -> None:
        self._symbol = symbol
        self._recorder = TradeRecorder(state)
        for kind in metrics.ODD_TRADE_KINDS:  # Prometheus sees no increase in a counter that begins at 1
            metrics.ODD_TRADES.labels(symbol, kind)
        self._set_gauges()

    def warm(self, logged: Logged[TradeEvent]) -> None:
        """Take a trade that was handled before."""
        self._recorder.take(logged)
        self._set_gauges()

    def take(self, logged: Logged[TradeEvent]) -> tuple[TradeRows, tuple[Gap, ...]]:
        """Take the next trade of the log; return its rows, and the gaps whose state it changed."""
        decision, rows = self._recorder.take(logged)
        metrics.TRADES.labels(self._symbol, decision.verdict.value).inc()
        if decision.settled:
            metrics.ODD_TRADES.labels(self._symbol, decision.settled).inc()
        if decision.verdict is Verdict.CORRECTS:
            metrics.ODD_TRADES.labels(self._symbol, "correction").inc()
        if decision.verdict is Verdict.FILLS_GAP:
            metrics.SETTLED_TRADES.labels(self._symbol, "live" if logged.origin == "ws" else "repaired").inc()
        if decision.verdict is not Verdict.NEXT:
            self._set_gauges()
        return rows, decision.gaps

    def mark_absent(self, absent: AbsentTrades) -> list[Gap]:
        """Stop waiting for ids that the exchange does not have; return the gaps that this closes."""
        changed = self._recorder.intake.mark_absent(absent.first_id, absent.last_id, absent.before_ns)
        for _, count in changed:
            metrics.SETTLED_TRADES.labels(self._symbol, "absent").inc(count)
        self._set_gauges()
        return [gap for gap, _ in changed if not gap.missing]

    def save(self) -> SavedSequence:
        """The sequence as `load` takes it; encode it before the next trade."""
        return SavedSequence(self._symbol, self._recorder.state)

    @classmethod
    def load(cls, saved: SavedSequence) -> Self:
        """A sequence that continues where the saved one was."""
        return cls(saved.symbol, saved.trades)

    def remove_gauges(self) -> None:
        """Stop exporting the gauges of this symbol, because another process may follow it now."""
        metrics.OPEN_GAPS.remove(self._symbol)
        metrics.MISSING_TRADES.remove(self._symbol)

    def _set_gauges(self) -> None:
        metrics.OPEN_GAPS.labels(self._symbol).set(len(self._recorder.intake.open_gaps()))
        metrics.MISSING_TRADES.labels(self._symbol).set(self._recorder.intake.missing())
