"""Prediction intervals whose coverage is held from outside: conformal quantiles in units of the forecast, corrected online.

A forecast is wrong by some score: (y − f) / σ̂ for the bid, ln(RV / forecast) for the volatility. Its quantiles are first
those of the training window (scaled conformal). Then every outcome moves each of them a little towards covering what it
should: up when it was exceeded, down when it was not, in the proportion of its level (adaptive conformal inference,
Gibbs and Candès 2021, as quantile tracking: Angelopoulos, Candès and Tibshirani 2023). So over time each quantile is
exceeded as often as it says, whatever the market or the model do.

What does not belong here: where the state is kept (`streaming.outcomes`), and coverage as a score (`scores`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from btc_core.names import HORIZONS_MIN, LEVELS_PCT, QUANTILES

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

BOUNDS: dict[int, tuple[int, int]] = {
    level: (QUANTILES.index(round(0.5 - level / 200, 2)), QUANTILES.index(round(0.5 + level / 200, 2)))
    for level in LEVELS_PCT
}
"""Places in `QUANTILES` of the lower and upper bound of each level."""
NORMAL = (-1.6449, -1.2816, -0.6745, 0.6745, 1.2816, 1.6449)
"""Of a standard normal score: the start of a model that was never calibrated."""
RATE = 0.02
"""Step of an outcome as a share of the 90 % width: a wrong level is corrected within a day of five-minute outcomes.
Faster makes intervals nervous, slower lets a shock go uncovered for days."""

_TARGET = np.asarray(QUANTILES)


def fit_quantiles(score: Floats) -> tuple[tuple[float, ...], ...]:
    """Quantiles of scores (n, 5), shape (5, 6), as plain numbers; what tracking starts from."""
    found = np.nanquantile(score, QUANTILES, axis=0).T
    return tuple(tuple(row) for row in found.tolist())


def update(quantiles: Floats, score: Floats) -> Floats:
    """Quantiles (5, 6) after one outcome's scores (5,); a NaN score changes nothing.

    Their order is kept: a bound that would pass its neighbour waits for it.
    """
    width = np.maximum(quantiles[:, -1] - quantiles[:, 0], 1e-6)[:, np.newaxis]
    exceeded = score[:, np.newaxis] > quantiles
    moved = quantiles + RATE * width * (_TARGET - 1.0 + exceeded)
    return np.where(np.isnan(score)[:, np.newaxis], quantiles, np.sort(moved, axis=1))


def track(start: Floats, score: Floats) -> Floats:
    """The quantiles in force at each of n origins, (n, 5, 6): those after all outcomes before it.

    Origins are at least the longest horizon apart, so the outcome of one is known at the next.
    """
    in_force = np.empty((len(score), len(HORIZONS_MIN), len(QUANTILES)))
    current = start
    for row, outcome in enumerate(score):
        in_force[row] = current
        current = update(current, outcome)
    return in_force


def bid_score(actual_bps: Floats, forecast_bps: Floats, sigma_bps: Floats) -> Floats:
    """(y − f) / σ̂, any shape."""
    return (actual_bps - forecast_bps) / sigma_bps


def bid_bounds_bps(quantiles: Floats, forecast_bps: Floats, sigma_bps: Floats) -> Floats:
    """Bounds of the return, (n, 5, 6), from quantiles (5, 6) or (n, 5, 6) and forecasts (n, 5)."""
    return forecast_bps[..., np.newaxis] + quantiles * sigma_bps[..., np.newaxis]


def volatility_score(realized: Floats, variance: Floats) -> Floats:
    """ln(RV / forecast), any shape."""
    return np.log(realized / variance)


def volatility_bounds_bps(quantiles: Floats, sigma_bps: Floats) -> Floats:
    """Bounds of the realized volatility, bps, (n, 5, 6)."""
    return np.exp(0.5 * quantiles) * sigma_bps[..., np.newaxis]
