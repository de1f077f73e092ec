"""The frames of every channel that the project reads, as frozen structs in the form of Kraken's WebSocket v2.

`decode` turns the bytes of one frame into one struct, or raises `BadFrame` with a stable reason. The frames of other
exchanges are converted to the same structs (`exchanges.decoding`). Numbers that must be exact (trade prices, book
levels) are decimals with the digits of the wire. Ticker numbers are float64, whose shortest text equals the text on the
wire up to 15 significant digits.

One bad entry does not cost the others: a frame that cannot be decoded as a whole is decoded entry by entry. Fields that
the project does not need may be null or absent.

What does not belong here: checks of the values (`events`), or keeping the book (`book`).
"""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from btc_core.clock import to_ns
from btc_core.errors import BadFrame

if TYPE_CHECKING:
    from collections.abc import Mapping

KRAKEN = "kraken"
Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time with its zone. A time without a zone is refused as a bad field."""
Symbol = Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
Crc32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
MAX_PRECISION = 18
"""The largest number of decimals of a price or a quantity; with 10,000 of them a book could not be printed."""
Precision = Annotated[int, msgspec.Meta(ge=0, le=MAX_PRECISION)]
MAX_ENTRY_ERROR_CHARS = 160
MAX_SHOWN_KEYS, MAX_SHOWN_KEY_CHARS = 8, 24
"""How much of an unknown message an error quotes: its keys may be as long as the message."""


class Frame(msgspec.Struct, frozen=True, gc=False):
    """The base class of frames and of their parts."""


class BadEntry(Frame, frozen=True):
    """An entry of a frame that could not be decoded, beside entries that could."""

    position: int
    """Its position in the frame."""
    symbol: str
    """Empty if the entry has no readable symbol."""
    error: str


class BadEntries(tuple[BadEntry, ...]):
    """The bad entries of a frame. JSON cannot produce this type, so nothing that an exchange sends sets such a field."""

    __slots__ = ()


NO_BAD_ENTRIES = BadEntries()


class _Named(Frame, frozen=True):
    """The symbol of any entry."""

    symbol: Symbol


class Quote(Frame, frozen=True):
    """One entry of `ticker`: the best bid and ask, and figures of the last 24 hours, each of which may be missing.

    The fields that no table has are not read, so nothing in them can cost a quote.
    """

    symbol: Symbol
    bid: float
    bid_qty: float
    ask: float
    ask_qty: float
    last: float | None = None
    volume: float | None = None
    vwap: float | None = None
    timestamp: Timestamp | None = None


class Trade(Frame, frozen=True):
    """One entry of `trade`. `side` is the taker's side; `trade_id` counts the trades of a symbol without gaps."""

    symbol: Symbol
    side: str
    price: Decimal
    qty: Decimal
    trade_id: int
    timestamp: Timestamp
    ord_type: str | None = ""


class Level(Frame, frozen=True):
    """One price level of the book; a quantity of zero deletes the level."""

    price: Decimal
    qty: Decimal


class BookData(Frame, frozen=True):
    """One entry of `book`. The checksum covers the ten best levels of each side after the update."""

    symbol: Symbol
    bids: list[Level]
    asks: list[Level]
    checksum: Crc32
    timestamp: Timestamp | None = None


class Candle(Frame, frozen=True):
    """One entry of `ohlc`. The candle closes `interval` minutes after `interval_begin`."""

    symbol: Symbol
    open: float
    high: float
    low: float
    close: float
    volume: float
    interval_begin: Timestamp
    interval: int
    trades: int | None = None
    vwap: float | None = None
    timestamp: Timestamp | None = None


class MarkPrice(Frame, frozen=True):
    """One entry of `mark_price`: the prices from which a perpetual contract is valued, and its funding."""

    symbol: Symbol
    mark_price: float
    index_price: float
    funding_rate: float
    """The rate that will be paid at `next_funding` if nothing changes, as a fraction of the position."""
    next_funding: Timestamp
    timestamp: Timestamp


class EngineStatus(Frame, frozen=True):
    """One entry of `status`. `connection_id` may exceed int64; recordings contain a redacted text instead."""

    system: str
    connection_id: int | str | None = None
    version: str = ""
    api_version: str | None = None


class Pair(Frame, frozen=True):
    """One trading pair of `instrument`, with the decimals of its prices and quantities."""

    symbol: Symbol
    price_precision: Precision
    qty_precision: Precision


class Instruments(Frame, frozen=True):
    """The data of `instrument`, which is an object and not a list."""

    pairs: list[Pair]


class TickerFrame(Frame, frozen=True, tag_field="channel", tag="ticker", omit_defaults=True):
    """Quotes of the channel `ticker`."""

    type: str
    data: list[Quote]
    bad: BadEntries = NO_BAD_ENTRIES


class TradeFrame(Frame, frozen=True, tag_field="channel", tag="trade", omit_defaults=True):
    """Trades; one frame often contains several."""

    type: str
    data: list[Trade]
    bad: BadEntries = NO_BAD_ENTRIES


