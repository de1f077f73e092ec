"""The bodies of the answers about live skill.

What does not belong here: the other bodies (`answers`), and how a score comes about (`live_skill`).
"""

from __future__ import annotations

import msgspec

from btc_core.names import Quantity


class SkillRow(msgspec.Struct, frozen=True):
    """The live loss of one quantity at one horizon beside that of a baseline."""

    quantity: Quantity
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
    """How much smaller the model's loss is than the baseline's, percent; negative if it is larger."""
    gain_error_pct: float | None = None
    """Half the width of the 95 % interval of `gain_pct`. Forecasts overlap, so the error is computed from blocks of twice
    the longest horizon with HAC (Newey and West 1987); null for fewer than six blocks."""


class CoverageRow(msgspec.Struct, frozen=True):
    """How often the outcome was inside an interval."""

    quantity: Quantity
    level_pct: int
    """How often it should be, percent."""
    horizon_min: int
    forecasts: int
    """Number of forecasts with an outcome."""
    covered_pct: float | None
    """How often it was."""


class GainPoint(msgspec.Struct, frozen=True):
    """The gain over the last six hours until a time, or since the first outcome."""

    until: str
    forecasts: int
    """Number of forecasts with an outcome in these hours."""
    gain_pct: float | None
    gain_error_pct: float | None
    """Half the width of the 95 % interval of `gain_pct`; null for fewer than six blocks."""


class GainSeries(msgspec.Struct, frozen=True):
    """The gain over one baseline in the course of time, oldest first."""

    quantity: Quantity
    baseline: str
    points: tuple[GainPoint, ...]


class Skill(msgspec.Struct, frozen=True):
    """Live losses beside those of the baselines, and the coverage of the intervals, over the last hours."""

    symbol: str
    hours: int
    rows: list[SkillRow]
    coverage: list[CoverageRow]
    reason: str | None
    """Why there are no rows; null if there are."""
    simulated: bool
    over_time: tuple[GainSeries, ...] = ()
    """The gain over each baseline in windows of six hours."""
    volatility_target: str | None = None
    """What the volatility of these outcomes is: that of one-minute returns (`minutes`), or of 5-second returns of the mid
    (`ticks`). Outcomes of models of another target are left out; null without any outcome."""
