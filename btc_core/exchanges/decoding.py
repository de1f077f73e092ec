"""What a message of the log means: the frame in it, and the events in the frame.

The log keeps every frame as it was received, with the name of its exchange. Every reader of the log decodes frames
here, so all of them see the same events and refuse the same entries. This module needs no client of any exchange.
What does not belong here: the checks of an entry (`market.events`), or requests to an exchange (`adapters`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from btc_core.errors import BadFrame
from btc_core.exchanges import coinbase_frames
from btc_core.market import frames
from btc_core.market.events import EVENT_CHANNELS, events_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from btc_core.market.events import Event
    from btc_core.market.frames import AnyFrame
    from btc_core.market.messages import Envelope

COINBASE = "coinbase"
DECODERS: Mapping[str, Callable[[bytes | str], AnyFrame]] = {
    frames.KRAKEN: frames.decode,
    COINBASE: coinbase_frames.decode,
}
"""The decoder of each exchange's frames. A decoder raises `BadFrame`."""


def frame_of(envelope: Envelope) -> AnyFrame:
    """The frame in an envelope; raises `BadFrame`."""
    try:
        decode = DECODERS[envelope.exchange]
    except KeyError:
        words = f"a frame of {envelope.exchange[:32]!r}, which has no adapter here"
        raise BadFrame("unknown_exchange", words) from None
    return decode(envelope.raw)


def events_of(envelope: Envelope) -> Iterator[Event | BadFrame]:
    """The events of an envelope in order; an entry that cannot be used comes as its `BadFrame`, and the others follow.

    Raises `BadFrame` when the frame as a whole cannot be read. A channel without events gives none.
    """
    if envelope.channel in EVENT_CHANNELS:
        yield from events_in(frame_of(envelope), envelope.ts_recv_ns)
