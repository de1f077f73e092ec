"""The recipe holds every decision about a fit: each of its fields changes its digest, and what is fitted."""

from __future__ import annotations

import ast
import functools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from btc_core.clock import NS_PER_MIN
from btc_core.errors import BtcError
from btc_core.market.bars import BARS
from btc_core.models import fitting, recipe
from btc_core.models.bundle import BidModel, VolatilityModel, golden_rows, load_bundle
from btc_core.models.dataset import Frame, make_frame, split_by_time
from btc_core.models.pooling import pool_rows
from btc_core.models.recipe import RECIPE, DatasetRecipe, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL = msgspec.structs.replace(
    RECIPE,
    volatility=msgspec.structs.replace(
        RECIPE.volatility,
        harx_first_days=5.0,
        trees=3,
        net=msgspec.structs.replace(RECIPE.volatility.net, hidden=(8, 4), seeds=2, epochs=1),
    ),
    bid=msgspec.structs.replace(RECIPE.bid, trees=10, booster=msgspec.structs.replace(RECIPE.bid.booster, eta=0.5)),
)
"""The shipped recipe with few trees, which are grown quickly, and a history that is short enough for sixteen days."""

ANOTHER: dict[str, Any] = {
    "dataset.origin_step_min": 4,
    "dataset.every_minute_up_to_bars": 25_000,
    "dataset.embargo_after_label_min": 60,
    "dataset.min_bars": 25_000,
    "harx.window_days": 10.0,
    "harx.rv_windows_min": (5, 15, 60, 240),
    "harx.parkinson_windows_min": (1, 30),
    "harx.volume_windows_min": (1, 5),
    "harx.rv_floor_quantile": 0.1,
    "harx.rv_floor_min_ln2": 1e-5,
    "harx.ridge_rows": 3_000.0,
    "harx.hours_need_days": 30.0,
    "harx.min_rows": 10_000,
    "baselines.window_days": 10.0,
    "baselines.har_windows_min": (5, 60),
    "baselines.ewma_half_lives_min": (120,),
    "baselines.ar_windows_min": (1, 2),
    "baselines.ar_weight_half_life_min": 3,
    "baselines.min_rows": 10_000,
    "trees_need_days": 30.0,
    "volatility.harx_refit_days": 2,
    "volatility.harx_first_days": 9.0,
    "volatility.trees": 2,
    "volatility.net_share": 0.9,
    "volatility.correction_factor": 0.5,
    "volatility.harx_shape_share": 0.9,
    "volatility.net.hidden": (8, 5),
    "volatility.net.seeds": 1,
    "volatility.net.epochs": 2,
    "volatility.net.batch_rows": 256,
    "volatility.net.rate": 5e-3,
    "volatility.net.beta_1": 0.5,
    "volatility.net.beta_2": 0.9,
    "volatility.net.epsilon": 1e-3,
    "volatility.net.weight_decay": 0.5,
    "volatility.net.mean_of_weights": 0.5,
    "volatility.net.later_windows_min": (5,),
    "volatility.net.max_ratio": 0.5,
    "volatility.net.release_scale": 1.0,
    "volatility.harx_start_share": 0.9,
    "volatility.label_scale": 1e-30,
    "volatility.booster.objective": "reg:tweedie",
    "volatility.booster.base_score": 2.0,
    "bid.window_days": 14.5,
    "bid.trees": 5,
    "bid.max_move_sigmas": 0.5,
    "bid.lambda_count": 1,
    "bid.max_dm_t": -1e9,
    "bid.validation_parts": 500,
    "bid.validation_share": 0.6,
    "bid.booster.objective": "reg:pseudohubererror",
    "bid.booster.base_score": 1.0,
    "pool.max_rows": 1_000,
    "intervals.calibration_days": 5.0,
    "histogram_bins": 5,
}
"""For each decision another value, which makes a difference on the bars below."""
for _quantity in ("volatility", "bid"):
    ANOTHER |= {
        f"{_quantity}.booster.max_depth": 1,
        f"{_quantity}.booster.eta": 0.2,
        f"{_quantity}.booster.min_child_weight": 1_000,
        f"{_quantity}.booster.reg_lambda": 2_000.0,
        f"{_quantity}.booster.colsample_bytree": 0.2,
        f"{_quantity}.booster.subsample": 0.3,
        f"{_quantity}.booster.max_bin": 8,
        f"{_quantity}.booster.tree_method": "exact",
        f"{_quantity}.booster.seed": 8,
    }

