"""The gates: luck promotes no model, a worse model does not pass, and a bad day demotes the champion."""

from __future__ import annotations

import numpy as np
import pytest

from btc_core.models import gate
from btc_core.names import VOLATILITY

DAY = 288
RNG = np.random.default_rng(3)


def losses(days: int, mean: float, seed: int) -> np.ndarray:
    """Losses with a part that all forecasters share at each time, as real losses have."""
    common = np.random.default_rng(1).gamma(2.0, 0.5, days * DAY)
    own = np.random.default_rng(seed).normal(0.0, 0.05, days * DAY)
    return np.abs(common * mean + own)


def days_of(count: int) -> np.ndarray:
    return np.repeat(np.arange(count), DAY)


def test_a_refresh_that_is_as_good_as_the_champion_and_better_than_the_baseline_passes() -> None:
    verdict = gate.refresh(losses(7, 0.45, 2), losses(7, 0.45, 3), {"harx": losses(7, 0.5, 4)})
    assert (verdict.passed, verdict.beats_baselines) == (True, True), verdict.reason


def test_a_refresh_that_is_worse_than_the_champion_is_refused() -> None:
    verdict = gate.refresh(losses(7, 0.47, 2), losses(7, 0.45, 3), {"harx": losses(7, 0.5, 4)})
    assert not verdict.passed
    assert "of the champion's" in verdict.reason


def test_a_champion_is_not_compared_on_days_that_it_was_fitted_on() -> None:
    candidate, champion, baselines = losses(7, 0.45, 2), losses(7, 0.30, 3), {"harx": losses(7, 0.5, 4)}
    champion[-DAY:] = losses(7, 0.45, 5)[-DAY:]
    assert not gate.refresh(candidate, champion, baselines).passed
    champion[:-DAY] = np.nan
    verdict = gate.refresh(candidate, champion, baselines)
    assert verdict.passed, verdict.reason
    assert f"on the {DAY} that it was not fitted on" in verdict.reason
    champion[:-10] = np.nan
    assert "all but 10 of them" in gate.refresh(candidate, champion, baselines).reason


def test_a_refresh_that_does_not_beat_the_best_baseline_serves_as_that_baseline() -> None:
    verdict = gate.refresh(losses(7, 0.505, 2), None, {"har": losses(7, 0.6, 3), "harx": losses(7, 0.5, 4)})
    assert (verdict.passed, verdict.beats_baselines) == (True, False)
    assert "harx" in verdict.reason


def test_a_model_that_looks_better_by_chance_is_not_promoted() -> None:
    """Twenty candidates no better than the champion, each the best of its own luck: none may pass."""
    champion = losses(14, 0.45, 100)
    verdicts = [gate.change(losses(14, 0.45, seed), champion, days_of(14), VOLATILITY, 0.9) for seed in range(20)]
    assert any(verdict.figures["ratio_to_champion"] < 1.0 for verdict in verdicts)
    assert not any(verdict.passed for verdict in verdicts)


def test_a_better_model_is_promoted_after_two_weeks_and_not_before() -> None:
    better, champion = losses(14, 0.43, 5), losses(14, 0.45, 6)
    assert gate.change(better, champion, days_of(14), VOLATILITY, 0.9).passed
    early = gate.change(better[: 5 * DAY], champion[: 5 * DAY], days_of(5), VOLATILITY, 0.9)
    assert not early.passed
    assert "5 days in shadow, 14 are needed" in early.reason


def test_a_better_model_with_one_terrible_day_or_wrong_intervals_is_not_promoted() -> None:
    better, champion = losses(14, 0.40, 5), losses(14, 0.45, 6)
    terrible = better.copy()
    terrible[:DAY] *= 1.6
    assert "worst day" in gate.change(terrible, champion, days_of(14), VOLATILITY, 0.9).reason
    assert "covers 80.0%" in gate.change(better, champion, days_of(14), VOLATILITY, 0.8).reason


def test_a_champion_without_any_loss_is_not_outdone_and_one_without_loss_on_a_day_passes_nobody() -> None:
    ones, days = np.ones(4), np.array([0, 0, 1, 1])
    none = gate.change(ones, np.zeros(4), days, VOLATILITY, 0.9)
    assert (none.passed, none.reason) == (False, "the champion's loss is 0 on all 4 rows: none is smaller")
    assert "worst day inf of the champion's" in gate.change(ones, np.array([0, 0, 2, 2]), days, VOLATILITY, 0.9).reason


def test_a_loss_far_above_the_baseline_or_low_coverage_demotes_and_less_than_an_hour_decides_nothing() -> None:
    inside = np.ones(360, np.bool_)
    inside[::10] = False
    good, baselines = losses(5, 0.45, 5), {"harx": losses(5, 0.5, 6)}
    assert gate.live(good, baselines, inside).passed
    assert not gate.live(good * 1.5, baselines, inside).passed
    outside = inside.copy()
    outside[:60] = False
    assert not gate.live(good, baselines, outside).passed
    few = {name: each[:50] for name, each in baselines.items()}
    assert gate.live(good[:50] * 9.0, few, outside[:50]).passed


