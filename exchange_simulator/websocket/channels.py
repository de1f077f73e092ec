"""What each channel of one symbol says: the state behind snapshots, and the frames that an event causes.

A frame is made only for the streams that somebody listens to.
What does not belong here: connections and queues (`hub`), or the text of a frame (`wire`).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from btc_core.clock import NS_PER_MIN
from exchange_simulator.market.generated import Bar, Quote, Trade
from exchange_simulator.websocket import wire
from exchange_simulator.websocket.ledger import IdRanges

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from exchange_simulator.market.generated import BookMaker
    from exchange_simulator.market.published_tape import ToldTape
    from exchange_simulator.pairs import Pair

TRADE_SNAPSHOT = 50
DAY_MIN = 1_440

Sides = tuple[dict[int, int], dict[int, int]]


class Stream(NamedTuple):
    """What a subscription names: two subscriptions with the same stream get the same frames."""

    channel: str
    symbol: str
    variant: str | int = ""
    """The event trigger of `ticker`, the depth of `book`, the interval of `ohlc`."""


def announce(old: Mapping[int, int], new: Mapping[int, int], *, outward: int) -> dict[int, int]:
    """The levels to send so that a client's side goes from `old` to `new`; a level that fell out is not named.

    `outward` is 1 for asks, -1 for bids: the direction in which prices get worse.
    """
    worst = max((outward * price for price in new), default=0)
    changes = {price: 0 for price in old if price not in new and outward * price <= worst}
    changes.update((price, qty) for price, qty in new.items() if old.get(price) != qty)
    return changes


class SymbolChannels:
    """The channels of one symbol, driven by `on_quote` and `on_trades`."""

    def __init__(self, pair: Pair, tape: ToldTape, books: BookMaker) -> None:
        self.pair = pair
        self.tape = tape
        self.quote: Quote | None = None
        self.published = IdRanges()
        """The ids of all trades since the start, sent or not."""
        self._book_maker = books
        self._books: dict[int, Sides] = {}
        self._depths_waiting: set[int] = set()
        self._recent: deque[Trade] = deque(maxlen=TRADE_SNAPSHOT)
        self._candle: Bar | None = None
        self._minute = -1
        self._past_day = wire.DayFigures(0, 0, 0, 0, 0.0)

    def start(self, quote: Quote | None, recent: Sequence[Trade]) -> None:
        """Take up the market where it stands: the quote, and the trades up to now, oldest first."""
        self.quote = quote
        self._recent.extend(recent)
        for trade in recent:
            self._fold(trade)

    def _fold(self, trade: Trade) -> None:
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

    def _day(self, ts_ns: int) -> wire.DayFigures:
        """The 1,440 closed minutes before now, with the open one on top."""
        minute = ts_ns // NS_PER_MIN
        if minute != self._minute:
            self._minute = minute
            bars = self.tape.minute_bars(minute - DAY_MIN, minute)
            rows = bars.columns[bars.columns[:, 5] > 0]
            self._past_day = (
                wire.DayFigures(
                    int(rows[0, 0]),
                    int(rows[:, 1].max()),
                    int(rows[:, 2].min()),
                    sum(rows[:, 4].tolist()),  # Lots of a cheap asset at a high rate are more than 64 bits.
                    float(bars.value.sum()),
                )
                if len(rows)
                else wire.DayFigures(0, 0, 0, 0, 0.0)
            )
        past, bar = self._past_day, self._candle
        if bar is None or bar.start_min != minute:
            return past
        if past.open == 0:
            return wire.DayFigures(bar.open, bar.high, bar.low, bar.volume, bar.value)
        return wire.DayFigures(
            past.open,
            max(past.high, bar.high),
            min(past.low, bar.low),
            past.volume + bar.volume,
            past.value + bar.value,
        )

    def _ticker(self, kind: str, quote: Quote) -> wire.Frame:
        last = self._recent[-1].price if self._recent else quote.bid
        day = self._day(quote.ts_ns)
        if day.open == 0:
            day = wire.DayFigures(last, last, last, 0, 0.0)
        return wire.ticker(self.pair, kind, quote, last, day)

    def ticker(self) -> wire.Frame | None:
        """The ticker as it stands; None while there is no quote."""
        return None if self.quote is None else self._ticker("snapshot", self.quote)

    def on_quote(self, quote: Quote, wanted: Mapping[Stream, object]) -> list[tuple[Stream, wire.Frame]]:
        """The frames that a new best bid or ask causes on the wanted streams."""
        self.quote = quote
        frames = []
        stream = Stream("ticker", self.pair.symbol, "bbo")
        if stream in wanted:
            frames.append((stream, self._ticker("update", quote)))
        for depth, (old_bids, old_asks) in self._books.items():
            bids, asks = self._book_maker.sides(quote, depth)
            changes = announce(old_bids, bids, outward=-1), announce(old_asks, asks, outward=1)
            self._books[depth] = bids, asks
            if changes[0] or changes[1]:
                frame = wire.book(self.pair, "update", changes, wire.checksum(bids, asks), quote.ts_ns)
                frames.append((Stream("book", self.pair.symbol, depth), frame))
        frames += [
            (Stream("book", self.pair.symbol, depth), self._book_snapshot(depth, quote))
            for depth in self._depths_waiting
        ]
        self._depths_waiting.clear()
        return frames

    def on_trades(self, trades: Sequence[Trade], wanted: Mapping[Stream, object]) -> list[tuple[Stream, wire.Frame]]:
        """The frames that trades of one moment cause on the wanted streams."""
        symbol = self.pair.symbol
        for trade in trades:
            self._fold(trade)
        self._recent.extend(trades)
        self.count_trades([trade.trade_id for trade in trades])
        frames = []
        if (stream := Stream("trade", symbol)) in wanted:
            frames.append((stream, wire.trade(self.pair, "update", trades)))
        if (stream := Stream("ticker", symbol, "trades")) in wanted and self.quote is not None:
            quote = self.quote._replace(ts_ns=trades[-1].ts_ns)
            frames.append((stream, self._ticker("update", quote)))
        if (stream := Stream("ohlc", symbol, 1)) in wanted and self._candle is not None:
            frames.append((stream, wire.candle(self.pair, "update", self._candle, trades[-1].ts_ns)))
        return frames

    def count_trades(self, trade_ids: Sequence[int]) -> None:
        """Take up that the market published these trades."""
        for trade_id in trade_ids:
            self.published.add(trade_id)

    def snapshot(self, stream: Stream) -> wire.Frame | None:
        """The frame that opens a subscription; None while there is nothing to show."""
        if stream.channel == "trade":
            return wire.trade(self.pair, "snapshot", self._recent) if self._recent else None
        if stream.channel == "ohlc":
            bar = self._candle
            return None if bar is None else wire.candle(self.pair, "snapshot", bar, self._recent[-1].ts_ns)
        if self.quote is None:
            if stream.channel == "book":
                self._depths_waiting.add(int(stream.variant))
            return None
        if stream.channel == "ticker":
            return self.ticker()
        return self._book_snapshot(int(stream.variant), self.quote)

    def _book_snapshot(self, depth: int, quote: Quote) -> wire.Frame:
        if depth not in self._books:
            self._books[depth] = self._book_maker.sides(quote, depth)
        bids, asks = self._books[depth]
        return wire.book(self.pair, "snapshot", (bids, asks), wire.checksum(bids, asks), quote.ts_ns)

    def closed(self, stream: Stream) -> None:
        """Nobody listens to this stream any more."""
        if stream.channel == "book":
            self._books.pop(int(stream.variant), None)
            self._depths_waiting.discard(int(stream.variant))
