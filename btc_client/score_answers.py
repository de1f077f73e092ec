"""The answers about how good forecasts were, and their proofs: the league, live skill, and Merkle roots.

What does not belong here: live forecasts, models and markets (`answers`), and the checking of a proof (`btc verify`).
"""

from __future__ import annotations

from typing import Literal

import msgspec


class GateOfEntry(msgspec.Struct, frozen=True):
    """What the gate for another recipe would say about an entry, from the last 28 days."""

    would_pass: bool
    reason: str
    """The rules with their figures: those that are broken, or all if none is."""


class LeagueRow(msgspec.Struct, frozen=True):
    """The champion, a baseline or a user's model. All scores are of the volatility over the longest horizon."""

    rank: int | None
    """Place by `ratio`, 1 is best; None with less than an hour of forecasts."""
    name: str
    kind: Literal["champion", "baseline", "entry"]
    version: str
    state: str
    """`serving`, `baseline`, `running`, `failing`, `waiting` or `stopped`."""
    reason: str | None
    rows: int
    qlike: float | None
    ratio: float | None
    """Loss over that of the champion at the same closes; below 1 is better."""
    dm_t: float | None
    crps_bps: float | None
    coverage_90_pct: float | None
    predict_p50_ms: float | None
    """Median time of one forecast; None for the champion and the baselines, whose times are not measured one by one."""
    predict_p99_ms: float | None
    gate: GateOfEntry | None


class League(msgspec.Struct, frozen=True):
    """The league of a market over the last days, best first."""

    symbol: str
    days: int
    rows: tuple[LeagueRow, ...]
    entries: int
    """Number of the rows that are user's models."""
    reason: str | None
    """Why there are no user's models, or no scores; None if there are both."""
    simulated: bool


class SkillRow(msgspec.Struct, frozen=True):
    """The live loss of one quantity at one horizon beside that of a baseline."""

    quantity: str
    """`bid` or `volatility`."""
    horizon_min: int
    forecasts: int
    """Number of forecasts with an outcome."""
    loss: str
    model_loss: float | None
    baseline: str
    baseline_loss: float | None
    ratio: float | None
    """Model over baseline: below 1 the model is better."""
    gain_pct: float | None = None
    """How much smaller the model's loss is than the baseline's, percent."""
    gain_error_pct: float | None = None
    """Half the width of the 95 % interval of `gain_pct`."""


class CoverageRow(msgspec.Struct, frozen=True):
    """How often the outcome was inside an interval."""

    quantity: str
    level_pct: int
    """How often it should be, percent."""
    horizon_min: int
    forecasts: int
    covered_pct: float | None
    """How often it was."""


class GainPoint(msgspec.Struct, frozen=True):
    """The gain over the last six hours until a time."""

    until: str
    forecasts: int
    gain_pct: float | None
    gain_error_pct: float | None


class GainSeries(msgspec.Struct, frozen=True):
    """The gain over one baseline in the course of time, oldest first."""

    quantity: str
    baseline: str
    points: tuple[GainPoint, ...]


class Skill(msgspec.Struct, frozen=True):
    """Live losses beside those of the baselines, and the coverage of the intervals, over the last hours."""

    symbol: str
    hours: int
    rows: tuple[SkillRow, ...]
    coverage: tuple[CoverageRow, ...]
    reason: str | None
    """Why there are no rows; None if there are."""
    simulated: bool
    over_time: tuple[GainSeries, ...] = ()
    volatility_target: str | None = None
    """What the volatility is: that of one-minute returns (`minutes`), or of 5-second returns of the mid (`ticks`)."""


class Root(msgspec.Struct, frozen=True):
    """The Merkle root of a closed hour or day."""

    period: Literal["hour", "day"]
    begin: str
    root: str
    """SHA-256 root of the tree (RFC 6962), hexadecimal."""
    leaves: int
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
    siblings: tuple[str, ...]
    """The hashes beside the path from the leaf to the root, from the bottom to the top."""
    header_siblings: tuple[str, ...]


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
    status: Literal["proven", "open", "late", "unproven"]
    """`open`: its hour is not closed yet. `unproven`: its row was changed or added after that."""
    late_in: str | None
    hour: HourProof | None
    day: DayProof | None
    simulated: bool
