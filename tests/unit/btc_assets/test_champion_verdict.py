"""Which champions live outcomes replace: made-up losses of a week, and what follows from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btc_assets.skill import champion_verdict
from btc_assets.training import _baseline_of
from btc_core.models import gate
from btc_core.models.baselines import Autoregression, Baselines
from btc_core.models.bundle import BidModel, VolatilityModel
from btc_core.models.harx import INPUTS, fit_harx
from btc_core.models.manifest import UserEntry, build_id, new_manifest
from btc_core.names import BASELINES, BID_MODEL, VOLATILITY, VOLATILITY_MODEL

if TYPE_CHECKING:
    from btc_core.names import ModelKind

MINUTES = 2 * 1440
MEANS = {"harx": 0.5, "har": 0.6, "ewma": 0.6, "naive": 1.2}
FIVE = (0.0,) * 5


def champion(kind: ModelKind, version: str = "7", *, has_baselines: bool = True) -> VolatilityModel:
    rng = np.random.default_rng(7)
    harx = fit_harx(rng.normal(-14.0, 1.0, (300, len(INPUTS))), np.exp(rng.normal(-14.0, 0.3, (300, 5))), 1.0)
    simple = Baselines((5,), ((0.0, 1.0),) * 5, FIVE, 10, FIVE, FIVE) if has_baselines else None
    manifest = new_manifest(VOLATILITY_MODEL, kind)
    model = VolatilityModel(manifest, harx, baselines=simple)
    model.manifest = type(manifest)(
        name=VOLATILITY_MODEL, kind=kind, version=version, created_ns=1, targets=manifest.targets, unit=""
    )
    return model


def outcomes(means: dict[str, float], served: float, *versions: tuple[str, str, int], seed: int = 2) -> pd.DataFrame:
    """Outcomes, one a minute, whose QLIKE have these means; `versions` are (kind, version, minutes) from the oldest on.

    All forecasts share most of their loss, as in a market, and 90 % are inside the interval.
    """
    rng = np.random.default_rng(seed)
    minutes = sum(count for _, _, count in versions)
    common = np.convolve(rng.gamma(2.0, 0.5, minutes + 4), np.ones(5) / 5.0, "valid")
    rows: dict[str, Any] = {
        f"qlike_{name}_5m": mean * np.abs(common + rng.normal(0.0, 0.05, minutes))
        for name, mean in {"model": served, **means}.items()
    }
    rows["volatility_inside_90"] = np.arange(minutes) % 10 != 0
    rows["ts_event"] = np.arange(minutes) * 60_000_000_000
    for place, name in enumerate(("kind", "version")):
        rows[f"volatility_model_{name}"] = pd.Categorical(
            np.repeat([each[place] for each in versions], [each[2] for each in versions])
        )
    return pd.DataFrame(rows)


@pytest.mark.parametrize("kind", ["xgboost", *BASELINES[VOLATILITY]])
def test_the_best_baseline_takes_over_from_a_champion_of_any_kind(kind: ModelKind) -> None:
    best = "ewma" if kind != "ewma" else "har"
    means = MEANS | {best: 0.45, kind: 0.5}
    verdict = champion_verdict(outcomes(means, 0.5, (kind, "7", MINUTES)), champion(kind), VOLATILITY)
    assert (verdict.passed, verdict.best) == (False, best), verdict.reason
    stays = champion_verdict(outcomes(MEANS | {kind: 0.45}, 0.45, (kind, "7", MINUTES)), champion(kind), VOLATILITY)
    assert stays.passed, stays.reason


def test_the_bid_has_the_autoregression_and_the_random_walk() -> None:
    rng = np.random.default_rng(3)
    moves = rng.normal(0.0, 5.0, MINUTES)
    rows = outcomes(MEANS, 0.5, ("random_walk", "3", MINUTES)).rename(
        columns={f"volatility_model_{each}": f"bid_model_{each}" for each in ("kind", "version")}
    )
    rows = rows.assign(bid_return_5m_bps=moves, bid_forecast_5m_bps=0.0, bid_ar_5m_bps=0.4 * moves, bid_inside_90=True)
    manifest = new_manifest(BID_MODEL, "random_walk", shrinkage=FIVE)
    plain = BidModel(manifest)
    fitted = BidModel(manifest, autoregression=Autoregression((5,), ((0.4,),) * 5))
    assert champion_verdict(rows, plain, "bid").passed, "its bundle holds no other baseline"
    verdict = champion_verdict(rows, fitted, "bid")
    assert (verdict.passed, verdict.best) == (False, "ar")


def test_a_new_kind_is_judged_by_its_own_outcomes_only() -> None:
    means, ewma = MEANS | {"harx": 0.4}, champion("ewma", "9")
    young = outcomes(means, 0.6, ("harx", "8", MINUTES), ("ewma", "9", gate.REPLACE_MIN_OUTCOMES - 1))
    verdict = champion_verdict(young, ewma, VOLATILITY)
    assert verdict.passed
    assert f"{gate.REPLACE_MIN_OUTCOMES - 1} outcomes" in verdict.reason
    refitted = outcomes(means, 0.6, ("harx", "8", 500), ("ewma", "9", 400), ("ewma", "10", 400))
    assert champion_verdict(refitted, champion("ewma", "10"), VOLATILITY).best == "harx", "a refit is of the same kind"
    fallback = outcomes(means, 0.6, ("xgboost", "9", 400), ("harx", "9", 100), ("xgboost", "9", 400))
    assert champion_verdict(fallback, champion("xgboost", "9"), VOLATILITY).best == "harx"
    assert champion_verdict(fallback, champion("harx", "9"), VOLATILITY).passed, "rows of trees say nothing about HARX"


def test_trees_with_a_bad_hour_are_replaced_at_once_and_a_baseline_is_not() -> None:
    hour = outcomes(MEANS | {"ewma": 0.4}, 0.9, ("xgboost", "7", 120))
    verdict = champion_verdict(hour, champion("xgboost"), VOLATILITY)
    assert (verdict.passed, verdict.best) == (False, "ewma")
    assert champion_verdict(hour.assign(volatility_model_kind="naive"), champion("naive"), VOLATILITY).passed
    narrow = outcomes(MEANS, 0.45, ("xgboost", "7", 120)).assign(volatility_inside_90=False)
    assert champion_verdict(narrow, champion("xgboost"), VOLATILITY).best == "harx", "too narrow intervals count, too"


def of_user(version: str) -> VolatilityModel:
    """A version of a user's model with trees as its stand-in."""
    model = champion("xgboost", version)
    return model.with_manifest(msgspec.structs.replace(model.manifest, user=UserEntry("mine", "f", "1")))