def test_the_fit_with_the_smaller_loss_is_chosen_and_the_reason_names_both() -> None:
    rng = np.random.default_rng(5)
    own = rng.gamma(2.0, 0.25, 2_000)
    better, worse = own * 0.95, own * 1.05
    chosen = gate.choose(own, better, 4)
    assert chosen.is_pooled
    assert chosen.reason.startswith("the fit over 4 markets is the candidate: pooled loss 0.950 of the own fit's")
    assert chosen.figures["ratio_pooled_to_own"] == pytest.approx(0.95)
    kept = gate.choose(own, worse, 4)
    assert not kept.is_pooled
    assert kept.reason.startswith("the market's own fit is the candidate: pooled loss 1.050")
    assert not gate.choose(own, own.copy(), 4).is_pooled


def test_in_a_new_market_a_smaller_loss_is_enough_and_an_equal_one_is_not() -> None:
    rng = np.random.default_rng(5)
    harx = rng.gamma(2.0, 0.25, 150)
    noise = rng.normal(0.0, 0.15, 150)
    losses = harx * 0.99 + noise - noise.mean()
    assert not gate.refresh(losses, None, {"harx": harx}).beats_baselines
    verdict = gate.refresh(losses, None, {"harx": harx}, is_new_market=True)
    assert verdict.passed
    assert verdict.beats_baselines
    assert "in a new market" in verdict.reason
    assert not gate.refresh(harx, None, {"harx": harx}, is_new_market=True).beats_baselines


WEEK = 7 * 1_440
"""A week of outcomes, one a minute."""


def overlapping(mean: float, seed: int, count: int = WEEK) -> np.ndarray:
    """Losses of outcomes over five minutes, one a minute, so that neighbours share four fifths of theirs."""
    common = np.random.default_rng(1).gamma(2.0, 0.5, count + 4)
    own = np.random.default_rng(seed).normal(0.0, 0.3, count + 4)
    return mean * np.abs(np.convolve(common + own, np.ones(5) / 5.0, "valid"))


def test_a_champion_of_any_kind_is_outdone_only_beyond_all_doubt_and_after_half_a_day() -> None:
    worse, baselines = overlapping(0.5, 2), {"har": overlapping(0.55, 3), "ewma": overlapping(0.45, 4)}
    verdict = gate.outdone(worse, baselines)
    assert (verdict.passed, verdict.best) == (False, "ewma")
    assert verdict.figures["ratio_to_baseline"] == pytest.approx(1.11, abs=0.01)
    few = {name: each[: gate.REPLACE_MIN_OUTCOMES - 1] for name, each in baselines.items()}
    assert gate.outdone(worse[: gate.REPLACE_MIN_OUTCOMES - 1], few).passed
    assert gate.outdone(worse, {}).passed
    nearly = gate.outdone(overlapping(0.455, 2), baselines)
    assert nearly.passed, "less than two percent are not worth a change"
    assert not gate.outdone(worse, {"ewma": worse * 0.97}).passed, "three percent without any noise are"


def test_forecasts_that_are_equally_good_do_not_take_turns() -> None:
    """A hundred weeks of overlapping outcomes, each with four forecasts that differ by noise alone."""
    replaced = 0
    for week in range(100):
        champion, *others = (overlapping(0.5, 10 * week + each) for each in range(4))
        replaced += not gate.outdone(champion, {str(place): each for place, each in enumerate(others)}).passed
    assert replaced <= 1


def test_who_took_over_is_not_replaced_by_the_outcomes_that_it_took_over_with() -> None:
    """Whatever the losses: if one baseline replaces another, the same rows do not give the place back."""
    rng = np.random.default_rng(8)
    for _ in range(50):
        champion, baseline = (rng.gamma(2.0, scale, WEEK) for scale in rng.uniform(0.2, 0.3, 2))
        if not gate.outdone(champion, {"ewma": baseline}).passed:
            assert gate.outdone(baseline, {"harx": champion}).passed


def test_a_baseline_serves_first_only_if_it_is_better_than_the_usual_one_beyond_the_bound() -> None:
    harx, better, similar = losses(14, 0.5, 2), losses(14, 0.45, 3), losses(14, 0.4999, 4)
    assert gate.serving_baseline({"harx": harx, "ewma": better}, "harx") == "ewma"
    assert gate.serving_baseline({"harx": harx, "ewma": similar}, "harx") == "harx"
    assert gate.serving_baseline({"harx": harx}, "harx") == "harx"


def test_trees_in_shadow_win_by_a_clear_gain_on_half_a_day_of_live_rows() -> None:
    assert gate.won(0.97, 0.98, gate.WON_MIN_ROWS).passed
    assert not gate.won(0.97, 0.98, gate.WON_MIN_ROWS - 1).passed
    assert not gate.won(0.97, 0.995, gate.WON_MIN_ROWS).passed, "the 99 % bound is above 1"
    few = gate.won(0.995, 0.996, gate.WON_MIN_ROWS)
    assert not few.passed, "so small a gain is judged by a training, on fourteen days"
    assert few.reason == (
        "live loss 0.9950 of the baseline's (at most 0.99, 99 % bound 0.9964, must be below 1) on 144 rows (at least 144)"
    )


def test_trees_of_the_bid_without_a_proven_shrinkage_pass_only_as_the_baseline() -> None:
    rng = np.random.default_rng(8)
    walk = rng.gamma(1.0, 1.0, 2_000)
    verdict = gate.unproven(0.9 * walk, {"random_walk": walk, "ar": walk + 0.1}, 0.1)
    assert (verdict.result, verdict.figures["ratio_to_baseline"]) == ("baseline", pytest.approx(0.9))
    assert "with λ = 0.1, loss 0.9000 of random_walk's" in verdict.reason