FITTING_MODULES = ("baselines", "dataset", "fitting", "harx", "histograms", "net_fitting", "targets")


def decisions(struct: msgspec.Struct, path: str = "") -> dict[str, Any]:
    """Every field that is not a struct itself, by its path."""
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(struct):
        value = getattr(struct, field.name)
        place = f"{path}{field.name}"
        found |= decisions(value, f"{place}.") if isinstance(value, msgspec.Struct) else {place: value}
    return found


def changed(struct: Any, path: str, value: Any) -> Any:
    """The recipe with another value of one decision."""
    name, _, rest = path.partition(".")
    return msgspec.structs.replace(struct, **{name: changed(getattr(struct, name), rest, value) if rest else value})


@functools.cache
def bars() -> np.ndarray:
    """Sixteen days in which volatility clusters and half of each minute's move is reversed in the next minute."""
    rng, minutes = np.random.default_rng(12), 16 * 1440
    log_sigma, moves = np.zeros(minutes), np.zeros(minutes)
    shocks, draws = rng.normal(0.0, 0.15, minutes), rng.normal(size=minutes)
    for i in range(1, minutes):
        log_sigma[i] = 0.98 * log_sigma[i - 1] + shocks[i]
        moves[i] = 5e-4 * math.exp(log_sigma[i]) * draws[i] - 0.5 * moves[i - 1]
    close = 40_000.0 * np.exp(moves.cumsum())
    found = np.zeros(minutes, BARS)
    found["ts_ns"] = 1_704_067_200_000_000_000 + np.arange(minutes) * NS_PER_MIN
    found["close"], found["open"] = close, np.concatenate([close[:1], close[:-1]])
    found["high"], found["low"] = np.maximum(found["open"], close) * 1.0001, np.minimum(found["open"], close) * 0.9999
    found["volume"] = np.exp(log_sigma)
    return found


@functools.cache
def frame_of(chosen: DatasetRecipe) -> Frame:
    return make_frame(bars(), chosen)


def stages(chosen: Recipe) -> Iterator[list[Any]]:
    """What a recipe gives on the bars, stage by stage and as plain values, or the message of the error that it gives."""
    try:
        frame = frame_of(chosen.dataset)
        parts = (frame, *split_by_time(frame, 0.8, chosen.dataset.embargo_ns))
        yield [part.origin_ns.tobytes() for part in parts]
        usual = frame_of(RECIPE.dataset).take(slice(None, None, 10))
        rows = usual.matrix
        volatility = fitting.fit_volatility(frame, chosen)
        yield outputs(volatility, volatility.predict(rows, usual.columns), volatility.baseline_forecasts(rows))
        bid = fitting.fit_bid(frame, chosen)
        yield outputs(bid, bid.predict(rows, np.full((len(rows), 5), 8.0)), bid.baseline_forecasts(rows))
        yield [len(pool_rows("A/USD", frame, np.zeros((len(frame.origin_ns), 5)), chosen.pool.max_rows).origin_ns)]
    except (BtcError, ValueError) as error:
        yield [str(error)]


def outputs(model: VolatilityModel | BidModel, forecasts: np.ndarray, baselines: dict[str, np.ndarray]) -> list[Any]:
    manifest = msgspec.structs.replace(model.manifest, version="", created_ns=0, recipe="")
    return [manifest, *(each.tobytes() for each in (forecasts, *baselines.values()))]


