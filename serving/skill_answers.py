"""The bodies of the answers about live skill.

What does not belong here: the other bodies (`answers`), and how a score comes about (`live_skill`).
"""

from __future__ import annotations

import msgspec

from btc_core.names import Quantity
from serving.utc_time import UtcTime


class SkillRow(msgspec.Struct, frozen=True):
    """The live loss of one quantity at one horizon beside that of a baseline."""

    quantity: Quantity
    """What is forecast: `bid` or `volatility`."""
    horizon_min: int
    """Minutes ahead."""
    forecasts: int
    """Number of forecasts with an outcome."""
    loss: str
    """Name of the loss, of which less is better."""
    model_loss: float | None
    """Mean loss of what served; null without outcomes."""
    baseline: str
    """Name of the baseline."""
    baseline_loss: float | None
    """Mean loss of the baseline on the same forecasts; null without outcomes."""
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
    """What the interval is of: `bid` or `volatility`."""
    level_pct: int
    """How often it should be, percent."""
    horizon_min: int
    """Minutes ahead."""
    forecasts: int
    """Number of forecasts with an outcome."""
    covered_pct: float | None
    """How often it was."""


class GainPoint(msgspec.Struct, frozen=True):
    """The gain over the last six hours until a time, or since the first outcome."""

    until: UtcTime
    """End of these hours."""
    forecasts: int
    """Number of forecasts with an outcome in these hours."""
    gain_pct: float | None
    """How much smaller the model's loss was than the baseline's, percent; null without outcomes."""
    gain_error_pct: float | None
    """Half the width of the 95 % interval of `gain_pct`; null for fewer than six blocks."""


class GainSeries(msgspec.Struct, frozen=True):
    """The gain over one baseline in the course of time, oldest first."""

    quantity: Quantity
    """What is forecast: `bid` or `volatility`."""
    baseline: str
    """Name of the baseline."""
    points: tuple[GainPoint, ...]
    """The gain at each time."""


class Skill(msgspec.Struct, frozen=True):
    """Live losses beside those of the baselines, and the coverage of the intervals, over the last hours."""

    symbol: str
    """Market, such as BTC/USD."""
    hours: int
    """Length of the scored time."""
    rows: list[SkillRow]
    """One row for each quantity, horizon, loss and baseline."""
    coverage: list[CoverageRow]
    """One row for each quantity, level and horizon."""
    reason: str | None
    """Why there are no rows; null if there are."""
    simulated: bool
    """True if the market is made up by the simulator."""
    over_time: tuple[GainSeries, ...] = ()
    """The gain over each baseline in windows of six hours."""
    volatility_target: str | None = None
    """What the volatility of these outcomes is: that of one-minute returns (`minutes`), or of 5-second returns of the mid
    (`ticks`). Outcomes of models of another target are left out; null without any outcome."""
