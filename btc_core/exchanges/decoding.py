"""The frame and the events in a message of the log.

The log keeps every frame as it was received, with the name of its exchange. Every reader of the log decodes frames with
this module, so all readers get the same events and refuse the same entries. This module needs no client of an exchange.
What does not belong here: the checks of an entry (`market.events`), or requests to an exchange (`adapters`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from btc_core.errors import BadFrame
from btc_core.exchanges import binance_frames, coinbase_frames
from btc_core.market import frames
from btc_core.market.events import EVENT_CHANNELS, events_in
from btc_core.market.frames import (
    NO_BAD_ENTRIES,
    BadEntries,
    HeartbeatFrame,
    InstrumentFrame,
    Reply,
    StatusFrame,
    original_position,
)
from btc_core.names import qualified

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from btc_core.market.events import Event
    from btc_core.market.frames import AnyFrame, BadEntry
    from btc_core.market.messages import Envelope

COINBASE = "coinbase"
BINANCE, BINANCE_PERPETUAL = "binance", "binance-perp"
DECODERS: Mapping[str, Callable[[bytes | str], AnyFrame]] = {
    frames.KRAKEN: frames.decode,
    COINBASE: coinbase_frames.decode,
    BINANCE: binance_frames.decode_spot,
    BINANCE_PERPETUAL: binance_frames.decode_perpetual,
}
"""The decoder of each exchange's frames. A decoder raises `BadFrame`."""


def frame_of(envelope: Envelope) -> AnyFrame:
    """Decode the frame in an envelope; raises `BadFrame`.

    The symbols of an exchange that is not the home exchange are qualified here (`qualified_frame`), so that everything
    behind the log only sees symbols.
    """
    try:
        decode = DECODERS[envelope.exchange]
    except KeyError:
        message = f"there is no decoder for frames of the exchange {envelope.exchange[:32]!r}"
        raise BadFrame("unknown_exchange", message) from None
    frame = decode(envelope.raw)
    return qualified_frame(frame, envelope.exchange) if envelope.qualified else frame


def qualified_frame(frame: AnyFrame, exchange: str) -> AnyFrame:
    """Return the frame with symbols that name the exchange, also in the answer to a request and in entries that are bad."""
    if isinstance(frame, HeartbeatFrame):
        return frame
    if isinstance(frame, Reply):
        return _qualified_reply(frame, exchange)
    bad = BadEntries(_named(entry, exchange) for entry in frame.bad) if frame.bad else frame.bad
    if isinstance(frame, StatusFrame):
        return replace(frame, bad=bad)
    if isinstance(frame, InstrumentFrame):
        pairs = [_named(pair, exchange) for pair in frame.data.pairs]
        return replace(frame, data=replace(frame.data, pairs=pairs), bad=bad)
    return replace(frame, data=[_named(entry, exchange) for entry in frame.data], bad=bad)


def _qualified_reply(reply: Reply, exchange: str) -> Reply:
    acks = [_named(ack, exchange) for ack in reply.acks]
    symbol = reply.symbol and qualified(reply.symbol, exchange)
    return replace(reply, result=acks or None, symbol=symbol)


def _named(entry: Any, exchange: str) -> Any:
    """The entry with a qualified symbol; one without a symbol stays as it is."""
    return replace(entry, symbol=qualified(entry.symbol, exchange)) if entry.symbol else entry


def events_of(envelope: Envelope, frame: AnyFrame | None = None) -> Iterable[Event | BadFrame]:
    """Return the events of an envelope in order; nothing for a channel without events.

    An entry that cannot be decoded or that fails a check is returned as a `BadFrame`, and the other entries follow with
    their positions in the frame. Raises `BadFrame` if the frame as a whole cannot be decoded; `frame` is the decoded frame if
    the caller has it.
    """
    if envelope.channel not in EVENT_CHANNELS:
        return ()
    frame = frame_of(envelope) if frame is None else frame
    bad = NO_BAD_ENTRIES if isinstance(frame, HeartbeatFrame | Reply) else frame.bad
    events = events_in(frame, envelope.ts_recv_ns, envelope.clock_offset_ns)
    return _with_bad_entries(bad, events) if bad else events


def _with_bad_entries(bad: BadEntries, events: Iterable[Event | BadFrame]) -> Iterator[Event | BadFrame]:
    """The errors of the bad entries, and the events of the others with their positions in the frame."""
    yield from bad_entries(bad)
    for event in events:
        if isinstance(event, BadFrame):
            yield event
        else:
            yield replace(event, item=original_position(bad, event.item))


def bad_entries(bad: Iterable[BadEntry]) -> list[BadFrame]:
    """The error of each entry that could not be decoded, with its position in the frame."""
    return [BadFrame("bad_field", f"entry {entry.position}: {entry.error}") for entry in bad]
