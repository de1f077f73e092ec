"""The messages of each Kafka topic and their encoding.

What does not belong here: reading and writing topics (`stores.kafka`), or the use of a message (`streaming`).
"""

from __future__ import annotations

import math
from typing import Any, Literal, Self

import msgspec

from btc_core.clock import NS_PER_S
from btc_core.errors import BadFrame
from btc_core.horizons import DEFAULT_MIN
from btc_core.market.frames import KRAKEN
from btc_core.names import HORIZONS_MIN, LATE_FORECAST_S, QUANTILES


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """One frame as it was received, with everything that a replay needs."""

    ts_recv_ns: int
    connection: int
    """The number of the connection within one ingest process."""
    sequence: int
    """The number of the frame within its connection."""
    channel: str
    origin: str
    """Where the frame came from: `ws` (WebSocket), `rest` (REST API), `file` (recording) or `redrive` (sent again from
    the dead letters). A trade with the origin `rest` repairs a gap."""
    raw: bytes
    book_ok: bool | None = None
    """Whether the checksum of a book frame was correct; None for other channels."""
    exchange: str = KRAKEN
    """The exchange that sent the frame. Messages from before this field existed hold frames of Kraken."""
    clock_offset_ns: int | None = None
    """The exchange's clock minus ours when the frame was received; None if it had not been measured."""
    qualified: bool = False
    """Whether the exchange is not the home exchange. Every reader then sees its symbols with its name
    (`BTC/USDT@binance-perp`), also after another exchange became the home exchange."""
    conflated: bool = False
    """Whether this quote replaced older ones that did not reach the log, because Kafka or the disk could not take them."""


class RowId(msgspec.Struct, frozen=True, gc=False):
    """The event that a row was computed from: its market, its times and its position in the log.

    Every row of an event contains these fields, on a topic, in Redis and in a table.
    """

    symbol: str
    ts_event_ns: int
    """The time at the exchange."""
    ts_recv_ns: int
    """The time at which ingest received the frame."""
    partition: int
    """The partition of `market.events`."""
    offset: int
    """The offset in the partition."""
    item: int
    """The position of the entry in the frame."""


class FeatureId(RowId, frozen=True, gc=False):
    """The event that a feature row was computed from, with its kind."""

    kind: int
    """`events.QUOTE` or `events.TRADE`."""

    @classmethod
    def of(cls, other: FeatureId, *more: Any) -> Self:
        """Return a row of this class for the event of another row; `more` are the fields that this class adds."""
        return cls(
            other.symbol, other.ts_event_ns, other.ts_recv_ns, other.partition, other.offset, other.item, other.kind, *more
        )  # fmt: skip


class FeatureMessage(FeatureId, frozen=True, array_like=True, gc=False):
    """One feature row on the topic `features`, as msgpack."""

    feature_version: str
    values: bytes
    """All features as little-endian float64 in the order of `features.catalogue.FEATURE_NAMES`. Encoding a list of
    numbers would cost five times as much."""
    open_gaps: int = 0
    """The number of gaps in the trade ids that were open when the row was made."""
    conflated: bool = False
    """Whether the newest quote before the row replaced older ones that did not reach the log."""
    clock_offset_ns: int = 0
    """The exchange's clock minus ours when the frame was received; 0 if it had not been measured."""
    user_version: str = ""
    """The version of the user's own features; empty if there are none."""
    user_end_ns: int = 0
    """The end of the newest closed minute before the row."""
    user_values: bytes = b""
    """The user's features at that close as little-endian float64, in the order of their names."""


QualityWord = Literal["good", "degraded", "poor"]
"""How far a forecast can be trusted. `models.quality` has the rules."""
Regime = Literal["low", "normal", "high"]
"""The volatility regime of a market. `models.regimes` has the rule."""


class Quality(msgspec.Struct, frozen=True, array_like=True):
    """The quality of a forecast when it was made: one word, the reasons for it, and what was measured."""

    word: QualityWord
    reasons: tuple[str, ...]
    """Codes of `models.quality.LIMITS`; empty for `good`."""
    open_gaps: int
    """Gaps in the trade ids."""
    conflated: bool
    """Whether older quotes were left out before the newest one."""
    quote_age_s: float | None
    """The age of the newest quote in the features; None after a day without one."""
    trade_age_s: float | None
    """The age of the newest trade in the features; None after a day without one."""
    book_age_s: float | None
    """The age of the newest frame of the order book; None if the book is unknown."""
    bars_age_s: float | None
    """The time since the end of the newest minute with a price; None if no minute is known."""
    feed_latency_s: float
    """From the newest event at the exchange to its receipt, corrected by the measured offset of the clocks."""
    delay_s: float
    """From the receipt of the newest event to the forecast."""
    outside: float | None
    """How far the input that is farthest outside the training data lies outside, in widths of its range there; 0 if every
    input lies inside, None if the model does not know the ranges."""
    farthest_input: str | None
    """The input that is farthest outside; None if none is."""
    outcomes: int
    """The number of recent outcomes in `regime`, or of all if that is None."""
    bid_coverage_90: float | None
    """The share of them in which the 90 % interval contained the bid; None without outcomes."""
    volatility_coverage_90: float | None
    """The share of them in which the 90 % interval contained the volatility; None without outcomes."""
    regime: Regime | None = None
    """The volatility regime of the forecast, whose outcomes are counted; None if it has too few, and in messages from before this
    field."""