def test_a_model_of_the_user_is_judged_with_the_rows_of_its_stand_in_and_over_its_fits() -> None:
    means = MEANS | {"ewma": 0.4}
    rows = outcomes(means, 0.6, ("xgboost", "7", 500), ("user", "8", 300), ("xgboost", "8", 100), ("user", "9", 400))
    assert champion_verdict(rows, of_user("9"), VOLATILITY).best == "ewma"
    assert champion_verdict(rows, champion("xgboost", "7"), VOLATILITY).passed, (
        "rows of a user's version say nothing of trees"
    )
    hour = outcomes(means, 0.9, ("xgboost", "7", 500), ("user", "8", 100), ("xgboost", "8", 20))
    assert champion_verdict(hour, of_user("8"), VOLATILITY).best == "ewma", "a bad hour of its own is enough"
    fresh = outcomes(means, 0.9, ("xgboost", "7", 500), ("user", "8", 30))
    assert champion_verdict(fresh, of_user("8"), VOLATILITY).passed


def test_only_baselines_that_the_bundle_holds_take_over_and_rows_without_them_do_not_count() -> None:
    rows = outcomes(MEANS | {"ewma": 0.4}, 0.5, ("harx", "7", MINUTES))
    assert champion_verdict(rows, champion("harx", has_baselines=False), VOLATILITY).passed
    rows.loc[: MINUTES - 100, "qlike_har_5m"] = np.nan
    assert champion_verdict(rows, champion("harx"), VOLATILITY).passed, "a hundred outcomes are not enough"
    assert champion_verdict(rows.iloc[:0], champion("harx"), VOLATILITY).passed


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from(BASELINES[VOLATILITY]),
    st.lists(st.floats(0.3, 0.9), min_size=4, max_size=4),
)
def test_whatever_the_losses_whoever_took_over_stays_on_the_same_rows(
    seed: int, kind: Any, losses: list[float]
) -> None:
    means = dict(zip(BASELINES[VOLATILITY], losses, strict=True))
    rows = outcomes(means, 1.0, (kind, "7", MINUTES), seed=seed)
    rows["qlike_model_5m"] = rows[f"qlike_{kind}_5m"]
    verdict = champion_verdict(rows, champion(kind), VOLATILITY)
    if verdict.passed:
        assert means[kind] < 1.1 * min(losses)
        return
    means_seen = {name: rows[f"qlike_{name}_5m"].mean() for name in means}
    assert verdict.best == min(means_seen, key=lambda name: means_seen[name])
    swapped = rows.assign(qlike_model_5m=rows[f"qlike_{verdict.best}_5m"], volatility_model_kind=verdict.best)
    assert champion_verdict(swapped, champion(next(k for k in means if k == verdict.best)), VOLATILITY).passed


def test_a_training_refits_the_baseline_that_live_outcomes_chose_and_else_the_best_one() -> None:
    fitted, losses = champion("xgboost"), {name: np.full(500, mean) for name, mean in (MEANS | {"ewma": 0.4}).items()}
    for kind in BASELINES[VOLATILITY]:
        assert _baseline_of(champion(kind), losses, fitted) == kind
    assert _baseline_of(champion("xgboost"), losses, fitted) == _baseline_of(None, losses, fitted) == "ewma"
    assert _baseline_of(None, {"harx": losses["harx"]}, fitted) == "harx", "a new market compares HARX alone"
    assert _baseline_of(None, losses, champion("xgboost", has_baselines=False)) == "harx"


def test_a_build_id_names_what_the_model_is() -> None:
    assert build_id("harx", 1_795_868_678 * 10**9) == "harx-1795868678"
