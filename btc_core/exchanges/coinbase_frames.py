"""The frames of Coinbase's Exchange feed as frozen structs, and their conversion to the structs of `market.frames`.

`decode` reads the channels `ticker`, `matches` and `heartbeat`, answers to requests, and the frames that `coinbase`
makes from REST answers. It also reads the ticker of Advanced Trade, Coinbase's other public feed, for its recordings.

What does not belong here: requests to Coinbase (`coinbase`).
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
    OhlcFrame,
    Quote,
    Reply,
    Symbol,
    TickerFrame,
    Timestamp,
    Trade,
    TradeFrame,
    bad_channel_frame,
    raw_fields,
    shown_keys,
    without_leap_seconds,
)

CHANNEL_NAMES = {"trade": "matches", "ticker": "ticker", "heartbeat": "heartbeat"}
"""The name that Coinbase gives to each of our channels."""
_OUR_CHANNELS = {theirs: ours for ours, theirs in CHANNEL_NAMES.items()}
_TAKER_SIDE = {"buy": "sell", "sell": "buy"}
"""The side of the taker for each side of the maker. Coinbase sends the side of the maker."""


def product_of(symbol: str) -> str:
    """Return the name that Coinbase gives to a symbol.

    >>> product_of("BTC/USD")
    'BTC-USD'
    """
    return symbol.replace("/", "-")


def symbol_of(product_id: str) -> str:
    """Return the symbol of a Coinbase product.

    >>> symbol_of("BTC-USD")
    'BTC/USD'
    """
    return product_id.replace("-", "/")


class Ticker(Frame, frozen=True, tag_field="type", tag="ticker"):
    """The best bid and offer after a match, and figures of the last 24 hours, each of which may be missing."""

    product_id: Symbol
    best_bid: float
    best_bid_size: float
    best_ask: float
    best_ask_size: float
    price: float | None = None
    volume_24h: float | None = None
    time: Timestamp | None = None

    def quote(self, timestamp: Timestamp | None) -> Quote:
        """Convert to a quote; the mean price of 24 hours is NaN, as Coinbase does not send it."""
        return Quote(
            symbol=symbol_of(self.product_id),
            bid=self.best_bid,
            bid_qty=self.best_bid_size,
            ask=self.best_ask,
            ask_qty=self.best_ask_size,
            last=self.price,
            volume=self.volume_24h,
            vwap=math.nan,
            timestamp=timestamp,
        )

    def frame(self) -> TickerFrame:
        """Convert to a frame with one quote."""
        return TickerFrame("update", [self.quote(self.time)])


class Match(Frame, frozen=True, tag_field="type", tag="match"):
    """A trade. `side` is the maker's side; `trade_id` counts the trades of a product without gaps."""

    product_id: Symbol
    trade_id: int
    side: str
    size: Decimal
    price: Decimal
    time: Timestamp

    def trade(self) -> Trade:
        """Convert to a trade with the side of the taker. Coinbase does not send the taker's order type."""
        side = _TAKER_SIDE.get(self.side, self.side)
        return Trade(symbol_of(self.product_id), side, self.price, self.size, self.trade_id, self.time)

    def frame(self) -> TradeFrame:
        """Convert to a frame with one trade."""
        return TradeFrame("update", [self.trade()])


class LastMatch(Match, frozen=True, tag_field="type", tag="last_match"):
    """The newest trade at the start of a subscription."""

    def frame(self) -> TradeFrame:
        """Convert to a snapshot frame, because the trade may be known already."""
        return TradeFrame("snapshot", [self.trade()])


class Candles(Frame, frozen=True, tag_field="type", tag="candles"):
    """Candles from REST, in a form for the log. No channel of the feed sends this frame."""

    product_id: Symbol
    candles: list[tuple[int, float, float, float, float, float]]
    """The begin of the minute in s, low, high, open, close, volume."""

    def frame(self) -> OhlcFrame:
        """Convert to a frame with minute bars."""
        symbol = symbol_of(self.product_id)
        bars = [
            Candle(symbol, opened, high, low, close, volume, from_ns(begin_s * NS_PER_S), 1)
            for begin_s, low, high, opened, close, volume in self.candles
        ]
        return OhlcFrame("snapshot", bars)