class ForecastRow(RowId, frozen=True):
    """One forecast on the topic `predictions`, as a msgpack map. A path has a value for each horizon."""

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
    """For each horizon the bounds of the intervals: `names.QUANTILES`, ascending. NaN stands for a bound that is not known."""
    sigma_bounds_bps: list[list[float]] = []
    """For each horizon the bounds of the realized volatility, in the order of `bid_bounds_usd`."""
    quality: Quality | None = None
    """None in forecasts from before this field, and in those that are computed again."""
    horizons_min: tuple[int, ...] | msgspec.UnsetType = msgspec.UNSET
    """The horizons; a message with the default ones has no such field."""

    @property
    def is_of_these_horizons(self) -> bool:
        """Whether it has the horizons of this process."""
        return (DEFAULT_MIN if self.horizons_min is msgspec.UNSET else self.horizons_min) == HORIZONS_MIN

    def with_all_levels(self) -> ForecastRow:
        """The same forecast; one from before the wider levels gets unknown bounds for them."""
        missing = len(QUANTILES) - len(self.bid_bounds_usd[0]) if self.bid_bounds_usd else 0
        if missing <= 0:
            return self
        unknown = [math.nan] * (missing // 2)
        bids, sigmas = (
            [[*unknown, *bounds, *unknown] for bounds in paths]
            for paths in (self.bid_bounds_usd, self.sigma_bounds_bps)
        )
        return msgspec.structs.replace(self, bid_bounds_usd=bids, sigma_bounds_bps=sigmas)

    @property
    def is_late(self) -> bool:
        """Whether it was made more than `LATE_FORECAST_S` after the receipt of its row."""
        return self.made_at_ns - self.ts_recv_ns > LATE_FORECAST_S * NS_PER_S


class AbsentTrades(msgspec.Struct, frozen=True):
    """Missing trade ids that the exchange does not have. JSON in the `raw` of an envelope with the channel `absent`."""

    symbol: str
    first_id: int
    last_id: int
    before_ns: int | None = None
    """The `before_ns` of the gap that the ids belong to; None stands for every gap. Two numberings may have the same ids."""


class GapNotice(msgspec.Struct, frozen=True):
    """A gap in the trade ids of a symbol and its state. JSON on the topic `gaps`."""

    symbol: str
    first_id: int
    last_id: int
    state: str
    """`open`, `repaired`, `absent` or `withdrawn`."""
    after_ns: int
    """The exchange time of the last trade before the gap."""
    before_ns: int
    """The exchange time of the first trade after the gap."""
    seen_ns: int
    """The receive time of the first trade after the gap."""
    between_epochs: bool = False
    """Whether another numbering of ids began, so that most of the ids were never used."""


class DeadLetter(msgspec.Struct, frozen=True):
    """A message that a process refused, with the reason. JSON on the topic `deadletters`."""

    reason: str
    message: str
    ts_ns: int
    source: str
    """The process that refused the message."""
    topic: str = ""
    partition: int = -1
    offset: int = -1
    raw: bytes = b""
    """The refused bytes; only the first of them if the message was very large."""
    size_bytes: int = 0
    """The size of the whole message."""
    exchange: str = ""
    """The exchange that sent a frame which never reached the log; an empty string in other letters and in older ones."""


def decode_absent(envelope: Envelope) -> AbsentTrades:
    """Decode an envelope of the channel `absent`; raises `BadFrame` (`bad_envelope`)."""
    try:
        absent = msgspec.json.decode(envelope.raw, type=AbsentTrades)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadFrame("bad_envelope", f"absent trades: {error}") from None
    if not 0 < absent.first_id <= absent.last_id:
        raise BadFrame("bad_envelope", f"absent trades: {absent.first_id} to {absent.last_id} is no range of ids")
    return absent


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Envelope] = msgspec.msgpack.Decoder(Envelope)


def encode_envelope(envelope: Envelope) -> bytes:
    """Encode an envelope as the value of a message on `market.events`."""
    return _encoder.encode(envelope)


def decode_envelope(value: bytes) -> Envelope:
    """Decode the value of a message on `market.events`; raises `BadFrame` (`bad_envelope`) if it is not an envelope."""
    try:
        return _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadFrame("bad_envelope", str(error)) from None
