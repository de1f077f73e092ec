"""The messages of Binance's market streams as frozen structs, and their conversion to the structs of `market.frames`.

Spot (`decode_spot`) and the USDT-margined perpetual (`decode_perpetual`) have the same form of messages, raw
(`{"e": "trade", …}`) or combined (`{"stream": "btcusdt@trade", "data": {…}}`). They differ in where trades come from:

- Spot: from `trade`, one message for each match. Its ids `t` count the trades of a symbol without gaps, and REST finds
  trades by them.
- Perpetual: from `aggTrade`, which sums the matches of one taker at one price within 100 ms. Its ids `a` count these sums
  without gaps, and REST finds the sums by them. The ids `f` to `l` of the matches inside are not used.

The two numberings are never mixed: each decoder treats the other message as one that is not used.

Messages that are not used are decoded to heartbeats: `depthUpdate` (the order book is not followed, as it has no
checksums) and `24hrMiniTicker`. `markPriceUpdate` (mark price, index price and funding of the perpetual) becomes a
frame of the channel `mark_price`, which the log keeps and which has no event yet.

`bookTicker` of spot has no time of the exchange, so the time of receipt is the time of its quote. Trades have the time
of the exchange in ms. Where the clock of this machine is wrong, quotes and trades are displaced by as much. With two
connections, a quote that only the slower one brings is not recognized as late.

Only `bookTicker`, `trade` and `depthUpdate` of spot were tried on recorded messages. All others follow Binance's
documentation.

What does not belong here: requests to Binance (`binance`).
"""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from typing import Annotated

import msgspec

from btc_core.clock import NS_PER_MS, from_ns
from btc_core.errors import BadFrame
from btc_core.market.frames import (
    AnyFrame,
    Candle,
    EngineStatus,
    Frame,
    HeartbeatFrame,
    MarkPrice,
    MarkPriceFrame,
    OhlcFrame,
    Quote,
    Reply,
    StatusFrame,
    Symbol,
    TickerFrame,
    Trade,
    TradeFrame,
    bad_channel_frame,
    raw_fields,
    shown_keys,
)

TimeMs = Annotated[int, msgspec.Meta(ge=0, lt=253_402_300_800_000)]
"""A time in ms since 1970, before the year 10000."""

QUOTE_ASSETS = (
    *("FDUSD", "USDT", "USDC", "TUSD", "BUSD", "USD1", "BTC", "ETH", "BNB", "EUR", "TRY", "BRL", "JPY", "GBP", "AUD"),
    *("MXN", "ARS", "COP", "CZK", "PLN", "RON", "UAH", "ZAR"),
)
"""Assets in which Binance quotes prices, longer names first. Its names of markets do not show where the base ends."""
SERVER_SHUTDOWN = "server_shutdown"
"""The status that a `serverShutdown` message becomes: the server is about to close the connection."""


def name_of(symbol: str) -> str:
    """Return the name that Binance gives to a symbol.

    >>> name_of("BTC/USDT")
    'BTCUSDT'
    """
    return symbol.replace("/", "")


@lru_cache(4_096)
def symbol_of(name: str) -> str:
    """Return the symbol of a Binance market; one in an unknown quote asset keeps its name.

    >>> symbol_of("BTCUSDT"), symbol_of("ETHBTC"), symbol_of("BTCUSDT_250328")
    ('BTC/USDT', 'ETH/BTC', 'BTCUSDT_250328')
    """
    for asset in QUOTE_ASSETS:
        if name.endswith(asset) and len(name) > len(asset):
            return f"{name.removesuffix(asset)}/{asset}"
    return name


class MatchTrade(Frame, frozen=True, tag_field="e", tag="trade"):
    """A match of two orders."""

    name: Symbol = msgspec.field(name="s")
    trade_id: int = msgspec.field(name="t")
    price: Decimal = msgspec.field(name="p")
    qty: Decimal = msgspec.field(name="q")
    time_ms: TimeMs = msgspec.field(name="T")
    buyer_is_maker: bool = msgspec.field(name="m")

    def frame(self) -> TradeFrame:
        """Convert to a frame with one trade. Binance does not send the taker's order type."""
        side = "sell" if self.buyer_is_maker else "buy"
        time = from_ns(self.time_ms * NS_PER_MS)
        return TradeFrame("update", [Trade(symbol_of(self.name), side, self.price, self.qty, self.trade_id, time)])


