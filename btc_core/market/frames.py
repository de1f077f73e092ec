"""The frames of every channel that the project reads, as frozen structs in the form of Kraken's WebSocket v2.

`decode` turns the bytes of one frame into one struct, or raises `BadFrame` with a stable reason. The frames of other
exchanges are converted to the same structs (`exchanges.decoding`). Numbers that must be exact (trade prices, book
levels) are decimals with the digits of the wire. Ticker numbers are float64, whose shortest text equals the text on the
wire up to 15 significant digits.

What does not belong here: checks of the values (`events`), or keeping the book (`book`).
"""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from typing import Annotated

import msgspec

from btc_core.clock import to_ns
from btc_core.errors import BadFrame

KRAKEN = "kraken"
Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time with its zone. A time without a zone is refused as a bad field."""
Symbol = Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
Crc32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]


class Frame(msgspec.Struct, frozen=True, gc=False):
    """The base class of frames and of their parts."""


class Quote(Frame, frozen=True):
    """One entry of `ticker`: the best bid and ask, and figures of the last 24 hours."""

    symbol: Symbol
    bid: float
    bid_qty: float
    ask: float
    ask_qty: float
    last: float
    volume: float
    vwap: float
    low: float
    high: float
    change: float
    change_pct: float
    timestamp: Timestamp | None = None


class Trade(Frame, frozen=True):
    """One entry of `trade`. `side` is the taker's side; `trade_id` counts the trades of a symbol without gaps."""

    symbol: Symbol
    side: str
    price: Decimal
    qty: Decimal
    ord_type: str
    trade_id: int
    timestamp: Timestamp


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
    trades: int = 0
    vwap: float = 0.0
    timestamp: Timestamp | None = None


class EngineStatus(Frame, frozen=True):
    """One entry of `status`. `connection_id` may exceed int64; recordings contain a redacted text instead."""

    system: str
    connection_id: int | str = ""
    version: str = ""
    api_version: str = ""


class Pair(Frame, frozen=True):
    """One trading pair of `instrument`."""

    symbol: Symbol
    status: str
    price_precision: int
    qty_precision: int
    price_increment: float = 0.0
    qty_min: float = 0.0


class Instruments(Frame, frozen=True):
    """The data of `instrument`, which is an object and not a list."""

    pairs: list[Pair]


class TickerFrame(Frame, frozen=True, tag_field="channel", tag="ticker"):
    """Quotes of the channel `ticker`."""

    type: str
    data: list[Quote]


class TradeFrame(Frame, frozen=True, tag_field="channel", tag="trade"):
    """Trades; one frame often contains several."""

    type: str
    data: list[Trade]


class BookFrame(Frame, frozen=True, tag_field="channel", tag="book"):
    """A snapshot or an update of the book."""

    type: str
    data: list[BookData]


class OhlcFrame(Frame, frozen=True, tag_field="channel", tag="ohlc"):
    """Candles of the channel `ohlc`."""

    type: str
    data: list[Candle]


class StatusFrame(Frame, frozen=True, tag_field="channel", tag="status"):
    """The status of the exchange's engine, which is sent without a subscription."""

    data: list[EngineStatus]
    type: str = "update"


class InstrumentFrame(Frame, frozen=True, tag_field="channel", tag="instrument"):
    """Reference data of the trading pairs."""

    type: str
    data: Instruments


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
    error: str = ""
    Error: str = ""
    symbol: str = ""
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


ChannelFrame = TickerFrame | TradeFrame | BookFrame | OhlcFrame | StatusFrame | InstrumentFrame | HeartbeatFrame
AnyFrame = ChannelFrame | Reply

_channel_decoder: msgspec.json.Decoder[ChannelFrame] = msgspec.json.Decoder(ChannelFrame)
_reply_decoder: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Reply)
_object_decoder: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw])

KNOWN_CHANNELS = frozenset({"ticker", "trade", "book", "ohlc", "status", "instrument", "heartbeat"})


def decode(raw: bytes | str) -> AnyFrame:
    """Decode one frame.

    Raises `BadFrame` with the reason `malformed_json`, `not_an_object`, `unknown_channel`, `unknown_message` or
    `bad_field` (the message names the field that is missing or has the wrong type).
    """
    try:
        return _channel_decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        changed = without_leap_seconds(raw)
        return _decode_reply(raw, error) if changed is None else decode(changed)


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


def _decode_reply(raw: bytes | str, channel_error: Exception) -> Reply:
    """Decode a reply, which has no channel; raises `BadFrame` for anything else."""
    fields = raw_fields(raw, channel_error)
    if "channel" in fields:
        raise bad_channel_frame(fields["channel"], KNOWN_CHANNELS, channel_error)
    if not fields.keys() & {"method", "error", "Error"}:
        raise BadFrame(
            "unknown_message", f"the message is neither a channel frame nor a reply; keys {sorted(fields)[:8]}"
        )
    try:
        return _reply_decoder.decode(raw)
    except (UnicodeDecodeError, RecursionError) as error:
        raise BadFrame("malformed_json", str(error)) from None
    except msgspec.DecodeError as error:
        raise BadFrame("bad_field", f"reply: {error}") from None


def raw_fields(raw: bytes | str, cause: Exception) -> dict[str, msgspec.Raw]:
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
    return BadFrame("bad_field", f"{channel} frame: {cause}")


def timestamp_ns(timestamp: datetime | None, fallback_ns: int) -> int:
    """Return the exchange's time in ns, or `fallback_ns` (the receive time) if the exchange sent no time."""
    return fallback_ns if timestamp is None else to_ns(timestamp)
