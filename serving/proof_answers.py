"""The bodies of the answers about proofs of forecasts.

What does not belong here: the other bodies (`answers`), and how a root comes about (`btc_core.days.forecast_roots`).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

ProofStatus: TypeAlias = Literal["proven", "open", "late", "unproven"]


class Root(msgspec.Struct, frozen=True):
    """The Merkle root of a closed hour or day."""

    period: Literal["hour", "day"]
    begin: str
    root: str
    """SHA-256 root of the tree (RFC 6962), hexadecimal."""
    leaves: int
    """Leaves of the tree with its header, which is the first."""
    header: str
    """The entry of the first leaf: JSON with the root that was made before, the models, the log, and late forecasts."""
    closed_at: str


class Roots(msgspec.Struct, frozen=True):
    """The roots of a market in a time, oldest first."""

    symbol: str
    window_from: str = msgspec.field(name="from")
    window_to: str = msgspec.field(name="to")
    roots: tuple[Root, ...]
    simulated: bool


class HourProof(msgspec.Struct, frozen=True):
    """Where a forecast is in the tree of its hour."""

    root: Root
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
    index: int
    siblings: tuple[str, ...]
    header_siblings: tuple[str, ...]


class ForecastProof(msgspec.Struct, frozen=True):
    """The proof of the forecast that was in force at a time."""

    symbol: str
    made_at: str
    ts_event: str
    place: str
    """Partition, offset and item of the frame in the log, joined by colons."""
    status: ProofStatus
    """Whether it is in the root of its hour, its hour is not closed yet, it came too late for the root, or its row was
    changed or added after the hour had been closed."""
    late_in: str | None
    """The hour in whose header it is listed as late."""
    hour: HourProof | None
    day: DayProof | None
    simulated: bool


class PastPath(msgspec.Struct, frozen=True):
    """A forecast of a past moment: as it was, or as it would have been."""

    name: str
    """`as it was`, or what is different."""
    bid_usd: tuple[float | None, ...]
    """The bid at each horizon."""
    sigma_bps: tuple[float | None, ...]
    """The volatility over each horizon."""
    volatility_kind: str
    volatility_version: str


class PastMoment(msgspec.Struct, frozen=True):
    """The forecast that was in force at a time, computed again from what is stored."""

    symbol: str
    made_at: str
    ts_event: str
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
    simulated: bool
