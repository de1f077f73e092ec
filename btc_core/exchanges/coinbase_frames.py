"""Frames of Coinbase's Exchange feed as frozen structs, and the frames of `frames` that they mean.

`decode` reads a frame of the channels `ticker`, `matches` and `heartbeat`, an answer, or what `coinbase` makes of REST;
and the ticker of Coinbase's other public feed (Advanced Trade), which recordings are of.
What does not belong here: what is asked of Coinbase (`coinbase`).
"""

from __future__ import annotations

import math
from decimal import Decimal

import msgspec

from btc_core.clock import NS_PER_S, from_ns
from btc_core.errors import BadFrame
from btc_core.market.frames import (
    Ack,
    AnyFrame,
    Candle,
    Frame,
    HeartbeatFrame,
    Moment,
    OhlcFrame,
    Quote,
    Reply,
    Symbol,
    TickerFrame,
    Trade,
    TradeFrame,
    keys_of,
    unusable,
)

CHANNELS = {"trade": "matches", "ticker": "ticker", "heartbeat": "heartbeat"}
"""Our names of channels and Coinbase's."""
_OUR_CHANNELS = {theirs: ours for ours, theirs in CHANNELS.items()}
_TAKER = {"buy": "sell", "sell": "buy"}
"""By the side of the maker, which is what Coinbase tells."""


def product(symbol: str) -> str:
    """`BTC/USD` as Coinbase calls it.

    >>> product("BTC/USD")
    'BTC-USD'
    """
    return symbol.replace("/", "-")


def symbol_of(product_id: str) -> str:
    """And back."""
    return product_id.replace("-", "/")


class Ticker(Frame, frozen=True, tag_field="type", tag="ticker"):
    """The best bid and offer after a match, and figures of the last 24 hours."""

    product_id: Symbol
    price: float
    best_bid: float
    best_bid_size: float
    best_ask: float
    best_ask_size: float
    volume_24h: float
    low_24h: float
    high_24h: float
    time: Moment | None = None

    def quote(self, moment: Moment | None) -> Quote:
        """What is not sent is NaN: the mean price and the change of 24 hours."""
        return Quote(
            symbol=symbol_of(self.product_id),
            bid=self.best_bid,
            bid_qty=self.best_bid_size,
            ask=self.best_ask,
            ask_qty=self.best_ask_size,
            last=self.price,
            volume=self.volume_24h,
            vwap=math.nan,
            low=self.low_24h,
            high=self.high_24h,
            change=math.nan,
            change_pct=math.nan,
            timestamp=moment,
        )

    def frame(self) -> TickerFrame:
        """One quote."""
        return TickerFrame("update", [self.quote(self.time)])


class Match(Frame, frozen=True, tag_field="type", tag="match"):
    """A trade; `side` is the maker's, `trade_id` is gapless per product."""

    product_id: Symbol
    trade_id: int
    side: str
    size: Decimal
    price: Decimal
    time: Moment

    def trade(self) -> Trade:
        """With the side of the taker, whose order type is not told."""
        side = _TAKER.get(self.side, self.side)
        return Trade(symbol_of(self.product_id), side, self.price, self.size, "", self.trade_id, self.time)

    def frame(self) -> TradeFrame:
        """One trade."""
        return TradeFrame("update", [self.trade()])


class LastMatch(Match, frozen=True, tag_field="type", tag="last_match"):
    """The newest trade when a subscription begins."""

    def frame(self) -> TradeFrame:
        """One trade that may be known."""
        return TradeFrame("snapshot", [self.trade()])


class Candles(Frame, frozen=True, tag_field="type", tag="candles"):
    """Rows of REST's candles for the log; no channel sends them."""

    product_id: Symbol
    candles: list[tuple[int, float, float, float, float, float]]
    """Begin of the minute in s, low, high, open, close, volume."""

    def frame(self) -> OhlcFrame:
        """Minute bars."""
        symbol = symbol_of(self.product_id)
        bars = [
            Candle(symbol, opened, high, low, close, volume, from_ns(begin_s * NS_PER_S), 1)
            for begin_s, low, high, opened, close, volume in self.candles
        ]
        return OhlcFrame("snapshot", bars)


