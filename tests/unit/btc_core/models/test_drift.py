"""PSI: below its chance level without drift whatever the sample size, far above it with drift."""

from __future__ import annotations

import numpy as np
import pytest

from btc_core.models import drift
from btc_core.models.histograms import histogram_of

RNG = np.random.default_rng(4)
TRAINING = histogram_of(RNG.normal(size=50_000), bins=10)


def test_values_of_the_same_distribution_stay_below_what_chance_gives() -> None:
    for rows in (150, 1_440, 10_080):
        index, by_chance = drift.psi(TRAINING, RNG.normal(size=rows))
        assert index < by_chance


def test_the_chance_level_is_the_chi_square_quantile_of_a_tenth_of_the_values() -> None:
    from scipy.stats import chi2

    _, by_chance = drift.psi(TRAINING, RNG.normal(size=1_440))
    assert by_chance == pytest.approx(chi2.ppf(0.999, df=9) / 144.0)


def test_a_shifted_feature_is_beyond_both_bounds_and_a_missing_one_too() -> None:
    for values in (RNG.normal(1.0, 1.0, 2_000), np.full(2_000, np.nan)):
        index, by_chance = drift.psi(TRAINING, values)
        assert index > drift.LARGE
        assert index > by_chance


def test_a_constant_feature_drifts_only_when_its_value_changes() -> None:
    training = histogram_of(np.ones(1_000), bins=10)
    assert drift.psi(training, np.ones(100))[0] < 0.01
    assert drift.psi(training, np.zeros(100))[0] > drift.LARGE
