"""The regime of a forecast is the third in which its σ stands, and it has a coverage of its own once it has enough outcomes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from btc_core.models.gate import MIN_OUTCOMES
from btc_core.models.regimes import Coverage, Judged, RecentCoverage, recent_coverage


def judged(count: int) -> list[Judged]:
    """Outcomes whose σ is 1 to `count`: the bid is outside in the low third, and the volatility in the high third."""
    rng = np.random.default_rng(1)
    third = count // 3
    return [
        (minute, float(sigma), sigma > third, sigma <= 2 * third)
        for minute, sigma in enumerate((rng.permutation(count) + 1).tolist())
    ]


def test_each_regime_has_the_coverage_of_its_third_of_the_outcomes() -> None:
    found = recent_coverage(judged(300))
    assert found.terciles_bps == pytest.approx((100.67, 200.33), abs=0.01)
    assert found.whole == Coverage(300, pytest.approx(2 / 3), pytest.approx(2 / 3))  # type: ignore[arg-type]
    assert found.at(3.0) == (Coverage(100, 0.0, 1.0), "low")
    assert found.at(150.0) == (Coverage(100, 1.0, 1.0), "normal")
    assert found.at(999.0) == (Coverage(100, 1.0, 0.0), "high")


def test_a_regime_with_too_few_outcomes_has_the_coverage_of_all() -> None:
    found = recent_coverage(judged(3 * (MIN_OUTCOMES - 1)))
    assert found.at(3.0) == (found.whole, None)
    assert recent_coverage(judged(3 * MIN_OUTCOMES)).at(3.0)[1] == "low"


def test_equal_forecasts_are_one_regime_and_no_outcomes_are_none() -> None:
    same = recent_coverage([(minute, 7.0, True, minute % 2 == 0) for minute in range(100)])
    assert same.at(7.0) == (Coverage(100, 1.0, 0.5), "normal")
    assert same.at(8.0) == (same.whole, None), "no outcome had such a σ"
    assert recent_coverage([]) == RecentCoverage()
    none, regime = recent_coverage([]).at(7.0)
    assert (none.outcomes, regime, math.isnan(none.bid)) == (0, None, True)
