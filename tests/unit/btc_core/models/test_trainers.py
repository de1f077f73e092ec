"""Trees grown in memory and on a Dask cluster give the same forecasts, as far as they see the same bins and rows."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from btc_core.clock import NS_PER_MIN
from btc_core.errors import ConfigError
from btc_core.market.bars import BARS
from btc_core.models import fitting, trainers
from btc_core.models.dataset import make_frame
from btc_core.models.recipe import RECIPE
from btc_core.settings import ModelSettings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

BINS = RECIPE.volatility.booster.max_bin
ROWS, UNSEEN, FEATURES, ROUNDS = 20_000, 5_000, 12, 100

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # Dask's worker processes raise it when they exit


class Market(msgspec.Struct, frozen=True):
    """Gamma noise around a smooth function of some features; a fifth of the values is missing."""

    matrix: Any
    label: Any
    margin: Any


@pytest.fixture(scope="module")
def market() -> Market:
    rng = np.random.default_rng(4)
    matrix = rng.normal(size=(ROWS + UNSEEN, FEATURES))
    margin = 0.3 * matrix[:, 0]
    level = np.exp(margin + 0.5 * np.sin(2.0 * matrix[:, 1]) + 0.2 * matrix[:, 2] * matrix[:, 3])
    matrix[rng.random(matrix.shape) < 0.2] = np.nan
    return Market(matrix, level * rng.gamma(2.0, 0.5, len(level)), margin)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The scheduler of two worker processes."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(autouse=True)
def _many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainers, "BLOCK_ROWS", 3_000)


def forecast(opened: AbstractContextManager[trainers.TrainBooster], market: Market, **params: float) -> np.ndarray:
    """Logs of the forecasts for every row, from trees grown on the first `ROWS`."""
    with opened as train:
        booster = train(
            {**RECIPE.volatility.booster.params(), **params}, ROUNDS, market.label[:ROWS], market.margin[:ROWS]
        )
    rows = market.matrix.astype(np.float32)
    return np.asarray(booster.inplace_predict(rows, predict_type="margin", base_margin=market.margin))


def test_where_every_value_has_its_bin_and_rows_are_not_sampled_both_grow_the_same_trees(
    market: Market, address: str
) -> None:
    coarse = msgspec.structs.replace(market, matrix=np.round(market.matrix * 4.0).clip(-10.0, 10.0))
    seen = coarse.matrix[:ROWS]
    memory, cluster = (
        forecast(opened, coarse, subsample=1.0)
        for opened in (trainers.in_memory(seen, BINS), trainers.on_cluster(seen, BINS, address))
    )
    assert memory.std() > 0.3
    assert np.abs(cluster - memory).max() < 1e-5, "sums of two workers may differ in the last digit of float32"


def test_with_bins_of_its_own_a_cluster_differs_no_more_than_another_seed_does(market: Market, address: str) -> None:
    seen = market.matrix[:ROWS]
    memory, other_seed = (forecast(trainers.in_memory(seen, BINS), market, seed=seed) for seed in (7, 8))
    cluster = forecast(trainers.on_cluster(seen, BINS, address), market)
    assert rms(cluster - memory) < 1.3 * rms(other_seed - memory)
    assert deviance(cluster, market) == pytest.approx(deviance(memory, market), rel=0.005)


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values).mean()))


def deviance(logs: np.ndarray, market: Market) -> float:
    """Mean gamma deviance on the rows that no tree has seen."""
    ratio = market.label[ROWS:] / np.exp(logs[ROWS:])
    return float(2.0 * (ratio - np.log(ratio) - 1.0).mean())


def test_the_setting_decides_where_the_trees_of_a_model_are_grown(address: str) -> None:
    rng = np.random.default_rng(6)
    bars = np.zeros(20 * 1440, BARS)
    bars["ts_ns"] = 1_700_000_040_000_000_000 // NS_PER_MIN * NS_PER_MIN + np.arange(len(bars)) * NS_PER_MIN
    bars["close"] = 30_000.0 * np.exp(rng.normal(0.0, 5e-4, len(bars)).cumsum())
    bars["open"] = bars["high"] = bars["low"] = bars["close"]
    frame = make_frame(bars)
    chosen = (ModelSettings(), ModelSettings(trainer="dask", dask_address=address))
    memory, cluster = (fitting.fit_volatility(frame, trainer=trainers.trainer_of(settings)) for settings in chosen)
    assert memory.kind == cluster.kind == "xgboost"
    sigma, from_cluster = (np.log(model.predict(frame.matrix, frame.columns)) for model in (memory, cluster))
    assert 0.0 < rms(from_cluster - sigma) < 0.1


@pytest.mark.parametrize(
    ("address", "missing", "words"),
    [("", "", "BTC_MODEL_DASK_ADDRESS"), ("tcp://127.0.0.1:1", "distributed", re.escape("dask[distributed]"))],
)
def test_a_cluster_without_an_address_or_its_packages_is_refused_with_the_fix(
    monkeypatch: pytest.MonkeyPatch, address: str, missing: str, words: str
) -> None:
    if missing:
        monkeypatch.setitem(sys.modules, missing, None)
    chosen = ModelSettings(trainer="dask", dask_address=address)
    with pytest.raises(ConfigError, match=words), trainers.trainer_of(chosen)(np.zeros((10, 2)), BINS):
        pass
