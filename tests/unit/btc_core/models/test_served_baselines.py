"""Every baseline that is scored live can serve: a bundle of its kind gives the forecasts that were scored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from btc_core.errors import SchemaError
from btc_core.features import catalogue, minute_columns
from btc_core.models import bundle, dataset, fitting
from btc_core.models.baselines import fit_autoregression
from btc_core.models.explain import explain
from btc_core.models.manifest import new_manifest
from btc_core.names import BID_MODEL
from tests.unit.btc_core.models.test_bundle import market

if TYPE_CHECKING:
    from pathlib import Path

    from btc_core.names import VolatilityBaseline


@pytest.fixture(scope="module")
def frame() -> dataset.Frame:
    return dataset.make_frame(market(2 * 1440))


@pytest.fixture(scope="module")
def model() -> bundle.VolatilityModel:
    return fitting.harx_bundle(market(1440))


@pytest.fixture(scope="module")
def bid(frame: dataset.Frame) -> bundle.BidModel:
    manifest = new_manifest(BID_MODEL, "random_walk", shrinkage=(0.0,) * 5)
    return bundle.BidModel(manifest, autoregression=fit_autoregression(frame.matrix, frame.bid_bps))


@pytest.mark.parametrize("kind", ["harx", "har", "ewma", "naive"])
def test_each_baseline_of_the_volatility_serves_from_the_bundle_that_scores_it(
    frame: dataset.Frame, model: bundle.VolatilityModel, kind: VolatilityBaseline, tmp_path: Path
) -> None:
    served = model.as_baseline(kind)
    assert (served.kind, served.version) == (kind, f"{kind}-{model.manifest.created_ns // 10**9}")
    served.save(tmp_path, bundle.golden_rows(frame.sample()))
    loaded = bundle.load_bundle(tmp_path)
    assert isinstance(loaded, bundle.VolatilityModel)
    rows, columns = frame.matrix[200:210], frame.columns[200:210]
    scored = {"harx": model.baseline(rows), **model.baseline_forecasts(rows)}[kind]
    sigma, harx = loaded.predict_both(rows, columns)
    assert np.allclose(sigma, np.maximum.accumulate(scored, axis=1), rtol=1e-12)
    assert np.array_equal(harx, model.baseline(rows))
    assert bundle.served_kinds(loaded, columns) == [kind] * 10
    alone = np.vstack([loaded.predict(rows[place : place + 1]) for place in range(len(rows))])
    assert np.array_equal(alone, sigma), "one row at a time and without columns, to the last bit"
    parts = explain(loaded, rows[:1], columns[:1])
    assert np.exp(0.5 * (parts.harx + parts.offset)) * 1e4 == pytest.approx(sigma[0, -1])
    assert loaded.as_baseline("har").kind == "har", "one baseline can be replaced by another"


def test_each_baseline_of_the_bid_serves_from_the_bundle_that_scores_it(
    frame: dataset.Frame, bid: bundle.BidModel, tmp_path: Path
) -> None:
    bid.as_baseline("ar").save(tmp_path, bundle.golden_rows(frame.sample()))
    loaded = bundle.load_bundle(tmp_path)
    assert isinstance(loaded, bundle.BidModel)
    rows, sigma = frame.matrix[:10], np.ones((10, 5))
    returns = loaded.predict(rows, sigma)
    assert np.array_equal(returns, bid.baseline_forecasts(rows)["ar"])
    alone = np.vstack([loaded.predict(rows[place : place + 1], sigma[:1]) for place in range(len(rows))])
    assert np.array_equal(alone, returns), "one row at a time, to the last bit"
    assert not loaded.as_baseline().predict(rows, sigma).any()


def test_a_baseline_that_a_bundle_does_not_have_is_refused(model: bundle.VolatilityModel, tmp_path: Path) -> None:
    without = bundle.VolatilityModel(model.as_baseline("ewma").manifest, model.harx)
    assert without.servable_baselines == ("harx",)
    with pytest.raises(SchemaError, match="has no baseline ewma"):
        without.as_baseline("ewma")
    with pytest.raises(SchemaError, match="has no baseline ar"):
        bundle.random_walk_model().as_baseline("ar")
    without.save(
        tmp_path, bundle.golden_rows(np.empty((0, len(catalogue.MODEL_FEATURES) + len(minute_columns.COLUMNS))))
    )
    with pytest.raises(SchemaError, match="of kind ewma and has no baselines"):
        bundle.load_bundle(tmp_path)
