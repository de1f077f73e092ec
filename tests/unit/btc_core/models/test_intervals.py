"""Intervals keep their coverage through a shock in which fixed ones lose it, and their bounds stay in order."""

from __future__ import annotations

import numpy as np

from btc_core.market.messages import ForecastRow
from btc_core.models import intervals
from btc_core.models.targets import APART_NS
from btc_core.names import HORIZONS_MIN, LEVELS_PCT, QUANTILES, SCORED_QUANTILES

DAY = 288
START = np.tile(np.asarray((-2.5758, *intervals.NORMAL[intervals.SCORED], 2.5758)), (len(HORIZONS_MIN), 1))


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


def test_the_widest_interval_needs_enough_scores_and_holds_what_it_says() -> None:
    score = scores(40, 1.0, 7)
    fitted = np.asarray(intervals.fit_quantiles(score))
    assert fitted.shape == (len(HORIZONS_MIN), len(QUANTILES))
    assert abs(covered(np.broadcast_to(fitted, (len(score), *fitted.shape)), score, 99) - 0.99) < 1e-3
    assert intervals.MIN_SCORES == 199
    low, high = intervals.BOUNDS[99]
    smallest = np.asarray(intervals.fit_quantiles(score[:199]))
    np.testing.assert_array_equal(smallest[:, low], score[:199].min(axis=0))
    np.testing.assert_array_equal(smallest[:, high], score[:199].max(axis=0))
    few = score[:199].copy()
    few[0, 0] = np.nan
    assert np.asarray(intervals.fit_quantiles(few)).shape == (len(HORIZONS_MIN), len(SCORED_QUANTILES))


def test_a_manifest_has_the_scored_quantiles_in_the_form_that_older_programs_read_and_the_tails_apart() -> None:
    fields = intervals.as_fields(START)
    assert {len(each) for each in fields["quantiles"]} == {len(SCORED_QUANTILES)}
    assert np.array_equal(intervals.with_tails(fields["quantiles"], fields["tails"]), START)
    assert intervals.as_fields(START[:, intervals.SCORED])["tails"] == ()


def test_unknown_tails_stay_unknown_until_a_model_gives_them_and_move_no_other_quantile() -> None:
    unknown = intervals.with_tails(START[:, intervals.SCORED])
    assert np.isnan(unknown[:, [0, -1]]).all()
    assert intervals.plain(unknown) == tuple(tuple(row) for row in START[:, intervals.SCORED].tolist())
    assert np.array_equal(intervals.with_tails(intervals.plain(START)), START)
    score = scores(2, 1.0, 8)
    moved = intervals.track(unknown, score, np.arange(len(score)) * APART_NS)
    known = track(score)
    np.testing.assert_array_equal(moved[..., intervals.SCORED], known[..., intervals.SCORED])
    assert np.isnan(moved[..., [0, -1]]).all()
    assert intervals.with_known_tails(unknown, unknown) is unknown
    assert intervals.with_known_tails(START, START * 2.0) is START
    narrow = START * 0.1
    given = intervals.with_known_tails(moved[-1], narrow)
    assert (np.diff(given, axis=1) >= 0.0).all(), "a tail is never inside the other quantiles"


def test_a_forecast_from_before_the_widest_level_gets_unknown_bounds() -> None:
    old = ForecastRow(
        "BTC/USD", 1, 1, 0, 0, 0, 1, 60_000.0, [60_000.0] * 5, [1.0] * 5, [1.0] * 5, "1", "random_walk", "1", "harx", "f",
        [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]] * 5, [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]] * 5,
    )  # fmt: skip
    new = old.with_all_levels()
    assert new.bid_bounds_usd[4][1:-1] == new.sigma_bounds_bps[0][1:-1] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert np.isnan([new.bid_bounds_usd[0][0], new.sigma_bounds_bps[0][-1]]).all()
    assert new.with_all_levels() is new
