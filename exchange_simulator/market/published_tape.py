"""The trades of one symbol as the exchange publishes them: without voided trades, and with its own times and ids.

The tape under it is never changed. Faults void, withhold and renumber trades and skew the exchange's clock; this layer
keeps which trades, times and ids, so that the stream, snapshots, REST and bars agree about every trade while this
exchange runs. After a restart the layer is empty. What does not belong here: the market itself (`generated`, `recordings`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict, deque
from typing import TYPE_CHECKING

import numpy as np

from btc_core.clock import NS_PER_MIN
from exchange_simulator.market import kernels
from exchange_simulator.market.clock import MAX_SKEW_NS
from exchange_simulator.market.events import ALL_TRADES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from exchange_simulator.market.clock import MarketClock
    from exchange_simulator.market.events import Bars, Quote, Tape, Trade

MAX_CHANGED_IDS = 10_000


class PublishedTape:
    """A tape over another tape. Worker threads read it, only the event loop changes it."""

    def __init__(self, tape: Tape, clock: MarketClock) -> None:
        self._tape = tape
        self._clock = clock
        # All ids and minutes below are those of the tape.
        self._hidden_ids: set[int] = set()
        """Trades that are voided or still withheld."""
        self._changed_minutes: set[int] = set()
        """Minutes in which trades are or were hidden."""
        self._jumped_ids: dict[int, int] = {}
        """The published id of each trade with an id of its own."""
        self._renumbered_from: list[int] = []
        """The first trade of each renumbering, oldest first."""
        self._shifts: list[int] = []
        """By how much each renumbering lowers the ids."""
        self._lowest_start = 0
        """The lowest published id at which a numbering began; 0 before the first renumbering."""
        self.changed_ids: dict[str, deque[int]] = defaultdict(lambda: deque(maxlen=MAX_CHANGED_IDS))
        """By kind of fault the published ids of the trades that it changed; a voided trade's is the one it would have had."""
        self._voids_left = 0
        self._jump_ahead = 0
        self._restart_below = 0
        self._withholds_next = False
        self._withheld: list[Trade] = []
        self._changes_after_ns = 0
        self._published_ns = 0
        self._closed_bars: dict[int, tuple[tuple[int, ...], float]] = {}

    @property
    def changes_pending(self) -> bool:
        """Whether a trade that is still to come will be voided, withheld or renumbered."""
        return bool(self._voids_left or self._jump_ahead or self._restart_below or self._withholds_next)

    def _start_change(self) -> None:
        if not self.changes_pending:
            self._changes_after_ns = self._clock.now_ns()

    def void_next(self, count: int) -> None:
        """Void the next `count` trades after now: they are never published anywhere."""
        self._start_change()
        self._voids_left += count

    def jump_next(self, ahead: int) -> None:
        """Publish the next trade after now with an id that is this far ahead; its own id is never published."""
        self._start_change()
        self._jump_ahead = ahead

    def restart_next(self, below: int) -> None:
        """Number the trades after now from an id that is this far below every earlier numbering, or from 1."""
        self._start_change()
        self._restart_below = below

    def withhold_next(self) -> None:
        """Publish the next trade after now nowhere until `release`."""
        self._start_change()
        self._withholds_next = True

    def release(self) -> list[Trade]:
        """Publish the withheld trades; returns them with the exchange's times and ids."""
        released, self._withheld = self._withheld, []
        for trade in released:
            self._hidden_ids.discard(trade.trade_id)
            self._closed_bars.pop(self._as_sent(trade).ts_ns // NS_PER_MIN, None)
        return [self._as_sent(trade) for trade in released]

    def publish(self, trades: Sequence[Trade]) -> list[Trade]:
        """Decide about the trades of this moment; returns those that are published, with the exchange's times and ids."""
        published = []
        for trade in trades:
            # An earlier trade may have been read through REST already; it stays as it is.
            if self.changes_pending and trade.ts_ns > self._changes_after_ns:
                self._change(trade)
            if trade.trade_id not in self._hidden_ids:
                published.append(self._as_sent(trade))
            self._published_ns = trade.ts_ns
        return published

    def _change(self, trade: Trade) -> None:
        """Do to this trade what is pending first."""
        if self._voids_left or self._withholds_next:
            self._hidden_ids.add(trade.trade_id)
            self._changed_minutes.add(self._as_sent(trade).ts_ns // NS_PER_MIN)
            if self._voids_left:
                self._voids_left -= 1
                self.changed_ids["void_trades"].append(self._published_id(trade.trade_id))
            else:
                self.changed_ids["late_trade"].append(self._published_id(trade.trade_id))
                self._withheld.append(trade)
                self._withholds_next = False
        elif self._restart_below:
            published_id = self._published_id(trade.trade_id)
            self._lowest_start = max(1, min(published_id, self._lowest_start or published_id) - self._restart_below)
            self._renumbered_from.append(trade.trade_id)
            self._shifts.append(trade.trade_id - self._lowest_start)
            self._restart_below = 0
            self.changed_ids["restart_ids"].append(self._lowest_start)
        else:
            self._jumped_ids[trade.trade_id] = self._published_id(trade.trade_id) + self._jump_ahead
            self._jump_ahead = 0
            self.changed_ids["jump_id"].append(self._published_id(trade.trade_id))

    def _published_id(self, trade_id: int) -> int:
        """The id under which a trade of the tape is published."""
        at = bisect_right(self._renumbered_from, trade_id) - 1
        return self._jumped_ids.get(trade_id, trade_id - (self._shifts[at] if at >= 0 else 0))

    def quote(self, quote: Quote) -> Quote:
        """The quote with the exchange's time."""
        skew_ns = self._clock.skew_ns(quote.ts_ns)
        return quote._replace(ts_ns=quote.ts_ns + skew_ns) if skew_ns else quote

    def _as_sent(self, trade: Trade) -> Trade:
        """The trade with the exchange's time and id."""
        skew_ns = self._clock.skew_ns(trade.ts_ns)
        trade_id = self._published_id(trade.trade_id)
        return trade._replace(ts_ns=trade.ts_ns + skew_ns, trade_id=trade_id)

    def _decided_ns(self, until_ns: int) -> int:
        """The end of what may be read: while changes are pending, only trades that `publish` has decided about."""
        return min(until_ns, max(self._published_ns, self._changes_after_ns)) if self.changes_pending else until_ns

    def _not_hidden(self, trades: Iterable[Trade]) -> Iterator[Trade]:
        return (trade for trade in trades if trade.trade_id not in self._hidden_ids)

    def _as_published(self, trades: Iterable[Trade], since_ns: int) -> list[Trade]:
        """Those of the tape's trades that are published with a time after `since_ns`, in the order of these times."""
        stamped = [self._as_sent(trade) for trade in self._not_hidden(trades)]
        return sorted((trade for trade in stamped if trade.ts_ns > since_ns), key=lambda trade: trade.ts_ns)

    def trades_since(self, since_ns: int, count: int, until_ns: int) -> list[Trade]:
        """The first `count` trades with an exchange's time after `since_ns` that happened up to `until_ns`, inclusive."""
        until_ns = self._decided_ns(until_ns)
        reach_ns = MAX_SKEW_NS if self._clock.ever_skewed else 0
        hidden = len(self._hidden_ids)
        # Every one of these has a time after `since_ns`. So a trade that happened more than twice the reach after the
        # last of them cannot be among the first `count`.
        certain = self._tape.trades_since(since_ns + reach_ns, count + hidden, until_ns)
        certain = list(self._not_hidden(certain))[:count]
        if len(certain) == count:
            until_ns = min(until_ns, certain[-1].ts_ns + 2 * reach_ns)
        if reach_ns == 0:
            return [self._as_sent(trade) for trade in certain]
        candidates = self._tape.trades_since(since_ns - reach_ns, ALL_TRADES, until_ns)
        return self._as_published(candidates, since_ns)[:count]

    def last_trades(self, count: int, until_ns: int) -> list[Trade]:
        """The newest `count` trades that happened up to and including `until_ns`, oldest first."""
        newest = self._tape.last_trades(count + len(self._hidden_ids), self._decided_ns(until_ns))
        return self._as_published(newest, -1)[-count:]

    def minute_bars(self, first_min: int, end_min: int) -> Bars:
        """Bars of the minutes [first_min, end_min), counted since 1970, computed from the published trades."""
        bars = self._tape.minute_bars(first_min, end_min)
        changed = self._changed_minutes | self._clock.skewed_minutes()
        if not changed or not len(bars.start_min):
            return bars
        for row in np.flatnonzero(np.isin(bars.start_min, sorted(changed))).tolist():
            bars.columns[row], bars.value[row] = self._bar(int(bars.start_min[row]))
        return bars

    def _bar(self, at_min: int) -> tuple[tuple[int, ...], float]:
        """The columns and the value of the bar of one minute that a fault changed."""
        if at_min in self._closed_bars:
            return self._closed_bars[at_min]
        start_ns, end_ns, now_ns = at_min * NS_PER_MIN, (at_min + 1) * NS_PER_MIN, self._clock.now_ns()
        candidates = self._tape.trades_since(start_ns - MAX_SKEW_NS - 1, ALL_TRADES, min(now_ns, end_ns + MAX_SKEW_NS))
        trades = [trade for trade in self._as_published(candidates, start_ns - 1) if trade.ts_ns < end_ns]
        rows = np.array([(0, trade.price, trade.qty, 0, 0) for trade in trades], np.int64).reshape(-1, 5)
        columns = np.zeros(6, np.int64)
        kernels.fill_bar(rows, columns)
        bar = tuple(columns.tolist()), float(sum(float(trade.price) * trade.qty for trade in trades))
        if now_ns > end_ns + 2 * MAX_SKEW_NS and not self.changes_pending:
            self._closed_bars[at_min] = bar
        return bar
