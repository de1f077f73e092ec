"""The market of a perpetual: the generated market of the pair in US dollars, a moment earlier.

What happens on the pair at a time happens on its perpetual `lead_ns` before, with the same prices, quantities and ids. So a
client that follows both sees the perpetual lead. Minute bars are those of the pair, without the lead.
What does not belong here: messages (`messages`), or who gets them (`streams`).
"""

from __future__ import annotations

import heapq
import itertools
import sys
from bisect import bisect_right
from typing import TYPE_CHECKING

from btc_core.clock import NS_PER_MIN, NS_PER_MS
from btc_core.errors import ConfigError
from exchange_simulator import pairs
from exchange_simulator.market.generated import EPOCH_MIN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exchange_simulator.market.events import Bars, Quote, Trade
    from exchange_simulator.market.generated import GeneratedMarket
    from exchange_simulator.pairs import Pair

QUOTE_ASSET = "USDT"
EXCHANGE = "binance-perp"
"""The exchange whose protocol the perpetuals use, as a symbol names it."""


def pair_of(symbol: str) -> Pair:
    """The pair in US dollars of a perpetual; raises `ConfigError` if there is none."""
    base, _, quote = symbol.partition("/")
    if quote != QUOTE_ASSET:
        msg = f"the simulator's perpetuals are quoted in {QUOTE_ASSET}, and {symbol!r} is not"
        raise ConfigError(msg)
    return pairs.choose((f"{base}/USD",))[0]


class PerpetualTape:
    """One perpetual: its events, and its past by trade id. Several threads may use it at once."""

    def __init__(self, market: GeneratedMarket, lead_ns: int) -> None:
        self.pair = market.pair
        self.base = self.pair.symbol.partition("/")[0]
        self.name = self.base + QUOTE_ASSET
        """The name in requests and messages."""
        self.symbol = f"{self.base}/{QUOTE_ASSET}@{EXCHANGE}"
        """The symbol that the ledger of the exchange and its faults use."""
        self._market = market
        self._lead_ns = lead_ns

    def events(self, after_ns: int) -> Iterator[Quote | Trade]:
        """What happens after a time, in order and without end; a quote comes before the trades of its time."""
        for minute in itertools.count((after_ns + self._lead_ns) // NS_PER_MIN):
            quotes: list[Quote | Trade] = [*self._market.quotes(minute)]
            trades: list[Quote | Trade] = [*self._market.trades(minute)]
            for event in heapq.merge(quotes, trades, key=lambda each: each.ts_ns):
                earlier = event._replace(ts_ns=event.ts_ns - self._lead_ns)
                if earlier.ts_ns > after_ns:
                    yield earlier

    def mid_ticks(self, now_ns: int) -> float:
        """The middle of the best bid and ask."""
        quote = self._market.quote_at(now_ns + self._lead_ns)
        return (quote.bid + quote.ask) / 2

    def index_ticks(self, now_ns: int) -> float:
        """The middle of the best bid and ask of the pair in US dollars, which is behind the perpetual."""
        quote = self._market.quote_at(now_ns)
        return (quote.bid + quote.ask) / 2

    def trades_from(self, first_id: int, count: int, until_ns: int) -> list[Trade]:
        """The first `count` trades with this id or a higher one, up to and including `until_ns`."""
        end_ns = until_ns + self._lead_ns
        found: list[Trade] = []
        for minute in range(self._minute_of(first_id, end_ns // NS_PER_MIN), end_ns // NS_PER_MIN + 1):
            found += [
                trade._replace(ts_ns=trade.ts_ns - self._lead_ns)
                for trade in self._market.trades(minute)
                if trade.trade_id >= first_id and trade.ts_ns <= end_ns
            ]
            if len(found) >= count:
                break
        return found[:count]

    def trades_since(self, since_ns: int, until_ns: int) -> list[Trade]:
        """The trades from `since_ns` up to and including `until_ns`, with times in whole milliseconds, as messages have them."""
        first_min, last_min = ((ns + self._lead_ns) // NS_PER_MIN for ns in (since_ns, until_ns))
        trades = [
            trade._replace(ts_ns=(trade.ts_ns - self._lead_ns) // NS_PER_MS * NS_PER_MS)
            for minute in range(first_min, last_min + 1)
            for trade in self._market.trades(minute)
            if trade.ts_ns - self._lead_ns <= until_ns
        ]
        return [trade for trade in trades if trade.ts_ns >= since_ns]

    def minute_bars(self, first_min: int, end_min: int) -> Bars:
        """Bars of the minutes [first_min, end_min), counted since 1970, without minutes before the market begins."""
        return self._market.minute_bars(first_min, end_min)

    def _minute_of(self, trade_id: int, last_min: int) -> int:
        """The minute in which a trade happened on the pair, or the last minute before it with an earlier trade."""

        def first_id(minute: int) -> int:
            trades = (self._market.trades(each) for each in range(minute, last_min + 1))
            return next((found[0].trade_id for found in trades if found), sys.maxsize)

        minutes = range(EPOCH_MIN, last_min + 1)
        return minutes[max(0, bisect_right(minutes, trade_id, key=first_id) - 1)]
