"""The frame and the events in a message of the log.

The log keeps every frame as it was received, with the name of its exchange. Every reader of the log decodes frames with
this module, so all readers get the same events and refuse the same entries. This module needs no client of an exchange.
What does not belong here: the checks of an entry (`market.events`), or requests to an exchange (`adapters`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from btc_core.errors import BadFrame
from btc_core.exchanges import binance_frames, coinbase_frames
from btc_core.market import frames
from btc_core.market.events import EVENT_CHANNELS, events_in
from btc_core.market.frames import NO_BAD_ENTRIES, HeartbeatFrame, Reply, original_position

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
    """Decode the frame in an envelope; raises `BadFrame`."""
    try:
        decode = DECODERS[envelope.exchange]
    except KeyError:
        message = f"there is no decoder for frames of the exchange {envelope.exchange[:32]!r}"
        raise BadFrame("unknown_exchange", message) from None
    return decode(envelope.raw)


def events_of(envelope: Envelope) -> Iterator[Event | BadFrame]:
    """Yield the events of an envelope in order; nothing for a channel without events.

    An entry that cannot be decoded or that fails a check is yielded as a `BadFrame`, and the other entries follow with
    their positions in the frame. Raises `BadFrame` if the frame as a whole cannot be decoded.
    """
    if envelope.channel not in EVENT_CHANNELS:
        return
    frame = frame_of(envelope)
    bad = NO_BAD_ENTRIES if isinstance(frame, HeartbeatFrame | Reply) else frame.bad
    if not bad:
        yield from events_in(frame, envelope.ts_recv_ns, envelope.clock_offset_ns or 0)
        return
    yield from bad_entries(bad)
    for event in events_in(frame, envelope.ts_recv_ns, envelope.clock_offset_ns or 0):
        if isinstance(event, BadFrame):
            yield event
        else:
            yield msgspec.structs.replace(event, item=original_position(bad, event.item))


def bad_entries(bad: Iterable[BadEntry]) -> list[BadFrame]:
    """The error of each entry that could not be decoded, with its position in the frame."""
    return [BadFrame("bad_field", f"entry {entry.position}: {entry.error}") for entry in bad]
