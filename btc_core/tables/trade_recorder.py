"""Which rows a trade gives: none, a row of `bronze_trades` with its mark, or a row of `bronze_trade_corrections`.

The bronze worker and the proof of a day both use it, so a proof expects the rows that the worker writes.
What does not belong here: the decision about a trade (`market.continuity`), or the columns of a row (`rows`).
"""

from __future__ import annotations

import msgspec

from btc_core.market.continuity import REMEMBERED_TRADES, Decision, IntakeState, TradeIntake, Verdict
from btc_core.market.events import TradeEvent
from btc_core.tables.rows import Logged

LATE, EPOCH, OUTLIER = "late", "epoch", "outlier"
"""The marks of `bronze_trades`."""
_MARKS = {Verdict.FILLS_GAP: LATE, Verdict.STARTS_EPOCH: EPOCH}


class TradeRows(msgspec.Struct, frozen=True):
    """The rows of one trade. A trade that shows that the one before it was an outlier gives that row again, with its mark."""

    trades: tuple[Logged[TradeEvent], ...] = ()
    corrections: tuple[Logged[TradeEvent], ...] = ()


class RecorderState(msgspec.Struct):
    """The state of a `TradeRecorder`, as checkpoints hold it."""

    intake: IntakeState
    in_doubt: Logged[TradeEvent] | None = None
    """The last trade in order, if the next one will show whether its id was right."""


class TradeRecorder:
    """Makes the rows of the trades of one symbol, in the order of the log."""

    def __init__(self, state: RecorderState | None = None, remembered: int = REMEMBERED_TRADES) -> None:
        self._in_doubt = state.in_doubt if state else None
        self.intake = TradeIntake(state.intake if state else None, remembered)

    @property
    def state(self) -> RecorderState:
        """The present state; encode it before the next trade."""
        return RecorderState(self.intake.state, self._in_doubt)

    def take(self, logged: Logged[TradeEvent]) -> tuple[Decision, TradeRows]:
        """Add the next trade of the log; return the decision about it and its rows."""
        decision = self.intake.take(logged.entry, logged.ts_recv_ns)
        rows: tuple[Logged[TradeEvent], ...] = ()
        if decision.settled == "outlier" and self._in_doubt is not None:
            rows = (msgspec.structs.replace(self._in_doubt, mark=OUTLIER),)
        is_correction = decision.verdict is Verdict.CORRECTS
        if decision.folded or decision.in_doubt:
            self._in_doubt = logged if decision.in_doubt and not is_correction else None
        if decision.verdict is Verdict.DUPLICATE:
            return decision, TradeRows(rows)
        if is_correction:
            return decision, TradeRows(rows, (logged,))
        mark = _MARKS.get(decision.verdict, "")
        return decision, TradeRows((*rows, msgspec.structs.replace(logged, mark=mark) if mark else logged))
