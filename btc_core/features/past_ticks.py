"""The quotes and trades of one market in a block of the log, in arrays, for a warm-up that gives no rows.

What a warm-up folds is what `FeatureEngine.push` would fold, in the same order. What does not belong here: reading them from
lines (`exchanges.tick_lines`), or the fold.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

import numpy as np

from btc_core.features.state import EVENT
from btc_core.market.continuity import Numbering
from btc_core.market.events import TRADE, TradeEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from btc_core.exchanges.tick_lines import Ticks
    from btc_core.features.state import PackedEvent
    from btc_core.market.continuity import TradeIntake

PlainTrade = tuple[int, int, float, float, int]
"""The id, exchange time, price, quantity and receive time of a trade."""


class PastTicks:
    """The quotes and trades of a symbol, dtype `tick_lines.TICK`, of which the trades are taken one after the other."""

    def __init__(self, symbol: str, rows: np.ndarray) -> None:
        self.symbol = symbol
        self._rows = rows
        self._kept = np.ones(len(rows), np.bool_)
        self._places = np.flatnonzero(rows["kind"] == TRADE)
        trades = rows[self._places]
        self._lines: list[int] = trades["line"].tolist()
        names = ("trade_id", "ts_ns", "slot_0", "slot_1", "received_ns")
        self._trades: list[PlainTrade] = list(zip(*(trades[name].tolist() for name in names), strict=True))
        self._at = 0

    def take_until(self, line: int, intake: TradeIntake, is_folded: Callable[[TradeEvent, int], bool]) -> None:
        """Take the trades of the lines before `line`; `is_folded` decides about one that is not simply the next."""
        stop = bisect_left(self._lines, line, self._at)
        while self._at < stop:
            self._at = take_in_order(intake, self._trades, self._at, stop)
            if self._at < stop:
                trade_id, ts_ns, price, qty, received_ns = self._trades[self._at]
                place = int(self._places[self._at])
                side = "buy" if self._rows["slot_2"][place] > 0.0 else "sell"
                item = int(self._rows["item"][place])
                event = TradeEvent(self.symbol, ts_ns, item, trade_id, price, qty, side, "")
                self._kept[place] = is_folded(event, received_ns)
                self._at += 1

    def merged(self, others: list[PackedEvent], lines: list[int]) -> np.ndarray:
        """The quotes, the trades that are folded, and other events of these lines as `EVENT`, in the order of the log."""
        rows = self._rows[self._kept]
        mine = np.zeros(len(rows), EVENT)
        for name in ("ts_ns", "kind", "slot_0", "slot_1", "slot_2", "slot_3"):
            mine[name] = rows[name]
        if not others:
            return mine
        order = np.argsort(np.concatenate([rows["line"], np.array(lines, np.int64)]), kind="stable")
        merged: np.ndarray = np.concatenate([mine, np.array(others, EVENT)])[order]
        return merged


def past_ticks(ticks: Ticks, mask: np.ndarray) -> Iterator[PastTicks]:
    """The quotes and trades of the lines of a mask, market by market."""
    rows = ticks.rows[mask[ticks.rows["line"]]]
    for number, symbol in enumerate(ticks.symbols):
        own = rows[rows["symbol"] == number]
        if len(own):
            yield PastTicks(symbol, own)


def take_in_order(intake: TradeIntake, trades: Sequence[PlainTrade], first: int, stop: int) -> int:
    """Take trades from a place on as long as each is simply the next one; returns the place of the first that is not.

    It does what `TradeIntake.take` does with each of them, whose verdict is then `NEXT` without gaps, in a tenth of the time.
    """
    state, at = intake.state, first
    current = state.current
    if current is None or state.doubted is not None or state.previous is current:
        return first
    last_id, last_ns, last_received_ns = current.last_id, current.last_ns, current.recv_ns
    while at < stop:
        trade_id, ts_ns, price, qty, received_ns = trades[at]
        if trade_id != last_id + 1 or ts_ns < last_ns or trade_id in state.known:
            break
        intake.remember(trade_id, (ts_ns, price, qty), received_ns)
        last_id, last_ns, last_received_ns = trade_id, ts_ns, received_ns
        at += 1
    if at > first:
        state.current = Numbering(current.epoch, last_id, last_ns, last_received_ns)
    return at