class Heartbeat(Frame, frozen=True, tag_field="type", tag="heartbeat"):
    """Once a second for each product."""

    def frame(self) -> HeartbeatFrame:
        """A sign of life."""
        return HeartbeatFrame()


class Channel(Frame, frozen=True):
    """One entry of `subscriptions`."""

    name: str
    product_ids: tuple[str, ...] = ()


class Subscriptions(Frame, frozen=True, tag_field="type", tag="subscriptions"):
    """The answer to every request: all that the connection is subscribed to now."""

    channels: list[Channel]

    def frame(self) -> Reply:
        """An acknowledgement of all of it."""
        acks = [
            Ack(_OUR_CHANNELS.get(channel.name, channel.name), symbol_of(product_id))
            for channel in self.channels
            for product_id in channel.product_ids
        ]
        return Reply(method="subscribe", success=True, result=acks)


class Refusal(Frame, frozen=True, tag_field="type", tag="error"):
    """What went wrong, and why."""

    message: str
    reason: str = ""

    def frame(self) -> Reply:
        """A refused subscription, or an error that answers none."""
        method = "subscribe" if "subscribe" in self.message else ""
        return Reply(method=method, success=False, error=f"{self.message} {self.reason}".strip())


class AdvancedTicker(Ticker, frozen=True, kw_only=True):
    """The same on the other feed, under other names."""

    best_bid_size: float = msgspec.field(name="best_bid_quantity")
    best_ask_size: float = msgspec.field(name="best_ask_quantity")
    volume_24h: float = msgspec.field(name="volume_24_h")
    low_24h: float = msgspec.field(name="low_24_h")
    high_24h: float = msgspec.field(name="high_24_h")


class AdvancedEvent(Frame, frozen=True):
    """Tickers of one moment."""

    tickers: list[AdvancedTicker]


class AdvancedTickers(Frame, frozen=True, tag_field="channel", tag="ticker"):
    """A frame of the other feed's ticker."""

    timestamp: Moment
    events: list[AdvancedEvent]

    def frame(self) -> TickerFrame:
        """All quotes of the frame."""
        quotes = [ticker.quote(self.timestamp) for event in self.events for ticker in event.tickers]
        return TickerFrame("update", quotes)


class AdvancedSubscriptions(Frame, frozen=True, tag_field="channel", tag="subscriptions"):
    """The other feed's answer to a request."""

    def frame(self) -> Reply:
        """An acknowledgement."""
        return Reply(method="subscribe", success=True)


_Any = Ticker | Match | LastMatch | Candles | Heartbeat | Subscriptions | Refusal
_AnyAdvanced = AdvancedTickers | AdvancedSubscriptions
# Numbers come as text, which is what `strict=False` reads.
_decoder: msgspec.json.Decoder[_Any] = msgspec.json.Decoder(_Any, strict=False)
_advanced_decoder: msgspec.json.Decoder[_AnyAdvanced] = msgspec.json.Decoder(_AnyAdvanced, strict=False)

TYPES = frozenset({"ticker", "match", "last_match", "candles", "heartbeat", "subscriptions", "error"})
ADVANCED_CHANNELS = frozenset({"ticker", "subscriptions"})


def decode(raw: bytes | str) -> AnyFrame:
    """Decode one frame; raises `BadFrame` with the reasons of `frames.decode`."""
    try:
        return _decoder.decode(raw).frame()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _decode_other(raw, error)


def _decode_other(raw: bytes | str, error: Exception) -> AnyFrame:
    """The slow way: a frame of the other feed, or one that cannot be used and why."""
    keys = keys_of(raw, error)
    if "type" in keys:
        raise unusable(keys["type"], TYPES, error)
    if "channel" not in keys:
        raise BadFrame("unknown_message", f"no type of Coinbase's; keys {sorted(keys)[:8]}")
    try:
        return _advanced_decoder.decode(raw).frame()
    except msgspec.DecodeError as problem:
        raise unusable(keys["channel"], ADVANCED_CHANNELS, problem) from None
