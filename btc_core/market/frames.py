"""The frames of every channel we read, as frozen structs: those of Kraken's WebSocket v2, as they are on the wire.

`decode` turns one frame's bytes into one struct or raises `BadFrame` with a stable reason; adapters make the same
structs of the frames of other exchanges (`exchange`). Numbers whose identity
matters (trade prices, book levels) are decimals with the digits of the wire; ticker numbers are float64, whose
shortest repr is the wire text up to 15 significant digits.

What does not belong here: what the numbers mean (`events`), or how the book is kept (`book`).
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated

import msgspec

from btc_core.clock import to_ns
from btc_core.errors import BadFrame

KRAKEN = "kraken"
Moment = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time that says its zone: one that does not is a bad field, not a guess."""


Symbol = Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
Crc = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]


class Frame(msgspec.Struct, frozen=True, gc=False):
    """What every channel frame is."""


class Quote(Frame, frozen=True):
    """One entry of `ticker`: best bid and ask, and the rolling 24-hour figures."""

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
    timestamp: Moment | None = None


class Trade(Frame, frozen=True):
    """One entry of `trade`; `side` is the taker's, `trade_id` is gapless per symbol."""

    symbol: Symbol
    side: str
    price: Decimal
    qty: Decimal
    ord_type: str
    trade_id: int
    timestamp: Moment


class Level(Frame, frozen=True):
    """One price level; a quantity of zero deletes it."""

    price: Decimal
    qty: Decimal


class BookData(Frame, frozen=True):
    """One entry of `book`; the checksum covers the ten best levels of each side after the update."""

    symbol: Symbol
    bids: list[Level]
    asks: list[Level]
    checksum: Crc
    timestamp: Moment | None = None


class Candle(Frame, frozen=True):
    """One entry of `ohlc`; open until `interval` minutes after `interval_begin`."""

    symbol: Symbol
    open: float
    high: float
    low: float
    close: float
    volume: float
    interval_begin: Moment
    interval: int
    trades: int = 0
    vwap: float = 0.0
    timestamp: Moment | None = None


class EngineStatus(Frame, frozen=True):
    """One entry of `status`. `connection_id` exceeds int64 and is redacted in recordings."""

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
    """`instrument` data: an object, not a list."""

    pairs: list[Pair]


class TickerFrame(Frame, frozen=True, tag_field="channel", tag="ticker"):
    """Quotes."""

    type: str
    data: list[Quote]


class TradeFrame(Frame, frozen=True, tag_field="channel", tag="trade"):
    """Trades; several a frame are normal."""

    type: str
    data: list[Trade]


class BookFrame(Frame, frozen=True, tag_field="channel", tag="book"):
    """A book snapshot or update."""

    type: str
    data: list[BookData]


class OhlcFrame(Frame, frozen=True, tag_field="channel", tag="ohlc"):
    """Candles."""

    type: str
    data: list[Candle]


class StatusFrame(Frame, frozen=True, tag_field="channel", tag="status"):
    """Engine status, unsolicited."""

    data: list[EngineStatus]
    type: str = "update"


class InstrumentFrame(Frame, frozen=True, tag_field="channel", tag="instrument"):
    """Reference data."""

    type: str
    data: Instruments


class HeartbeatFrame(Frame, frozen=True, tag_field="channel", tag="heartbeat"):
    """Nothing else flowed for about a second."""


class Ack(Frame, frozen=True):
    """What an answer to `subscribe` or `unsubscribe` carries."""

    channel: str = ""
    symbol: str = ""


class Reply(Frame, frozen=True):
    """An answer to a request, or an error that answers none (`{"Error": …}`)."""

    method: str = ""
    success: bool | None = None
    result: Ack | list[Ack] | None = None
    error: str = ""
    Error: str = ""
    symbol: str = ""
    req_id: int | None = None
    time_in: Moment | None = None
    time_out: Moment | None = None

    @property
    def acks(self) -> list[Ack]:
        """What is subscribed now."""
        return self.result if isinstance(self.result, list) else [self.result] if self.result else []

    @property
    def refusal(self) -> str:
        """The exchange's words when it refused, else an empty string."""
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
    `bad_field` (a field missing or of the wrong type, named in the message).
    """
    try:
        return _channel_decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _decode_other(raw, error)


def _decode_other(raw: bytes | str, error: Exception) -> Reply:
    """The slow way: a reply without a channel, or a frame that cannot be used and why."""
    keys = keys_of(raw, error)
    if "channel" in keys:
        raise unusable(keys["channel"], KNOWN_CHANNELS, error)
    if not keys.keys() & {"method", "error", "Error"}:
        raise BadFrame("unknown_message", f"neither a channel nor a reply; keys {sorted(keys)[:8]}")
    try:
        return _reply_decoder.decode(raw)
    except (UnicodeDecodeError, RecursionError) as problem:
        raise BadFrame("malformed_json", str(problem)) from None
    except msgspec.DecodeError as problem:
        raise BadFrame("bad_field", f"reply: {problem}") from None


def keys_of(raw: bytes | str, error: Exception) -> dict[str, msgspec.Raw]:
    """What is in a frame that could not be decoded because of `error`; raises `BadFrame` when it is no object."""
    try:
        keys = _object_decoder.decode(raw)
    except msgspec.ValidationError as problem:
        raise BadFrame("not_an_object", str(problem)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise BadFrame("malformed_json", str(problem)) from None
    if isinstance(error, UnicodeDecodeError | RecursionError):
        raise BadFrame("malformed_json", str(error)) from None
    return keys


def unusable(tag: msgspec.Raw, known: frozenset[str], error: Exception) -> BadFrame:
    """Why the frame of a channel cannot be used: it is not one of the `known`, or has a bad field."""
    channel = bytes(tag).decode(errors="replace").strip('"')
    if channel not in known:
        return BadFrame("unknown_channel", f"channel {channel[:64]!r} is not one we know")
    return BadFrame("bad_field", f"{channel} frame: {error}")


def timestamp_ns(moment: datetime | None, fallback_ns: int) -> int:
    """The exchange's time in ns, or `fallback_ns` (the receive time) where the exchange sent none."""
    return fallback_ns if moment is None else to_ns(moment)
