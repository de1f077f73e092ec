"""Prediction intervals: conformal quantiles in units of the forecast, corrected by every outcome.

The score of a forecast is its error in units of itself: (y − f) / σ̂ for the bid, ln(RV / forecast) for the volatility.
The quantiles of the score start at those of the training window (scaled conformal prediction). Then every outcome moves
each quantile a little: up when the outcome exceeded it, down when it did not, in proportion to its level (adaptive
conformal inference, Gibbs and Candès 2021, as quantile tracking, Angelopoulos, Candès and Tibshirani 2023). So over time
each quantile is exceeded as often as its level says, whatever the market and the model do.

What does not belong here: where the quantiles are kept (`streaming.outcomes`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from btc_core.models.targets import known_outcomes
from btc_core.names import LEVELS_PCT, QUANTILES

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Longs = npt.NDArray[np.int64]

BOUNDS: dict[int, tuple[int, int]] = {
    level: (QUANTILES.index(round(0.5 - level / 200, 2)), QUANTILES.index(round(0.5 + level / 200, 2)))
    for level in LEVELS_PCT
}
"""For each level the places of its lower and upper bound in `QUANTILES`."""
NORMAL = (-1.6449, -1.2816, -0.6745, 0.6745, 1.2816, 1.6449)
"""Quantiles of a standard normal score, at which a model starts that was never calibrated."""
RATE = 0.02
"""How far an outcome moves a quantile, as a share of the width of the 90 % interval: a wrong level is corrected within a
day of five-minute outcomes. A larger step makes the intervals nervous; a smaller one leaves a shock uncovered for days."""

_TARGET = np.asarray(QUANTILES)


def fit_quantiles(score: Floats) -> tuple[tuple[float, ...], ...]:
    """Quantiles of scores (n, 5), shape (5, 6), as plain numbers, at which tracking starts."""
    found = np.nanquantile(score, QUANTILES, axis=0).T
    return tuple(tuple(row) for row in found.tolist())


def update(quantiles: Floats, score: Floats) -> Floats:
    """Quantiles (5, 6) after the scores (5,) of one outcome; a NaN score changes nothing.

    They stay in ascending order.
    """
    width = np.maximum(quantiles[:, -1] - quantiles[:, 0], 1e-6)[:, np.newaxis]
    exceeded = score[:, np.newaxis] > quantiles
    moved = quantiles + RATE * width * (_TARGET - 1.0 + exceeded)
    return np.where(np.isnan(score)[:, np.newaxis], quantiles, np.sort(moved, axis=1))


def track(start: Floats, score: Floats, origin_ns: Longs) -> Floats:
    """The quantiles in force at each of n origins in the order of time, (n, horizons, 6), from the outcomes known by then."""
    moving, known = known_outcomes(origin_ns)
    quantiles = [start]
    for outcome in score[moving]:
        quantiles.append(update(quantiles[-1], outcome))
    return np.asarray(np.array(quantiles)[known])


def bid_score(actual_bps: Floats, forecast_bps: Floats, sigma_bps: Floats) -> Floats:
    """(y − f) / σ̂, of any shape."""
    return (actual_bps - forecast_bps) / sigma_bps


def bid_bounds_bps(quantiles: Floats, forecast_bps: Floats, sigma_bps: Floats) -> Floats:
    """Bounds of the return, (n, 5, 6), from quantiles (5, 6) or (n, 5, 6) and forecasts (n, 5)."""
    return forecast_bps[..., np.newaxis] + quantiles * sigma_bps[..., np.newaxis]


def volatility_score(realized: Floats, variance: Floats) -> Floats:
    """ln(RV / forecast), of any shape."""
    return np.log(realized / variance)


def volatility_bounds_bps(quantiles: Floats, sigma_bps: Floats) -> Floats:
    """Bounds of the realized volatility, bps, (n, 5, 6)."""
    return np.exp(0.5 * quantiles) * sigma_bps[..., np.newaxis]
