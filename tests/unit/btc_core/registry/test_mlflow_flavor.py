"""MLflow's own loader reads a bundle by its signature and gives the bundle's numbers."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest

from btc_core import names
from btc_core.features.catalogue import MODEL_FEATURES
from btc_core.mlflow_flavor import RETURNS, SIGMAS, describe
from btc_core.models import bundle
from btc_core.models.harx import INPUTS, fit_harx

if TYPE_CHECKING:
    from pathlib import Path


def models() -> list[bundle.VolatilityModel | bundle.BidModel]:
    rng = np.random.default_rng(7)
    inputs = rng.normal(-14.0, 1.0, (300, len(INPUTS)))
    realized = np.exp(rng.normal(-14.0, 0.3, (300, 5))) * np.arange(1, 6)
    harx = fit_harx(inputs, realized, 1.0)
    volatility = bundle.VolatilityModel(bundle.new_manifest(names.VOLATILITY_MODEL, "harx"), harx)
    return [volatility, bundle.random_walk_model()]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("model", "outputs"), [*zip(models(), (SIGMAS, RETURNS), strict=True)])
def test_mlflow_loads_a_bundle_with_its_signature_and_forecasts_its_own_example(
    model: bundle.VolatilityModel | bundle.BidModel, outputs: tuple[str, ...], tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow
    rows = np.full((1, len(MODEL_FEATURES)), -14.0)
    model.save(tmp_path, rows)
    describe(tmp_path, model.manifest, rows[0])
    loaded = mlflow.pyfunc.load_model(str(tmp_path))
    assert [column.name for column in loaded.metadata.get_output_schema()] == list(outputs)
    found = loaded.predict(loaded.input_example)
    expected = model.predict(rows) if isinstance(model, bundle.VolatilityModel) else np.zeros((1, 5))
    assert np.allclose(found.to_numpy(), expected)
