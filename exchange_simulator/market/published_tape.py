"""The trades of one symbol as the exchange publishes them: without voided trades and with the exchange's own times.

The tape under it is never changed. Faults void trades and skew the exchange's clock; this layer keeps which trades and
which times, so that the stream, snapshots, REST and bars agree about every trade while this exchange runs. After a
restart the layer is empty. What does not belong here: the market itself (`generated`, `recordings`).
"""

from __future__ import annotations

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


class PublishedTape:
    """A tape over another tape. Worker threads read it, only the event loop changes it."""

    def __init__(self, tape: Tape, clock: MarketClock) -> None:
        self._tape = tape
        self._clock = clock
        self._voided_ids: set[int] = set()
        self._voided_minutes: set[int] = set()
        self._voids_left = 0
        self._void_after_ns = 0
        self._published_ns = 0
        self._closed_bars: dict[int, tuple[tuple[int, ...], float]] = {}

    @property
    def voids_pending(self) -> bool:
        """Whether trades that are still to come will be voided."""
        return self._voids_left > 0

    def void_next(self, count: int) -> None:
        """Void the next `count` trades after now: they are never published anywhere."""
        if not self.voids_pending:
            self._void_after_ns = self._clock.now_ns()
        self._voids_left += count

    def publish(self, trades: Sequence[Trade]) -> list[Trade]:
        """Decide about the trades of this moment; returns those that are published, with the exchange's times."""
        published = []
        for trade in trades:
            stamped = self._stamped(trade)
            # An earlier trade may have been read through REST already; it stays.
            if self._voids_left and trade.ts_ns > self._void_after_ns:
                self._voided_ids.add(trade.trade_id)
                self._voided_minutes.add(stamped.ts_ns // NS_PER_MIN)
                self._voids_left -= 1
            else:
                published.append(stamped)
            self._published_ns = trade.ts_ns
        return published

    def quote(self, quote: Quote) -> Quote:
        """The quote with the exchange's time."""
        skew_ns = self._clock.skew_ns(quote.ts_ns)
        return quote._replace(ts_ns=quote.ts_ns + skew_ns) if skew_ns else quote

    def _stamped(self, trade: Trade) -> Trade:
        """The trade with the exchange's time."""
        skew_ns = self._clock.skew_ns(trade.ts_ns)
        return trade._replace(ts_ns=trade.ts_ns + skew_ns) if skew_ns else trade

    def _decided_ns(self, until_ns: int) -> int:
        """The end of what may be read: while voids are pending, only trades that `publish` has decided about."""
        return min(until_ns, max(self._published_ns, self._void_after_ns)) if self.voids_pending else until_ns

    def _not_voided(self, trades: Iterable[Trade]) -> Iterator[Trade]:
        return (trade for trade in trades if trade.trade_id not in self._voided_ids)

    def _as_published(self, trades: Iterable[Trade], since_ns: int) -> list[Trade]:
        """Those of the tape's trades that are published with a time after `since_ns`, in the order of these times."""
        stamped = [self._stamped(trade) for trade in self._not_voided(trades)]
        return sorted((trade for trade in stamped if trade.ts_ns > since_ns), key=lambda trade: trade[:2])

    def trades_since(self, since_ns: int, count: int, until_ns: int) -> list[Trade]:
        """The first `count` trades with an exchange's time after `since_ns` that happened up to `until_ns`, inclusive."""
        until_ns = self._decided_ns(until_ns)
        reach_ns = MAX_SKEW_NS if self._clock.ever_skewed else 0
        voids = len(self._voided_ids)
        # Every one of these has a time after `since_ns`. So a trade that happened more than twice the reach after the
        # last of them cannot be among the first `count`.
        certain = self._tape.trades_since(since_ns + reach_ns, count + voids, until_ns)
        certain = list(self._not_voided(certain))[:count]
        if len(certain) == count:
            until_ns = min(until_ns, certain[-1].ts_ns + 2 * reach_ns)
        if reach_ns == 0:
            return certain
        candidates = self._tape.trades_since(since_ns - reach_ns, ALL_TRADES, until_ns)
        return self._as_published(candidates, since_ns)[:count]

    def last_trades(self, count: int, until_ns: int) -> list[Trade]:
        """The newest `count` trades that happened up to and including `until_ns`, oldest first."""
        newest = self._tape.last_trades(count + len(self._voided_ids), self._decided_ns(until_ns))
        return self._as_published(newest, -1)[-count:]

    def minute_bars(self, first_min: int, end_min: int) -> Bars:
        """Bars of the minutes [first_min, end_min), counted since 1970, computed from the published trades."""
        bars = self._tape.minute_bars(first_min, end_min)
        changed = self._voided_minutes | self._clock.skewed_minutes()
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
        if now_ns > end_ns + 2 * MAX_SKEW_NS and not self.voids_pending:
            self._closed_bars[at_min] = bar
        return bar
