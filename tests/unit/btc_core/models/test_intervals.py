"""Intervals keep their coverage through a shock in which fixed ones lose it, and their bounds stay in order."""

from __future__ import annotations

import numpy as np

from btc_core.models import intervals
from btc_core.models.targets import APART_NS
from btc_core.names import HORIZONS_MIN, LEVELS_PCT

DAY = 288
START = np.tile(np.asarray(intervals.NORMAL), (len(HORIZONS_MIN), 1))


def scores(days: int, scale: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_t(5.0, (days * DAY, len(HORIZONS_MIN))) * scale


def track(score: np.ndarray) -> np.ndarray:
    """The quantiles in force at origins that are as far apart as outcomes that move them."""
    return intervals.track(START, score, np.arange(len(score)) * APART_NS)


def covered(bounds: np.ndarray, score: np.ndarray, level: int) -> float:
    low, high = (bounds[:, -1, place] for place in intervals.BOUNDS[level])
    return float(((score[:, -1] >= low) & (score[:, -1] <= high)).mean())


def test_coverage_is_kept_through_a_volatility_shock_that_the_model_does_not_forecast() -> None:
    before, shock, after = scores(20, 1.0, 1), scores(10, 3.0, 2), scores(20, 1.0, 3)
    score = np.concatenate([before, shock, after])
    bounds = track(score)
    fixed = np.broadcast_to(bounds[20 * DAY], (len(shock), *START.shape))
    assert covered(fixed, shock, 90) < 0.55
    for level in LEVELS_PCT:
        assert abs(covered(bounds, score, level) - level / 100) < 0.01
        second_half = slice(25 * DAY, 30 * DAY)
        assert abs(covered(bounds[second_half], score[second_half], level) - level / 100) < 0.05


def test_bounds_never_cross_and_a_missing_outcome_changes_nothing() -> None:
    score = scores(10, 1.0, 4)
    bounds = track(score)
    assert (np.diff(bounds, axis=2) >= 0.0).all()
    nothing = np.full(len(HORIZONS_MIN), np.nan)
    assert np.array_equal(intervals.update(bounds[-1], nothing), bounds[-1])


def test_bounds_in_force_do_not_depend_on_their_own_outcome() -> None:
    score = scores(3, 1.0, 5)
    other = score.copy()
    other[400:] *= 7.0
    assert np.array_equal(track(score)[:401], track(other)[:401])


def test_fitted_quantiles_cover_what_they_were_fitted_on() -> None:
    score = scores(30, 2.0, 6)
    fitted = np.asarray(intervals.fit_quantiles(score))
    assert abs(covered(np.broadcast_to(fitted, (len(score), *fitted.shape)), score, 80) - 0.8) < 1e-3