class Heartbeat(Frame, frozen=True, tag_field="type", tag="heartbeat"):
    """A sign that the connection works, sent once a second for each product."""

    def frame(self) -> HeartbeatFrame:
        """Convert to a heartbeat frame."""
        return HeartbeatFrame()


class Channel(Frame, frozen=True):
    """One entry of `subscriptions`."""

    name: str
    product_ids: tuple[str, ...] = ()


class Subscriptions(Frame, frozen=True, tag_field="type", tag="subscriptions"):
    """The answer to every request, with all current subscriptions of the connection."""

    channels: list[Channel]

    def frame(self) -> Reply:
        """Convert to a reply that confirms all subscriptions."""
        acks = [
            Ack(_OUR_CHANNELS.get(channel.name, channel.name), symbol_of(product_id))
            for channel in self.channels
            for product_id in channel.product_ids
        ]
        return Reply(method="subscribe", success=True, result=acks)


class Refusal(Frame, frozen=True, tag_field="type", tag="error"):
    """An error message of Coinbase."""

    message: str
    reason: str = ""

    def frame(self) -> Reply:
        """Convert to the reply that refuses a subscription, or to an error that does not answer a request."""
        method = "subscribe" if "subscribe" in self.message else ""
        return Reply(method=method, success=False, error=f"{self.message} {self.reason}".strip())


class AdvancedTicker(Ticker, frozen=True, kw_only=True):
    """A ticker of the feed Advanced Trade, whose fields have other names."""

    best_bid_size: float = msgspec.field(name="best_bid_quantity")
    best_ask_size: float = msgspec.field(name="best_ask_quantity")
    volume_24h: float | None = msgspec.field(default=None, name="volume_24_h")


class AdvancedEvent(Frame, frozen=True):
    """The tickers in a frame of the feed Advanced Trade."""

    tickers: list[AdvancedTicker]


class AdvancedTickers(Frame, frozen=True, tag_field="channel", tag="ticker"):
    """A ticker frame of the feed Advanced Trade."""

    timestamp: Timestamp
    events: list[AdvancedEvent]

    def frame(self) -> TickerFrame:
        """Convert to a frame with all quotes."""
        quotes = [ticker.quote(self.timestamp) for event in self.events for ticker in event.tickers]
        return TickerFrame("update", quotes)


class AdvancedSubscriptions(Frame, frozen=True, tag_field="channel", tag="subscriptions"):
    """The answer of the feed Advanced Trade to a request."""

    def frame(self) -> Reply:
        """Convert to a reply that confirms the request."""
        return Reply(method="subscribe", success=True)


_ExchangeMessage = Ticker | Match | LastMatch | Candles | Heartbeat | Subscriptions | Refusal
_AdvancedMessage = AdvancedTickers | AdvancedSubscriptions
# Both feeds send numbers as text; `strict=False` accepts text for a number.
_decoder: msgspec.json.Decoder[_ExchangeMessage] = msgspec.json.Decoder(_ExchangeMessage, strict=False)
_advanced_decoder: msgspec.json.Decoder[_AdvancedMessage] = msgspec.json.Decoder(_AdvancedMessage, strict=False)

KNOWN_TYPES = frozenset({"ticker", "match", "last_match", "candles", "heartbeat", "subscriptions", "error"})
KNOWN_ADVANCED_CHANNELS = frozenset({"ticker", "subscriptions"})


def decode(raw: bytes | str) -> AnyFrame:
    """Decode one frame; raises `BadFrame` with the reasons of `market.frames.decode`."""
    try:
        return _decoder.decode(raw).frame()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        changed = without_leap_seconds(raw)
        return _decode_advanced(raw, error) if changed is None else decode(changed)


def _decode_advanced(raw: bytes | str, exchange_error: Exception) -> AnyFrame:
    """Decode a frame of the feed Advanced Trade; raises `BadFrame` for anything else."""
    fields = raw_fields(raw, exchange_error)
    if "type" in fields:
        raise bad_channel_frame(fields["type"], KNOWN_TYPES, exchange_error)
    if "channel" not in fields:
        raise BadFrame("unknown_message", f"the message has neither a type nor a channel; keys {shown_keys(fields)}")
    try:
        return _advanced_decoder.decode(raw).frame()
    except msgspec.DecodeError as error:
        raise bad_channel_frame(fields["channel"], KNOWN_ADVANCED_CHANNELS, error) from None
