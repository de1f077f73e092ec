"""The online level follows the ratio of outcomes to forecasts, slowly and from earlier outcomes only."""

from __future__ import annotations

import math

import numpy as np
import pytest

from btc_core.models import level
from btc_core.models.targets import APART_NS
from btc_core.names import APART_MIN


def origins(count: int) -> np.ndarray:
    return 400_000 * APART_NS + np.arange(count) * APART_NS


def test_after_a_half_life_half_of_a_difference_is_left() -> None:
    steps = int(level.HALF_LIFE_MIN / APART_MIN)
    in_force = level.track(1.0, np.full(steps + 1, 3.0), origins(steps + 1))
    assert in_force[0] == 1.0
    assert in_force[-1] == pytest.approx(2.0)


def test_an_outcome_changes_the_levels_after_it_alone() -> None:
    ratio = np.ones(10)
    ratio[4] = 5.0
    in_force = level.track(1.0, ratio, origins(10))
    assert (in_force[:5] == 1.0).all()
    assert (in_force[5:] > 1.0).all()


def test_between_two_outcomes_that_move_it_the_level_stays_and_never_knows_an_outcome_before_it_is_final() -> None:
    minutes = 400_000 * APART_NS + np.arange(30) * APART_NS // APART_MIN
    ratio = np.ones(30)
    ratio[:APART_MIN] = 5.0
    in_force = level.track(1.0, ratio, minutes)
    assert (in_force[:APART_MIN] == 1.0).all(), "the first outcome is final one horizon later"
    assert (in_force[APART_MIN : 2 * APART_MIN] == in_force[APART_MIN]).all()
    assert in_force[APART_MIN] == level.update(1.0, 5.0)


def test_a_jump_counts_with_a_limit_and_a_missing_outcome_not_at_all() -> None:
    assert level.update(1.0, 1e9) == level.update(1.0, level.MAX_RATIO)
    assert level.update(1.3, math.nan) == 1.3


def test_sigma_is_multiplied_by_the_fourth_root() -> None:
    assert level.sigma_factor(16.0) == pytest.approx(2.0)
    assert level.sigma_factor(level.START) == 1.0
