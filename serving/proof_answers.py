"""The bodies of the answers about proofs of forecasts.

What does not belong here: the other bodies (`answers`), and how a root comes about (`btc_core.days.forecast_roots`).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from serving.utc_time import UtcTime

ProofStatus: TypeAlias = Literal["proven", "open", "late", "unproven"]


class Root(msgspec.Struct, frozen=True):
    """The Merkle root of a closed hour or day."""

    period: Literal["hour", "day"]
    """Whether it is the root of an hour or of a day."""
    begin: UtcTime
    """Begin of the hour or day."""
    root: str
    """SHA-256 root of the tree (RFC 6962), hexadecimal."""
    leaves: int
    """Leaves of the tree with its header, which is the first."""
    header: str
    """The entry of the first leaf: JSON with the root that was made before, the models, the log, and late forecasts."""
    closed_at: UtcTime
    """When the tree was closed and the root was made."""


class Roots(msgspec.Struct, frozen=True):
    """The roots of a market in a time, oldest first."""

    symbol: str
    """Market, such as BTC/USD."""
    window_from: UtcTime = msgspec.field(name="from")
    """Begin of the time."""
    window_to: UtcTime = msgspec.field(name="to")
    """End of the time, which is not part of it."""
    roots: tuple[Root, ...]
    """The roots of hours and days."""
    simulated: bool
    """True if the market is made up by the simulator."""


class HourProof(msgspec.Struct, frozen=True):
    """Where a forecast is in the tree of its hour."""

    root: Root
    """The root of the hour."""
    leaf: str
    """The leaf hash of the forecast, hexadecimal."""
    index: int
    """Its place among the leaves; the header is at 0."""
    siblings: tuple[str, ...]
    """The hashes beside the path from the leaf to the root, from the bottom to the top."""
    header_siblings: tuple[str, ...]
    """The same for the header."""


class DayProof(msgspec.Struct, frozen=True):
    """Where the root of an hour is in the tree of its day."""

    root: Root
    """The root of the day."""
    index: int
    """Place of the hour's root among the leaves; the header is at 0."""
    siblings: tuple[str, ...]
    """The hashes beside the path from the hour's root to the root of the day, from the bottom to the top."""
    header_siblings: tuple[str, ...]
    """The same for the header."""


class ForecastProof(msgspec.Struct, frozen=True):
    """The proof of the forecast that was in force at a time."""

    symbol: str
    """Market, such as BTC/USD."""
    made_at: UtcTime
    """When the forecast was made."""
    ts_event: UtcTime
    """Exchange time of the newest event behind it."""
    place: str
    """Partition, offset and item of the frame in the log, joined by colons."""
    status: ProofStatus
    """Whether it is in the root of its hour, its hour is not closed yet, it came too late for the root, or its row was
    changed or added after the hour had been closed."""
    late_in: str | None
    """The hour in whose header it is listed as late."""
    hour: HourProof | None
    """Where it is in the tree of its hour; null unless it is proven."""
    day: DayProof | None
    """Where that hour is in the tree of its day; null while the day is not closed."""
    simulated: bool
    """True if the market is made up by the simulator."""


class PastPath(msgspec.Struct, frozen=True):
    """A forecast of a past moment: as it was, or as it would have been."""

    name: str
    """`as it was`, or what is different."""
    bid_usd: tuple[float | None, ...]
    """The bid at each horizon."""
    sigma_bps: tuple[float | None, ...]
    """The volatility over each horizon."""
    volatility_kind: str
    """Kind of the model of the volatility: `xgboost`, or the name of a baseline."""
    volatility_version: str
    """Its version in the registry."""


class BookLevels(msgspec.Struct, frozen=True):
    """An order book: price and quantity of each level, best first."""

    received_at: UtcTime
    """When its last frame was received."""
    bids: tuple[tuple[float, float], ...]
    """Offers to buy, the highest price first."""
    asks: tuple[tuple[float, float], ...]
    """Offers to sell, the lowest price first."""


class PastMoment(msgspec.Struct, frozen=True):
    """The forecast that was in force at a time, computed again from what is stored."""

    symbol: str
    """Market, such as BTC/USD."""
    made_at: UtcTime
    """When the forecast was made."""
    ts_event: UtcTime
    """Exchange time of the newest event behind it."""
    equals_stored: bool
    """Whether the stored forecast is equal to the last bit."""
    features: dict[str, float | None]
    """The feature row by name, with bid, ask and their quantities; `/v1/features/order` has units."""
    forecasts: tuple[PastPath, ...]
    """The forecast as it was, then those that were asked for."""
    log_variance: float | None
    """The explanation: ln of the variance over the longest horizon, before the online level."""
    harx: float | None
    """What HARX adds to it."""
    net: float | None
    """What the net's correction adds to it."""
    trees: dict[str, float]
    """What each input adds through the trees, largest effect first."""
    book: BookLevels | None
    """The order book of the moment, if it was asked for."""
    simulated: bool
    """True if the market is made up by the simulator."""
    user_model: str | None = None
    """The user's model that forecast the volatility: its name, its file and its fit. Its code is not run, so σ is the stored one,
    and the explanation and forecasts without inputs are those of its stand-in. Null for all other forecasts."""
