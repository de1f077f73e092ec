"""PSI: silent without drift whatever the sample size, loud with it."""

from __future__ import annotations

import numpy as np

from btc_core.models import drift

RNG = np.random.default_rng(4)
EDGES = drift.edges_of(RNG.normal(size=50_000))


def test_values_of_the_same_distribution_stay_below_what_chance_gives() -> None:
    for rows in (150, 1_440, 10_080):
        index, by_chance = drift.psi(EDGES, RNG.normal(size=rows))
        assert index < by_chance


def test_a_shifted_feature_is_beyond_both_bounds_and_a_missing_one_too() -> None:
    for values in (RNG.normal(1.0, 1.0, 2_000), np.full(2_000, np.nan)):
        index, by_chance = drift.psi(EDGES, values)
        assert index > drift.LARGE
        assert index > by_chance


def test_a_constant_feature_does_not_drift_while_it_stays() -> None:
    edges = drift.edges_of(np.ones(1_000))
    assert drift.psi(edges, np.ones(100))[0] < 0.01
    assert drift.psi(edges, np.zeros(100))[0] > drift.LARGE
