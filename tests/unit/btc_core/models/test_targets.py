"""Labels are joined by time and have the units that they state."""

from __future__ import annotations

import numpy as np

from btc_core.clock import NS_PER_MIN
from btc_core.models.targets import bid_path_bps, realized_variance


def _minutes(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.int64) * NS_PER_MIN


def test_the_bid_path_is_the_log_return_in_bps_to_each_minute() -> None:
    price = 100.0 * np.exp(np.array([0.0, 1.0, 3.0, 6.0, 10.0, 15.0]) / 1e4)
    assert np.allclose(bid_path_bps(_minutes(6), price)[0], [1.0, 3.0, 6.0, 10.0, 15.0])


def test_realized_variance_sums_squared_one_minute_returns() -> None:
    price = np.exp(np.array([0.0, 0.01, 0.01, -0.02, -0.02, 0.0]))
    expected = np.cumsum([1e-4, 0.0, 9e-4, 0.0, 4e-4])
    assert np.allclose(realized_variance(_minutes(6), price)[0], expected)


def test_a_missing_minute_makes_the_labels_that_need_it_null_and_no_row_is_shifted_into_its_place() -> None:
    times = np.delete(_minutes(12), 3)
    price = np.exp(np.delete(np.linspace(0.0, 1.1, 12), 3))
    returns, variance = bid_path_bps(times, price), realized_variance(times, price)
    assert np.array_equal(np.isnan(returns[0]), [False, False, True, False, False])
    assert np.array_equal(np.isnan(variance[0]), [False, False, True, True, True])
    assert np.isclose(returns[0, 3], 4000.0)


def test_the_last_minutes_have_no_labels_beyond_the_data() -> None:
    returns = bid_path_bps(_minutes(10), np.full(10, 100.0))
    assert np.isnan(returns[-1]).all()
    assert np.array_equal(np.isnan(returns[-3]), [False, False, True, True, True])


def test_changing_prices_after_the_label_changes_no_label() -> None:
    price = np.exp(np.random.default_rng(1).normal(0.0, 1e-3, 100).cumsum())
    other = price.copy()
    other[60:] *= 2.0
    for label in (bid_path_bps, realized_variance):
        assert np.array_equal(label(_minutes(100), price)[:55], label(_minutes(100), other)[:55])


def test_a_price_of_zero_counts_as_missing() -> None:
    price = np.full(10, 100.0)
    price[2] = 0.0
    assert np.isnan(bid_path_bps(_minutes(10), price)[1, 0])
    assert np.isnan(bid_path_bps(_minutes(10), price)[2]).all()
