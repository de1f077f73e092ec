"""The volatility regime of a market, and how often the 90 % intervals contained the outcome in each regime.

The regime is `low`, `normal` or `high`: where the σ of a forecast stands among the terciles of the σ of recent outcomes.
What does not belong here: joining forecasts with outcomes (`streaming.outcomes`), and the limit of the coverage (`quality`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from btc_core.market.messages import Regime
from btc_core.models.gate import DEMOTE_HOURS, MIN_OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Collection

    import numpy.typing as npt

REGIMES: tuple[Regime, ...] = ("low", "normal", "high")
RECENT_HOURS = DEMOTE_HOURS
"""The outcomes of this time give the terciles and the coverage: a day, so that each regime has the outcomes of eight hours."""

Judged = tuple[int, float, bool, bool]
"""The minute of an outcome in ns, the σ that was forecast over the headline horizon, bps, and whether the 90 % intervals contained
the bid and the volatility."""


class Coverage(msgspec.Struct, frozen=True):
    """How often the 90 % intervals of recent forecasts contained the outcome."""

    outcomes: int = 0
    bid: float = math.nan
    volatility: float = math.nan


class RecentCoverage(msgspec.Struct, frozen=True):
    """The coverage of all recent outcomes, and of those in each regime."""

    whole: Coverage = Coverage()
    terciles_bps: tuple[float, float] = (math.nan, math.nan)
    """The σ between `low` and `normal`, and that between `normal` and `high`."""
    by_regime: dict[Regime, Coverage] = {}

    def at(self, sigma_bps: float) -> tuple[Coverage, Regime | None]:
        """The coverage in the regime of a forecast of σ, and the regime; that of all outcomes and None if the regime has too few."""
        low, high = self.terciles_bps
        regime: Regime = "low" if sigma_bps < low else "high" if sigma_bps > high else "normal"
        found = self.by_regime.get(regime)
        return (self.whole, None) if found is None or found.outcomes < MIN_OUTCOMES else (found, regime)


def recent_coverage(judged: Collection[Judged]) -> RecentCoverage:
    """The coverage of outcomes. Where σ equals a tercile, the regime is `normal`."""
    if not judged:
        return RecentCoverage()
    rows = np.array([each[1:] for each in judged], np.float64)
    sigma = rows[:, 0]
    low, high = np.quantile(sigma, (1.0 / 3.0, 2.0 / 3.0)).tolist()
    places = 1 - (sigma < low) + (sigma > high)
    return RecentCoverage(
        _coverage(rows), (low, high), {name: _coverage(rows[places == place]) for place, name in enumerate(REGIMES)}
    )


def _coverage(rows: npt.NDArray[np.float64]) -> Coverage:
    if not len(rows):
        return Coverage()
    _, bid, volatility = rows.mean(axis=0).tolist()
    return Coverage(len(rows), bid, volatility)