class BookFrame(Frame, frozen=True, tag_field="channel", tag="book", omit_defaults=True):
    """A snapshot or an update of the book."""

    type: str
    data: list[BookData]
    bad: BadEntries = NO_BAD_ENTRIES


class OhlcFrame(Frame, frozen=True, tag_field="channel", tag="ohlc", omit_defaults=True):
    """Candles of the channel `ohlc`."""

    type: str
    data: list[Candle]
    bad: BadEntries = NO_BAD_ENTRIES


class MarkPriceFrame(Frame, frozen=True, tag_field="channel", tag="mark_price", omit_defaults=True):
    """Mark prices of perpetual contracts. Kraken's spot markets have none; the log keeps them, and no event uses them yet."""

    type: str
    data: list[MarkPrice]
    bad: BadEntries = NO_BAD_ENTRIES


class StatusFrame(Frame, frozen=True, tag_field="channel", tag="status", omit_defaults=True):
    """The status of the exchange's engine, which is sent without a subscription."""

    data: list[EngineStatus]
    type: str = "update"
    bad: BadEntries = NO_BAD_ENTRIES


class InstrumentFrame(Frame, frozen=True, tag_field="channel", tag="instrument", omit_defaults=True):
    """Reference data of the trading pairs."""

    type: str
    data: Instruments
    bad: BadEntries = NO_BAD_ENTRIES


class HeartbeatFrame(Frame, frozen=True, tag_field="channel", tag="heartbeat"):
    """A sign that the connection works, sent after about a second without other frames."""


class Ack(Frame, frozen=True):
    """The channel and symbol that an answer to `subscribe` or `unsubscribe` confirms."""

    channel: str = ""
    symbol: str = ""


class Reply(Frame, frozen=True):
    """An answer to a request, or an error that does not answer a request (`{"Error": …}`)."""

    method: str = ""
    success: bool | None = None
    result: Ack | list[Ack] | None = None
    error: str | None = ""
    Error: str | None = ""
    symbol: str | None = ""
    req_id: int | None = None
    time_in: Timestamp | None = None
    time_out: Timestamp | None = None

    @property
    def acks(self) -> list[Ack]:
        """The confirmed subscriptions."""
        return self.result if isinstance(self.result, list) else [self.result] if self.result else []

    @property
    def refusal(self) -> str:
        """The error text if the exchange refused the request, else an empty string."""
        return self.error or self.Error or ("refused" if self.success is False else "")


KrakenFrame = TickerFrame | TradeFrame | BookFrame | OhlcFrame | StatusFrame | InstrumentFrame | HeartbeatFrame
ChannelFrame = KrakenFrame | MarkPriceFrame
AnyFrame = ChannelFrame | Reply

_channel_decoder: msgspec.json.Decoder[KrakenFrame] = msgspec.json.Decoder(KrakenFrame)
_reply_decoder: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Reply)
_object_decoder: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw])
_list_decoder: msgspec.json.Decoder[list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw])
_text_decoder: msgspec.json.Decoder[str] = msgspec.json.Decoder(str)
_LIST_FRAMES: Mapping[str, tuple[type[TickerFrame | TradeFrame | BookFrame | OhlcFrame | StatusFrame], Any]] = {
    "ticker": (TickerFrame, msgspec.json.Decoder(Quote)),
    "trade": (TradeFrame, msgspec.json.Decoder(Trade)),
    "book": (BookFrame, msgspec.json.Decoder(BookData)),
    "ohlc": (OhlcFrame, msgspec.json.Decoder(Candle)),
    "status": (StatusFrame, msgspec.json.Decoder(EngineStatus)),
}
"""By channel the frame whose data is a list, and the decoder of one entry."""
_pair_decoder = msgspec.json.Decoder(Pair)

KNOWN_CHANNELS = frozenset({"ticker", "trade", "book", "ohlc", "status", "instrument", "heartbeat"})


def decode(raw: bytes | str) -> AnyFrame:
    """Decode one frame. If only some of its entries are good, they are its data, and `bad` names the others.

    Raises `BadFrame` with the reason `malformed_json`, `not_an_object`, `unknown_channel`, `unknown_message` or
    `bad_field` (the message names the field that is missing or has the wrong type).
    """
    try:
        return _channel_decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        changed = without_leap_seconds(raw)
        if changed is not None:
            return decode(changed)
        fields = raw_fields(raw, error)
        if "channel" not in fields:
            return _decode_reply(raw, fields)
        frame = _decode_entries(fields)
        if frame is None:
            raise bad_channel_frame(fields["channel"], KNOWN_CHANNELS, error) from None
        return frame


_LEAP_SECOND = re.compile(rb"(T\d\d:\d\d):60(\.\d+)?")


