"""The variance of ticks: what it is on a known path, against a slow reference, without bounce, and without look-ahead."""

from __future__ import annotations

import numpy as np
import pytest

from btc_core.clock import NS_PER_S
from btc_core.models.tick_variance import is_current, log_price_by_second, origins_between, tick_variance
from btc_core.names import HORIZONS_MIN

pytestmark = pytest.mark.unit

FIRST_S = 1_700_000_040  # a whole minute
SIGMA = 1e-4
"""The standard deviation of the log return over one second."""


def walk(seconds: int, seed: int = 1) -> np.ndarray:
    return np.log(60_000.0) + np.random.default_rng(seed).normal(0.0, SIGMA, seconds).cumsum()


def test_it_is_the_scaled_mean_of_the_realized_variances_of_five_shifted_grids() -> None:
    logs = walk(301)
    (found,) = tick_variance(logs, np.array([FIRST_S]), FIRST_S)
    for column, minutes in enumerate(HORIZONS_MIN):
        grids = []
        for shift in range(5):
            grid = logs[: minutes * 60 + 1][shift::5]
            grids.append(float(np.sum(np.diff(grid) ** 2)))
        assert found[column] == pytest.approx(np.mean(grids) * (60 * minutes) / (60 * minutes - 4))


def test_its_mean_is_the_variance_of_a_walk_with_and_without_a_bounce_and_its_error_is_smaller_than_that_of_minutes() -> (
    None
):
    logs = walk(60 * 60 * 50)
    origins = origins_between(FIRST_S, FIRST_S + len(logs) - 1)
    truth = 300 * SIGMA**2
    clean = tick_variance(logs, origins, FIRST_S)[:, -1]
    minutes = np.lib.stride_tricks.sliding_window_view(np.diff(logs[::60]) ** 2, 5).sum(axis=1)
    assert clean.mean() == pytest.approx(truth, rel=0.03)
    assert clean.std() < 0.4 * minutes.std()
    bounced = logs + 2e-4 * np.random.default_rng(2).choice([-1.0, 1.0], len(logs))
    plain = tick_variance(bounced, origins, FIRST_S)[:, -1]
    corrected = tick_variance(bounced, origins, FIRST_S, bounces=True)[:, -1]
    assert plain.mean() > 2.0 * truth
    assert corrected.mean() == pytest.approx(truth, rel=0.05)
    assert (corrected >= 0.0).all()


def test_a_label_depends_on_nothing_before_its_origin_and_nothing_after_its_horizon() -> None:
    logs = walk(1_000)
    origin = FIRST_S + 300
    (label,) = tick_variance(logs, np.array([origin]), FIRST_S)
    outside = logs.copy()
    outside[:300] += 1.0
    outside[601:] -= 1.0
    (same,) = tick_variance(outside, np.array([origin]), FIRST_S)
    assert same.tolist() == label.tolist()
    for minutes in HORIZONS_MIN[:-1]:
        later = logs.copy()
        later[300 + minutes * 60 + 1 :] += 1.0
        (part,) = tick_variance(later, np.array([origin]), FIRST_S)
        assert part[:minutes].tolist() == label[:minutes].tolist()
        assert part[minutes] > 0.1


def test_the_price_of_a_second_is_the_last_one_before_it_and_a_stale_minute_has_none() -> None:
    clock_ns = np.array([0.2, 0.9, 1.0, 3.5, 49.0, 119.5]) * NS_PER_S + FIRST_S * NS_PER_S
    price = np.array([1.0, 2.0, 3.0, np.nan, 5.0, 6.0])
    logs = log_price_by_second(clock_ns.astype(np.int64), price, FIRST_S, FIRST_S + 180)
    assert np.exp(logs[[1, 2, 4, 49, 50, 61]]) == pytest.approx([2.0, 3.0, 3.0, 3.0, 5.0, 5.0])
    assert np.isnan(logs[[0, 60, 180]]).all(), "before the first price, and after more than ten seconds without one"
    assert np.exp(logs[120]) == pytest.approx(6.0)
    assert np.isnan(log_price_by_second(np.empty(0, np.int64), np.empty(0), FIRST_S, FIRST_S + 5)).all()


def test_a_window_with_an_unknown_minute_has_no_label() -> None:
    logs = walk(1_201)
    logs[600] = np.nan
    origins = origins_between(FIRST_S, FIRST_S + 1_200)
    known = ~np.isnan(tick_variance(logs, origins, FIRST_S)).any(axis=1)
    assert ((origins[known] - FIRST_S) // 60).tolist() == [0, 1, 2, 3, 4, 11, 12, 13, 14, 15]


def test_a_row_that_came_after_the_clock_had_passed_its_second_is_not_current() -> None:
    ts_ns = np.array([10, 11, 10, 11]) * NS_PER_S
    assert is_current(ts_ns, np.maximum.accumulate(ts_ns)).tolist() == [True, True, False, True]