@functools.cache
def stages_of_the_small_recipe() -> list[list[Any]]:
    return list(stages(SMALL))


def test_every_decision_has_another_value_here() -> None:
    assert sorted(ANOTHER) == sorted(decisions(RECIPE))
    assert not [path for path, value in decisions(RECIPE).items() if value == ANOTHER[path]]


def test_every_decision_changes_the_digest() -> None:
    digests = {changed(RECIPE, path, value).digest for path, value in ANOTHER.items()} | {RECIPE.digest}
    assert len(digests) == len(ANOTHER) + 1


@pytest.mark.parametrize(
    "inputs", ["MODEL_FEATURES", "COLUMNS_VERSION", "RV_TARGETS", "BID_TARGETS", "SCORED_QUANTILES"]
)
def test_other_inputs_or_outputs_change_the_digest(monkeypatch: pytest.MonkeyPatch, inputs: str) -> None:
    before = RECIPE.digest
    monkeypatch.setattr(recipe, inputs, getattr(recipe, inputs)[:-1])
    assert RECIPE.digest != before


@pytest.mark.parametrize("path", ANOTHER)
def test_every_decision_changes_what_is_fitted(path: str) -> None:
    other = stages(changed(SMALL, path, ANOTHER[path]))
    assert any(found != usual for found, usual in zip(other, stages_of_the_small_recipe(), strict=False))


def test_the_same_recipe_fits_the_same_models() -> None:
    _, volatility, bid, _ = stages_of_the_small_recipe()
    assert (volatility[0].kind, bid[0].kind) == ("xgboost", "xgboost")
    assert list(stages(SMALL)) == stages_of_the_small_recipe()


@pytest.mark.parametrize("module", FITTING_MODULES)
def test_a_module_that_fits_has_no_numbers_of_its_own(module: str) -> None:
    text = (Path(fitting.__file__).parent / f"{module}.py").read_text()
    for statement in ast.parse(text).body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        names = [target.id for target in targets if isinstance(target, ast.Name) and target.id.isupper()]
        numbers = [
            each.value
            for each in ast.walk(statement)
            if names and isinstance(each, ast.Constant) and isinstance(each.value, int | float)
        ]
        assert not numbers, f"{module}.{names[0]} is {numbers}: a decision belongs into the recipe"


def test_a_loaded_bundle_forecasts_by_the_recipe_that_it_was_fitted_with(tmp_path: Path) -> None:
    chosen = SMALL
    for path in ("harx.rv_windows_min", "harx.volume_windows_min", "baselines.har_windows_min",
                 "baselines.ar_windows_min", "volatility.harx_start_share", "volatility.harx_shape_share",
                 "volatility.net_share", "volatility.correction_factor"):  # fmt: skip
        chosen = changed(chosen, path, ANOTHER[path])
    frame = frame_of(RECIPE.dataset)
    fitted = fitting.fit_volatility(frame, chosen), fitting.fit_bid(frame, chosen)
    rows, columns = frame.matrix[::50], frame.columns[::50]
    sigma = np.full((len(rows), 5), 8.0)
    for number in range(2):
        fitted[number].save(tmp_path / str(number), golden_rows(frame.sample()))
    volatility, bid = (load_bundle(tmp_path / str(number)) for number in range(2))
    assert isinstance(volatility, VolatilityModel)
    assert isinstance(bid, BidModel)
    assert np.array_equal(volatility.predict(rows, columns), fitted[0].predict(rows, columns))
    assert np.array_equal(bid.predict(rows, sigma), fitted[1].predict(rows, sigma))
    for model, before in ((volatility, fitted[0]), (bid, fitted[1])):
        for name, forecast in before.baseline_forecasts(rows).items():
            assert np.array_equal(model.baseline_forecasts(rows)[name], forecast)
