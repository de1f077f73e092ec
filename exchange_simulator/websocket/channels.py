"""The channels of one symbol: the state behind their snapshots, and the frames that each market event causes.

A frame is built only when a client is subscribed to its stream.
What does not belong here: connections and queues (`hub`), or the text of a frame (`wire`).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from btc_core.clock import NS_PER_MIN
from exchange_simulator.market.events import Bar
from exchange_simulator.units import MIN_PER_DAY
from exchange_simulator.websocket import wire
from exchange_simulator.websocket.id_ranges import IdRanges
from exchange_simulator.websocket.subscriptions import Stream

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from exchange_simulator.market.events import Quote, Trade
    from exchange_simulator.market.order_book import BookGenerator, BookSides
    from exchange_simulator.market.published_tape import PublishedTape
    from exchange_simulator.pairs import Pair

TRADE_SNAPSHOT = 50
"""Trades in the snapshot of `trade`."""
NO_TRADES = wire.DayStatistics(0, 0, 0, 0, 0.0)


def book_changes(old: Mapping[int, int], new: Mapping[int, int], *, outward: int) -> dict[int, int]:
    """The levels to send so that a client's side changes from `old` to `new`; quantity 0 deletes a level.

    A level that only fell out of the depth is not sent: clients truncate their book themselves. `outward` is 1 for asks
    and -1 for bids, the direction in which prices get worse.
    """
    worst = max((outward * price for price in new), default=0)
    changes = {price: 0 for price in old if price not in new and outward * price <= worst}
    changes.update((price, qty) for price, qty in new.items() if old.get(price) != qty)
    return changes


class SymbolChannels:
    """The channels of one symbol. `on_quote` and `on_trades` bring them up to date."""

    def __init__(self, pair: Pair, tape: PublishedTape, books: BookGenerator) -> None:
        self.pair = pair
        self.tape = tape
        self.quote: Quote | None = None
        self.published = IdRanges()
        """The ids of all trades published since the start, whether a client got them or not."""
        self._book_generator = books
        self._books: dict[int, BookSides] = {}
        """The book as clients have it, by subscribed depth."""
        self._depths_without_quote: set[int] = set()
        """Depths whose subscribers wait for a snapshot because there is no quote yet."""
        self._recent: deque[Trade] = deque(maxlen=TRADE_SNAPSHOT)
        self._candle: Bar | None = None
        self._statistics_min = -1
        self._closed_day = NO_TRADES
        """Statistics of the 1,440 minutes before the minute `_statistics_min`."""

    def start(self, quote: Quote | None, recent: Sequence[Trade]) -> None:
        """Begin with the present of the market: its quote, and its latest trades, oldest first."""
        self.quote = quote
        self._recent.extend(recent)
        for trade in recent:
            self._add_to_candle(trade)

    def _add_to_candle(self, trade: Trade) -> None:
        minute = trade.ts_ns // NS_PER_MIN
        bar = self._candle
        if bar is None or bar.start_min != minute:
            price, value = trade.price, float(trade.price) * trade.qty
            self._candle = Bar(minute, price, price, price, price, trade.qty, 1, value)
            return
        self._candle = Bar(
            minute,
            bar.open,
            max(bar.high, trade.price),
            min(bar.low, trade.price),
            trade.price,
            bar.volume + trade.qty,
            bar.trades + 1,
            bar.value + float(trade.price) * trade.qty,
        )

    def _day_statistics(self, ts_ns: int) -> wire.DayStatistics:
        """The statistics of the 1,440 closed minutes before `ts_ns` and of the open minute."""
        minute = ts_ns // NS_PER_MIN
        if minute != self._statistics_min:
            self._statistics_min, self._closed_day = minute, self._closed_day_before(minute)
        day, bar = self._closed_day, self._candle
        if bar is None or bar.start_min != minute:
            return day
        if day.open == 0:
            return wire.DayStatistics(bar.open, bar.high, bar.low, bar.volume, bar.value)
        return wire.DayStatistics(
            day.open,
            max(day.high, bar.high),
            min(day.low, bar.low),
            day.volume + bar.volume,
            day.value + bar.value,
        )

    def _closed_day_before(self, minute: int) -> wire.DayStatistics:
        bars = self.tape.minute_bars(minute - MIN_PER_DAY, minute)
        rows = bars.columns[bars.columns[:, 5] > 0]
        if not len(rows):
            return NO_TRADES
        return wire.DayStatistics(
            int(rows[0, 0]),
            int(rows[:, 1].max()),
            int(rows[:, 2].min()),
            sum(rows[:, 4].tolist()),  # In Python: a day's lots of a cheap asset at a high rate exceed 64 bits.
            float(bars.value.sum()),
        )

    def _ticker(self, kind: str, quote: Quote) -> wire.Frame:
        last = self._recent[-1].price if self._recent else quote.bid
        day = self._day_statistics(quote.ts_ns)
        if day.open == 0:
            day = wire.DayStatistics(last, last, last, 0, 0.0)
        return wire.ticker(self.pair, kind, quote, last, day)

    def ticker_snapshot(self) -> wire.Frame | None:
        """The present ticker; None while there is no quote."""
        return None if self.quote is None else self._ticker("snapshot", self.quote)

    def on_quote(self, quote: Quote, wanted: Mapping[Stream, object]) -> list[tuple[Stream, wire.Frame]]:
        """The frames that a new best bid or ask causes on the wanted streams."""
        self.quote = quote
        frames = []
        stream = Stream("ticker", self.pair.symbol, "bbo")
        if stream in wanted:
            frames.append((stream, self._ticker("update", quote)))
        for depth, (old_bids, old_asks) in self._books.items():
            bids, asks = self._book_generator.sides(quote, depth)
            changes = book_changes(old_bids, bids, outward=-1), book_changes(old_asks, asks, outward=1)
            self._books[depth] = bids, asks
            if changes[0] or changes[1]:
                frame = wire.book(self.pair, "update", changes, wire.checksum(bids, asks), quote.ts_ns)
                frames.append((Stream("book", self.pair.symbol, depth), frame))
        frames += [
            (Stream("book", self.pair.symbol, depth), self._book_snapshot(depth, quote))
            for depth in self._depths_without_quote
        ]
        self._depths_without_quote.clear()
        return frames

    def on_trades(self, trades: Sequence[Trade], wanted: Mapping[Stream, object]) -> list[tuple[Stream, wire.Frame]]:
        """The frames that the trades of one time cause on the wanted streams."""
        symbol = self.pair.symbol
        for trade in trades:
            self._add_to_candle(trade)
        self._recent.extend(trades)
        self.count_published([trade.trade_id for trade in trades])
        frames = []
        if (stream := Stream("trade", symbol)) in wanted:
            frames.append((stream, wire.trade(self.pair, "update", trades)))
        if (stream := Stream("ticker", symbol, "trades")) in wanted and self.quote is not None:
            quote = self.quote._replace(ts_ns=trades[-1].ts_ns)
            frames.append((stream, self._ticker("update", quote)))
        if (stream := Stream("ohlc", symbol, 1)) in wanted and self._candle is not None:
            frames.append((stream, wire.candle(self.pair, "update", self._candle, trades[-1].ts_ns)))
        return frames

    def count_published(self, trade_ids: Sequence[int]) -> None:
        """Record that the market published these trades."""
        for trade_id in trade_ids:
            self.published.add(trade_id)

    def snapshot(self, stream: Stream) -> wire.Frame | None:
        """The snapshot that begins a subscription; None while there is nothing to show."""
        if stream.channel == "trade":
            return wire.trade(self.pair, "snapshot", self._recent) if self._recent else None
        if stream.channel == "ohlc":
            bar = self._candle
            return None if bar is None else wire.candle(self.pair, "snapshot", bar, self._recent[-1].ts_ns)
        if self.quote is None:
            if stream.channel == "book":
                self._depths_without_quote.add(int(stream.variant))
            return None
        if stream.channel == "ticker":
            return self.ticker_snapshot()
        return self._book_snapshot(int(stream.variant), self.quote)

    def _book_snapshot(self, depth: int, quote: Quote) -> wire.Frame:
        if depth not in self._books:
            self._books[depth] = self._book_generator.sides(quote, depth)
        bids, asks = self._books[depth]
        return wire.book(self.pair, "snapshot", (bids, asks), wire.checksum(bids, asks), quote.ts_ns)

    def end_stream(self, stream: Stream) -> None:
        """Drop the state of a stream whose last subscriber has left."""
        if stream.channel == "book":
            self._books.pop(int(stream.variant), None)
            self._depths_without_quote.discard(int(stream.variant))