class AggregateTrade(MatchTrade, frozen=True, tag_field="e", tag="aggTrade"):
    """The matches of one taker at one price within 100 ms; `trade_id` is the id of the aggregate."""

    trade_id: int = msgspec.field(name="a")


class BookTicker(Frame, frozen=True):
    """The best bid and ask after a change. Only the perpetual sends the time of the match engine."""

    name: Symbol = msgspec.field(name="s")
    bid: float = msgspec.field(name="b")
    bid_qty: float = msgspec.field(name="B")
    ask: float = msgspec.field(name="a")
    ask_qty: float = msgspec.field(name="A")
    time_ms: TimeMs | None = msgspec.field(default=None, name="T")

    def frame(self) -> TickerFrame:
        """Convert to a frame with one quote; Binance sends no figures of the last 24 hours with it."""
        time = None if self.time_ms is None else from_ns(self.time_ms * NS_PER_MS)
        quote = Quote(symbol_of(self.name), self.bid, self.bid_qty, self.ask, self.ask_qty, timestamp=time)
        return TickerFrame("update", [quote])


class MarkPriceUpdate(Frame, frozen=True, tag_field="e", tag="markPriceUpdate"):
    """The mark price, the index price and the funding of a perpetual."""

    name: Symbol = msgspec.field(name="s")
    mark_price: float = msgspec.field(name="p")
    index_price: float = msgspec.field(name="i")
    funding_rate: float = msgspec.field(name="r")
    next_funding_ms: TimeMs = msgspec.field(name="T")
    time_ms: TimeMs = msgspec.field(name="E")

    def frame(self) -> MarkPriceFrame:
        """Convert to a frame with one mark price."""
        next_funding, time = (from_ns(ms * NS_PER_MS) for ms in (self.next_funding_ms, self.time_ms))
        mark = MarkPrice(symbol_of(self.name), self.mark_price, self.index_price, self.funding_rate, next_funding, time)
        return MarkPriceFrame("update", [mark])


class Klines(Frame, frozen=True, tag_field="e", tag="klines"):
    """Klines from REST, in a form for the log. No stream sends this message."""

    name: Symbol = msgspec.field(name="s")
    klines: list[tuple[TimeMs, float, float, float, float, float]] = msgspec.field(name="k")
    """The begin of the minute in ms, open, high, low, close, volume."""

    def frame(self) -> OhlcFrame:
        """Convert to a frame with minute bars."""
        symbol = symbol_of(self.name)
        bars = [
            Candle(symbol, opened, high, low, close, volume, from_ns(begin_ms * NS_PER_MS), 1)
            for begin_ms, opened, high, low, close, volume in self.klines
        ]
        return OhlcFrame("snapshot", bars)


class DepthUpdate(Frame, frozen=True, tag_field="e", tag="depthUpdate"):
    """A change of the order book, which is not used."""

    def frame(self) -> HeartbeatFrame:
        """Convert to a heartbeat."""
        return HeartbeatFrame()


class MiniTicker(Frame, frozen=True, tag_field="e", tag="24hrMiniTicker"):
    """Figures of the last 24 hours, which are not used; `binance` subscribes to those of one market as a heartbeat."""

    def frame(self) -> HeartbeatFrame:
        """Convert to a heartbeat."""
        return HeartbeatFrame()


class ServerShutdown(Frame, frozen=True, tag_field="e", tag="serverShutdown"):
    """An announcement that the server is about to close the connection."""

    def frame(self) -> StatusFrame:
        """Convert to a status frame."""
        return StatusFrame([EngineStatus(SERVER_SHUTDOWN)])


class Refusal(Frame, frozen=True):
    """The `error` of an answer."""

    code: int
    msg: str


