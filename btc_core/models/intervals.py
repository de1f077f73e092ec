"""Prediction intervals: conformal quantiles in units of the forecast, corrected by every outcome.

The score of a forecast is its error in units of itself: (y − f) / σ̂ for the bid, ln(RV / forecast) for the volatility.
The quantiles of the score start at those of the training window (scaled conformal prediction). Then every outcome moves
each quantile a little: up when the outcome exceeded it, down when it did not, in proportion to its level (adaptive
conformal inference, Gibbs and Candès 2021, as quantile tracking, Angelopoulos, Candès and Tibshirani 2023). So over time
each quantile is exceeded as often as its level says, whatever the market and the model do.

A quantile in the tail needs many scores: with n of them, no conformal bound holds more than n / (n + 1) of the outcomes on its side.
With fewer than `MIN_SCORES` the bounds of the 99 % interval are NaN, which says that they are not known, and outcomes do not move them.

What does not belong here: where the quantiles are kept (`streaming.outcomes`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from btc_core.models.targets import known_outcomes
from btc_core.names import LEVELS_PCT, QUANTILES, SCORED_QUANTILES

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Longs = npt.NDArray[np.int64]

BOUNDS: dict[int, tuple[int, int]] = {
    level: (QUANTILES.index(round(0.5 - level / 200, 3)), QUANTILES.index(round(0.5 + level / 200, 3)))
    for level in LEVELS_PCT
}
"""For each level the places of its lower and upper bound in `QUANTILES`."""
_TAILS = (len(QUANTILES) - len(SCORED_QUANTILES)) // 2
SCORED = slice(_TAILS, len(QUANTILES) - _TAILS)
"""Where `SCORED_QUANTILES` are in `QUANTILES`."""
MIN_SCORES = math.ceil(1.0 / QUANTILES[0]) - 1
"""The fewest scores with which the widest interval has conformal bounds."""
NORMAL = (*[math.nan] * _TAILS, -1.6449, -1.2816, -0.6745, 0.6745, 1.2816, 1.6449, *[math.nan] * _TAILS)
"""Quantiles of a standard normal score, at which a model starts that was never calibrated. Its tails are not known: those of scores
are heavier than a normal distribution's."""
RATE = 0.02
"""How far an outcome moves a quantile, as a share of the width of the 90 % interval: a wrong level is corrected within a
day of five-minute outcomes. A larger step makes the intervals nervous; a smaller one leaves a shock uncovered for days."""

_TARGET = np.asarray(QUANTILES)


def fit_quantiles(score: Floats) -> tuple[tuple[float, ...], ...]:
    """Quantiles of scores (n, horizons) as plain numbers, at which tracking starts: those of `QUANTILES` for each horizon.

    If a horizon has fewer than `MIN_SCORES` scores, they are those of `SCORED_QUANTILES` only, for all horizons.
    """
    found = np.nanquantile(score, SCORED_QUANTILES, axis=0).T
    scores = [np.sort(column[~np.isnan(column)]) for column in score.T]
    if min(map(len, scores)) >= MIN_SCORES:
        low = [[column[math.floor((len(column) + 1) * q) - 1] for q in QUANTILES[:_TAILS]] for column in scores]
        high = [[column[math.ceil((len(column) + 1) * q) - 1] for q in QUANTILES[SCORED.stop :]] for column in scores]
        found = np.hstack([low, found, high])
    return plain(found)


def with_tails(quantiles: Any, tails: Any = None) -> Floats:
    """Quantiles of `QUANTILES` or of `SCORED_QUANTILES` as float64 (horizons, quantiles); missing and unknown ones are NaN.

    `tails` are those of `QUANTILES` beyond `SCORED_QUANTILES`, if these are stored apart.
    """
    known = np.asarray(quantiles, np.float64)
    if known.shape[-1] == len(QUANTILES):
        return known
    padded = np.pad(known, ((0, 0), (_TAILS, _TAILS)), constant_values=np.nan)
    if tails is not None:
        padded[:, :_TAILS], padded[:, SCORED.stop :] = np.hsplit(np.asarray(tails, np.float64), 2)
    return padded


