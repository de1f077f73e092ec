"""The measures of economic value reward the better forecast, and the tests of breaches find what is wrong with them."""

from __future__ import annotations

import numpy as np
import pytest

from btc_core.models import economics, scores


@pytest.fixture(scope="module")
def market() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True variance, realized variance and return of 50,000 periods."""
    rng = np.random.default_rng(2)
    variance = np.exp(rng.normal(-14.0, 0.7, 50_000))
    moves = rng.normal(size=(50_000, 20)) * np.sqrt(variance / 20.0)[:, np.newaxis]
    return variance, np.square(moves).sum(axis=1), moves.sum(axis=1) * 1e4


def test_a_perfect_forecast_has_the_best_value_of_each_measure() -> None:
    realized = np.array([1e-6, 4e-6])
    assert economics.target_error(realized, realized).tolist() == [0.0, 0.0]
    assert economics.realized_utility(realized, realized) == pytest.approx([4.0, 4.0])
    assert economics.width_regret(realized, realized) == pytest.approx([0.0, 0.0], abs=1e-12)


@pytest.mark.parametrize(("name", "sign"), [("target_error", -1), ("realized_utility", 1), ("width_regret", -1)])
def test_the_true_variance_is_worth_more_than_its_mean(
    market: tuple[np.ndarray, np.ndarray, np.ndarray], name: str, sign: int
) -> None:
    variance, realized, _returns = market
    measure = economics.MEASURES[name]
    found = economics.compared(measure(realized, variance), measure(realized, np.full_like(variance, variance.mean())))
    assert found["error"] is not None
    assert found["difference"] is not None
    assert sign * found["difference"] > 5.0 * found["error"]


@pytest.mark.parametrize("level", economics.RISK_LEVELS)
def test_a_right_value_at_risk_passes_both_tests_and_a_constant_one_fails(
    market: tuple[np.ndarray, np.ndarray, np.ndarray], level: float
) -> None:
    variance, _realized, returns = market
    bound = economics.value_at_risk_bps(returns, np.sqrt(variance) * 1e4, level)
    found = economics.breach_tests(returns < bound, level)
    assert found["breaches"] == pytest.approx(level, rel=0.1)
    assert found["kupiec_p"] > 0.01
    assert found["christoffersen_p"] > 0.01
    wrong = economics.breach_tests(returns < 1.3 * bound, level)
    assert wrong["kupiec_p"] < 1e-6


def test_clustered_breaches_fail_the_test_of_independence_with_the_right_share() -> None:
    breached = np.tile(np.repeat([True, False], [50, 950]), 20)
    found = economics.breach_tests(breached, 0.05)
    assert found["breaches"] == 0.05
    assert found["kupiec_p"] == pytest.approx(1.0)
    assert found["christoffersen_p"] < 1e-9
    assert found["conditional_p"] < 1e-9
    assert found["breaches_after_a_breach"] > 0.9


def test_no_breach_at_all_is_a_result_and_not_an_error() -> None:
    found = economics.breach_tests(np.zeros(1_000, np.bool_), 0.01)
    assert found["breaches"] == 0.0
    assert found["kupiec_p"] < 0.01


def test_a_later_return_changes_no_earlier_value_at_risk() -> None:
    returns = np.random.default_rng(0).normal(size=500)
    other = returns.copy()
    other[300:] *= 10.0
    sigma = np.ones(500)
    found = [economics.value_at_risk_bps(each, sigma, 0.05) for each in (returns, other)]
    assert np.array_equal(found[0][:301], found[1][:301])


def test_the_crps_of_quantiles_is_smaller_for_the_right_quantiles() -> None:
    actual = np.random.default_rng(1).normal(size=20_000)
    levels = (0.05, 0.1, 0.25, 0.75, 0.9, 0.95)
    right = np.tile(np.quantile(actual, levels), (len(actual), 1))
    losses = [scores.crps_of_quantiles(actual, right * factor, levels).mean() for factor in (0.7, 1.0, 1.4)]
    assert losses[1] < min(losses[0], losses[2])
