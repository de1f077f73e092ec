"""The past of one symbol as the exchange tells it: without void trades, and with the stamps its clock gave.

The market under it stays a pure function; what faults did to ids and times is kept here, so that the stream, snapshots,
REST and bars agree about every trade as long as this exchange runs; a restarted one has forgotten it.
What does not belong here: the market itself (`market`, `replay`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from btc_core.clock import NS_PER_MIN, NS_PER_S
from exchange_simulator.market import kernels

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from exchange_simulator.market.clock import MarketClock
    from exchange_simulator.market.generated import Bars, Quote, Tape, Trade

REACH_NS = 2 * NS_PER_S
"""No stamp is further than this from the moment it stands for: the largest clock skew."""
EVERYTHING = 10**9


class ToldTape:
    """A tape over another one; read from worker threads, changed by the event loop."""

    def __init__(self, tape: Tape, clock: MarketClock) -> None:
        self._tape = tape
        self._clock = clock
        self._void_ids: set[int] = set()
        self._void_minutes: set[int] = set()
        self._void_left = 0
        self._void_after_ns = 0
        self._published_ns = 0
        self._closed_bars: dict[int, tuple[tuple[int, ...], float]] = {}

    @property
    def voiding(self) -> bool:
        """Whether trades to come are to be void."""
        return self._void_left > 0

    def void_next(self, count: int) -> None:
        """The next `count` trades from now on never exist."""
        if not self.voiding:
            self._void_after_ns = self._clock.now_ns()
        self._void_left += count

    def publish(self, trades: Sequence[Trade]) -> list[Trade]:
        """The trades of this moment as they are told from now on."""
        told = []
        for trade in trades:
            stamped = self._stamped(trade)
            if self._void_left and trade.ts_ns > self._void_after_ns:
                self._void_ids.add(trade.trade_id)
                self._void_minutes.add(stamped.ts_ns // NS_PER_MIN)
                self._void_left -= 1
            else:
                told.append(stamped)
            self._published_ns = trade.ts_ns
        return told

    def quote(self, quote: Quote) -> Quote:
        """The quote with the stamp that the exchange's clock gives it."""
        skew_ns = self._clock.skew_ns(quote.ts_ns)
        return quote._replace(ts_ns=quote.ts_ns + skew_ns) if skew_ns else quote

    def _stamped(self, trade: Trade) -> Trade:
        skew_ns = self._clock.skew_ns(trade.ts_ns)
        return trade._replace(ts_ns=trade.ts_ns + skew_ns) if skew_ns else trade

    def _known_ns(self, until_ns: int) -> int:
        """While the next trades are to be void, nothing is told before it is decided."""
        return min(until_ns, max(self._published_ns, self._void_after_ns)) if self.voiding else until_ns

    def _existing(self, trades: Iterable[Trade]) -> Iterator[Trade]:
        return (trade for trade in trades if trade.trade_id not in self._void_ids)

    def _told(self, trades: Iterable[Trade], since_ns: int) -> list[Trade]:
        stamped = [self._stamped(trade) for trade in self._existing(trades)]
        return sorted((trade for trade in stamped if trade.ts_ns > since_ns), key=lambda each: each[:2])

    def trades_since(self, since_ns: int, count: int, until_ns: int) -> list[Trade]:
        """The first `count` trades stamped later than `since_ns`, of those up to and with the moment `until_ns`."""
        until_ns = self._known_ns(until_ns)
        reach_ns = REACH_NS if self._clock.ever_skewed else 0
        voids = len(self._void_ids)
        # All of these count, so what comes twice the reach after the last of them cannot come before it.
        sure = list(self._existing(self._tape.trades_since(since_ns + reach_ns, count + voids, until_ns)))[:count]
        if len(sure) == count:
            until_ns = min(until_ns, sure[-1].ts_ns + 2 * reach_ns)
        if reach_ns == 0:
            return sure
        return self._told(self._tape.trades_since(since_ns - reach_ns, EVERYTHING, until_ns), since_ns)[:count]

    def last_trades(self, count: int, until_ns: int) -> list[Trade]:
        """The newest `count` trades up to and with the moment `until_ns`, oldest first."""
        newest = self._tape.last_trades(count + len(self._void_ids), self._known_ns(until_ns))
        return self._told(newest, -1)[-count:]

    def minute_bars(self, first_min: int, end_min: int) -> Bars:
        """Bars of the minutes [first_min, end_min), counted since 1970, made anew where a fault changed them."""
        bars = self._tape.minute_bars(first_min, end_min)
        changed = self._void_minutes | self._clock.skewed_minutes(REACH_NS)
        if not changed or not len(bars.start_min):
            return bars
        for row in np.flatnonzero(np.isin(bars.start_min, sorted(changed))).tolist():
            bars.columns[row], bars.value[row] = self._bar(int(bars.start_min[row]))
        return bars

    def _bar(self, at_min: int) -> tuple[tuple[int, ...], float]:
        """The bar of the trades that are stamped in this minute."""
        if at_min in self._closed_bars:
            return self._closed_bars[at_min]
        start_ns, end_ns, now_ns = at_min * NS_PER_MIN, (at_min + 1) * NS_PER_MIN, self._clock.now_ns()
        trades = self._told(
            self._tape.trades_since(start_ns - REACH_NS - 1, EVERYTHING, min(now_ns, end_ns + REACH_NS)), start_ns - 1
        )
        trades = [trade for trade in trades if trade.ts_ns < end_ns]
        rows = np.array([(0, trade.price, trade.qty, 0, 0) for trade in trades], np.int64).reshape(-1, 5)
        columns = np.zeros(6, np.int64)
        kernels.aggregate(rows, columns)
        bar = tuple(columns.tolist()), float(sum(float(trade.price) * trade.qty for trade in trades))
        if now_ns > end_ns + 2 * REACH_NS and not self.voiding:
            self._closed_bars[at_min] = bar
        return bar