def plain(quantiles: Floats) -> tuple[tuple[float, ...], ...]:
    """Quantiles as plain numbers, without the tails if these are not known. The inverse of `with_tails`."""
    chosen = quantiles[:, SCORED] if np.isnan(quantiles).any() else quantiles
    return tuple(tuple(row) for row in chosen.tolist())


def split(quantiles: Any) -> tuple[list[list[float]], list[list[float]] | None]:
    """`SCORED_QUANTILES` and the tails of quantiles (horizons, 8), apart; no tails if they are not known. `with_tails` joins them."""
    every = np.asarray(quantiles, np.float64)
    tails = np.hstack([every[:, :_TAILS], every[:, SCORED.stop :]])
    return every[:, SCORED].tolist(), None if np.isnan(tails).any() else tails.tolist()


def as_fields(quantiles: Any) -> dict[str, tuple[tuple[float, ...], ...]]:
    """Quantiles as the fields `quantiles` and `tails` of a manifest."""
    scored, tails = split(with_tails(quantiles))
    return {"quantiles": tuple(map(tuple, scored)), "tails": tuple(map(tuple, tails or ()))}


def with_known_tails(quantiles: Floats, start: Floats) -> Floats:
    """Quantiles (horizons, 8) whose unknown tails are those at which a model starts; the very array if it has none to give."""
    missing = np.isnan(quantiles) & ~np.isnan(start)
    return _in_order(np.where(missing, start, quantiles)) if missing.any() else quantiles


def update(quantiles: Floats, score: Floats) -> Floats:
    """Quantiles (5, 8) after the scores (5,) of one outcome; a NaN score changes nothing, and unknown tails stay unknown.

    They stay in ascending order.
    """
    low, high = BOUNDS[90]
    width = np.maximum(quantiles[:, high] - quantiles[:, low], 1e-6)[:, np.newaxis]
    exceeded = score[:, np.newaxis] > quantiles
    moved = quantiles + RATE * width * (_TARGET - 1.0 + exceeded)
    return np.where(np.isnan(score)[:, np.newaxis], quantiles, _in_order(moved))


def _in_order(quantiles: Floats) -> Floats:
    """The same array in ascending order; unknown tails stay at their places."""
    quantiles[:, SCORED] = np.sort(quantiles[:, SCORED], axis=1)
    for place in range(_TAILS - 1, -1, -1):
        quantiles[:, place] = np.minimum(quantiles[:, place], quantiles[:, place + 1])
        quantiles[:, -1 - place] = np.maximum(quantiles[:, -1 - place], quantiles[:, -2 - place])
    return quantiles


def track(start: Floats, score: Floats, origin_ns: Longs) -> Floats:
    """The quantiles in force at each of n origins in the order of time, (n, horizons, 8), from the outcomes known by then."""
    moving, known = known_outcomes(origin_ns)
    quantiles = [start]
    for outcome in score[moving]:
        quantiles.append(update(quantiles[-1], outcome))
    return np.asarray(np.array(quantiles)[known])


def bid_score(actual_bps: Floats, forecast_bps: Floats, sigma_bps: Floats) -> Floats:
    """(y − f) / σ̂, of any shape."""
    return (actual_bps - forecast_bps) / sigma_bps


def bid_bounds_bps(quantiles: Floats, forecast_bps: Floats, sigma_bps: Floats) -> Floats:
    """Bounds of the return, (n, 5, 8), from quantiles (5, 8) or (n, 5, 8) and forecasts (n, 5)."""
    return forecast_bps[..., np.newaxis] + quantiles * sigma_bps[..., np.newaxis]


def volatility_score(realized: Floats, variance: Floats) -> Floats:
    """ln(RV / forecast), of any shape."""
    return np.log(realized / variance)


def volatility_bounds_bps(quantiles: Floats, sigma_bps: Floats) -> Floats:
    """Bounds of the realized volatility, bps, (n, 5, 8)."""
    return np.exp(0.5 * quantiles) * sigma_bps[..., np.newaxis]