class Answer(Frame, frozen=True):
    """An answer to a request: `{"result": null, "id": 1}`, or a refusal in one of two forms. It names no stream."""

    id: int | str | None = None
    msg: str = ""
    error: Refusal | None = None

    def frame(self) -> Reply:
        """Convert to a reply, which the number of the request connects to what was asked for."""
        refusal = self.error.msg if self.error else self.msg
        return Reply(success=not refusal, error=refusal, req_id=self.id if isinstance(self.id, int) else None)


class Combined(Frame, frozen=True):
    """A message of a combined stream."""

    stream: str
    data: msgspec.Raw


_Event = MatchTrade | AggregateTrade | MarkPriceUpdate | Klines | DepthUpdate | MiniTicker | ServerShutdown
_combined_decoder: msgspec.json.Decoder[Combined] = msgspec.json.Decoder(Combined)
# Binance sends prices and quantities as text; `strict=False` accepts text for a number.
_event_decoder: msgspec.json.Decoder[_Event] = msgspec.json.Decoder(_Event, strict=False)
_book_ticker_decoder: msgspec.json.Decoder[BookTicker] = msgspec.json.Decoder(BookTicker, strict=False)
_answer_decoder: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)

_BOOK_TICKER = "bookTicker"
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_ANSWER_KEYS = frozenset({"result", "error", "code"})
KNOWN_EVENTS = frozenset(
    {"trade", "aggTrade", _BOOK_TICKER, "markPriceUpdate", "klines", "depthUpdate", "24hrMiniTicker", "serverShutdown"}
)


def decode_spot(raw: bytes | str) -> AnyFrame:
    """Decode one message of spot; raises `BadFrame` with the reasons of `market.frames.decode`."""
    message = _message(raw)
    return HeartbeatFrame() if isinstance(message, AggregateTrade) else message.frame()


def decode_perpetual(raw: bytes | str) -> AnyFrame:
    """Decode one message of the perpetual; raises `BadFrame` with the reasons of `market.frames.decode`."""
    message = _message(raw)
    is_match = isinstance(message, MatchTrade) and not isinstance(message, AggregateTrade)
    return HeartbeatFrame() if is_match else message.frame()


def _message(raw: bytes | str) -> _Event | BookTicker | Answer:
    """Decode a message, raw or combined."""
    try:
        combined = _combined_decoder.decode(raw)
    except _UNREADABLE as error:
        fields = raw_fields(raw, error)
        if "stream" in fields:
            raise BadFrame("bad_field", f"combined message: {error}") from None
        return _raw_message(raw)
    if combined.stream.endswith(f"@{_BOOK_TICKER}"):
        return _book_ticker(combined.data)
    return _raw_message(combined.data)


def _raw_message(raw: bytes | str | msgspec.Raw) -> _Event | BookTicker | Answer:
    try:
        return _event_decoder.decode(raw)
    except _UNREADABLE as error:
        fields = raw_fields(raw, error)
        if fields.get("e", _QUOTED_BOOK_TICKER) == _QUOTED_BOOK_TICKER and {"u", "b"} <= fields.keys():
            return _book_ticker(raw)
        if "e" in fields:
            raise bad_channel_frame(fields["e"], KNOWN_EVENTS, error) from None
        if not fields.keys() & _ANSWER_KEYS:
            raise BadFrame(
                "unknown_message", f"the message is neither an event nor an answer; keys {shown_keys(fields)}"
            ) from None
    try:
        return _answer_decoder.decode(raw)
    except _UNREADABLE as error:
        raise BadFrame("bad_field", f"answer: {error}") from None


_QUOTED_BOOK_TICKER = msgspec.Raw(b'"bookTicker"')


def _book_ticker(raw: bytes | str | msgspec.Raw) -> BookTicker:
    try:
        return _book_ticker_decoder.decode(raw)
    except _UNREADABLE as error:
        raw_fields(raw, error)
        raise BadFrame("bad_field", f"{_BOOK_TICKER}: {error}") from None