def without_leap_seconds(raw: bytes | str) -> bytes | None:
    """Return a frame with every time in a leap second moved to the last microsecond before it; None if it has none.

    The decoder knows no second 60. The new time is in the order of the times around it, and in the right day.

    >>> without_leap_seconds(b'"2016-12-31T23:59:60.25Z"')
    b'"2016-12-31T23:59:59.999999Z"'
    """
    text = raw.encode(errors="surrogatepass") if isinstance(raw, str) else raw
    changed, times = _LEAP_SECOND.subn(rb"\1:59.999999", text)
    return changed if times else None


def _decode_entries(fields: dict[str, msgspec.Raw]) -> KrakenFrame | None:
    """The frame with those of its entries that can be decoded; None if there is none, or if another field is bad."""
    try:
        channel, kind = _text_decoder.decode(fields["channel"]), _text_decoder.decode(fields.get("type", b'"update"'))
        if channel == "instrument":
            data = _object_decoder.decode(fields["data"])
            pairs, bad = _good_entries(_list_decoder.decode(data["pairs"]), _pair_decoder)
            return InstrumentFrame(kind, Instruments(pairs), bad) if pairs else None
        if channel not in _LIST_FRAMES or ("type" not in fields and channel != "status"):
            return None
        frame_type, decoder = _LIST_FRAMES[channel]
        entries, bad = _good_entries(_list_decoder.decode(fields["data"]), decoder)
    except (KeyError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return frame_type(type=kind, data=entries, bad=bad) if entries else None


def _good_entries(entries: list[msgspec.Raw], decoder: msgspec.json.Decoder[Any]) -> tuple[list[Any], BadEntries]:
    good, bad = [], []
    for position, raw in enumerate(entries):
        try:
            good.append(decoder.decode(raw))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            bad.append(BadEntry(position, _symbol_in(raw), str(error)[:MAX_ENTRY_ERROR_CHARS]))
    return good, BadEntries(bad)


def _symbol_in(entry: msgspec.Raw) -> str:
    """The symbol of an entry that could not be decoded, or an empty string."""
    try:
        return msgspec.json.decode(entry, type=_Named).symbol
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


def _decode_reply(raw: bytes | str, fields: dict[str, msgspec.Raw]) -> Reply:
    """Decode a reply, which has no channel; raises `BadFrame` for anything else."""
    if not fields.keys() & {"method", "error", "Error"}:
        raise BadFrame(
            "unknown_message", f"the message is neither a channel frame nor a reply; keys {shown_keys(fields)}"
        )
    try:
        return _reply_decoder.decode(raw)
    except (UnicodeDecodeError, RecursionError) as error:
        raise BadFrame("malformed_json", str(error)) from None
    except msgspec.DecodeError as error:
        raise BadFrame("bad_field", f"reply: {error}") from None


def with_symbol(raw: bytes, symbol: str) -> bytes:
    """The frame with only the entries of one symbol, each with the text that the exchange sent.

    Raises `BadFrame` if the frame has no list of entries.
    """
    try:
        fields = _object_decoder.decode(raw)
        entries = [entry for entry in _list_decoder.decode(fields["data"]) if _symbol_in(entry) == symbol]
    except (KeyError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadFrame("bad_field", f"the frame cannot be divided by symbol: {error!r}") from None
    return msgspec.json.encode(fields | {"data": entries})


def shown_keys(fields: Mapping[str, object]) -> list[str]:
    """The first keys of a message, shortened for an error text."""
    return sorted(key[:MAX_SHOWN_KEY_CHARS] for key in list(fields)[:MAX_SHOWN_KEYS])


def raw_fields(raw: bytes | str | msgspec.Raw, cause: Exception) -> dict[str, msgspec.Raw]:
    """Return the undecoded fields of a frame that could not be decoded because of `cause`.

    Raises `BadFrame` when the frame is not a JSON object.
    """
    try:
        fields = _object_decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise BadFrame("not_an_object", str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadFrame("malformed_json", str(error)) from None
    if isinstance(cause, UnicodeDecodeError | RecursionError):
        raise BadFrame("malformed_json", str(cause)) from None
    return fields


def bad_channel_frame(tag: msgspec.Raw, known: frozenset[str], cause: Exception) -> BadFrame:
    """Return the error for a frame that could not be decoded: its channel is not in `known`, or a field is bad."""
    channel = bytes(tag).decode(errors="replace").strip('"')
    if channel not in known:
        return BadFrame("unknown_channel", f"the channel {channel[:64]!r} is unknown")
    return BadFrame("bad_field", f"{channel} frame: {str(cause)[:MAX_ENTRY_ERROR_CHARS]}")


def original_position(bad: BadEntries, index: int) -> int:
    """The position in its frame of the good entry with this index in the data of the frame.

    >>> original_position(BadEntries((BadEntry(0, "", ""), BadEntry(2, "", ""))), 1)
    3
    """
    for entry in bad:
        index += entry.position <= index
    return index


def timestamp_ns(timestamp: datetime | None, fallback_ns: int) -> int:
    """Return the exchange's time in ns, or `fallback_ns` (the receive time) if the exchange sent no time."""
    return fallback_ns if timestamp is None else to_ns(timestamp)
