"""What a message of the log holds, topic by topic, and how it is encoded.

What does not belong here: reading and writing topics (`stores.kafka`), or what a worker does with a message (`streaming`).
"""

from __future__ import annotations

from typing import Any, Self

import msgspec

from btc_core.errors import BadFrame
from btc_core.market.frames import KRAKEN


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """One frame as received, with everything needed to replay it."""

    ts_recv_ns: int
    connection: int
    """Counts the connections of one ingest process."""
    sequence: int
    """Counts the frames of one connection."""
    channel: str
    origin: str
    """`ws` from the socket, `rest` fetched, `file` replayed, `redrive` sent again from the dead letters.
    A trade from REST was missing and is repaired."""
    raw: bytes
    book_ok: bool | None = None
    """Whether the checksum of a book frame matched; None for other channels."""
    exchange: str = KRAKEN
    """Whose frame `raw` is; Kraken's was the first and only one for a time."""


class RowId(msgspec.Struct, frozen=True, gc=False):
    """Which event a row was computed at: its market, its times, and its place in the log.

    Every row that is made of an event, on a topic, in Redis or in a table, carries this.
    """

    symbol: str
    ts_event_ns: int
    """Exchange time."""
    ts_recv_ns: int
    """When ingest received the frame."""
    partition: int
    """Of `market.events`, as `offset`."""
    offset: int
    item: int
    """Position in the frame."""


class FeatureId(RowId, frozen=True, gc=False):
    """The same of a feature row."""

    kind: int
    """`features.state.QUOTE` or `TRADE`."""

    @classmethod
    def of(cls, other: FeatureId, *more: Any) -> Self:
        """A row of this class at the event of another row; `more` are the fields that this class adds."""
        return cls(
            other.symbol, other.ts_event_ns, other.ts_recv_ns, other.partition, other.offset, other.item, other.kind, *more
        )  # fmt: skip


class FeatureMessage(FeatureId, frozen=True, array_like=True, gc=False):
    """One feature row on the topic `features`, as msgpack."""

    feature_version: str
    values: bytes
    """float64, little-endian, in the order of `features.FEATURE_NAMES`: a fifth of the cost of a list of numbers."""


class ForecastRow(RowId, frozen=True):
    """One forecast on the topic `predictions`, as msgpack by field; its paths lie 1…5 minutes ahead of `ts_event_ns`."""

    made_at_ns: int
    bid: float
    bid_path_usd: list[float]
    sigma_path_bps: list[float]
    baseline_sigma_path_bps: list[float]
    bid_model_version: str
    bid_model_kind: str
    volatility_model_version: str
    volatility_model_kind: str
    feature_version: str
    bid_bounds_usd: list[list[float]] = []
    """Per horizon the bounds of its 90, 80 and 50 % intervals, ascending: quantiles 5, 10, 25, 75, 90 and 95 %."""
    sigma_bounds_bps: list[list[float]] = []
    """The same of the realized volatility."""


class Absent(msgspec.Struct, frozen=True):
    """Trade ids that the exchange does not have either, as the `raw` of an envelope of the channel `absent`."""

    symbol: str
    first_id: int
    last_id: int


class GapNotice(msgspec.Struct, frozen=True):
    """A gap in the trade ids of a symbol, or what became of it. JSON on the topic `gaps`."""

    symbol: str
    first_id: int
    last_id: int
    state: str
    """`open`, `repaired` or `absent`."""
    after_ns: int
    """Exchange time of the last trade before it."""
    before_ns: int
    """Exchange time of the trade that showed it."""
    seen_ns: int
    """When that trade was received."""


class DeadLetter(msgspec.Struct, frozen=True):
    """What could not be used, why, and where it came from. JSON on the topic."""

    reason: str
    message: str
    ts_ns: int
    source: str
    """The process that refused it."""
    topic: str = ""
    partition: int = -1
    offset: int = -1
    raw: bytes = b""
    """The first of `size_bytes`; all of them unless it was huge."""
    size_bytes: int = 0


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Envelope] = msgspec.msgpack.Decoder(Envelope)


def encode_envelope(envelope: Envelope) -> bytes:
    """The value of a message on `market.events`."""
    return _encoder.encode(envelope)


def decode_envelope(value: bytes) -> Envelope:
    """Read a message of `market.events`; raises `BadFrame` (`bad_envelope`) for anything else."""
    try:
        return _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadFrame("bad_envelope", str(error)) from None
