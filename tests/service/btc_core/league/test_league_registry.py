"""A model of the league from its training to its process, with a real MLflow server and object store."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from btc_core.errors import SchemaError
from btc_core.features.user.values import UserColumns
from btc_core.league import bundles
from btc_core.league.folder import EntryFile, read_builtin
from btc_core.league.process import EntryFailed, EntryProcess
from btc_core.league.rows import INPUTS, rows_of
from btc_core.models.dataset import make_frame
from btc_core.models.recipe import RECIPE
from btc_core.stores.mlflow import MlflowClient
from tests.unit.btc_core.models.test_bundle import market

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from btc_assets.league_models import train_entry

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.settings import Settings

pytestmark = [
    pytest.mark.service,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore"),
]


def test_a_trained_model_is_registered_and_forecasts_in_its_process(
    own_servers: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, entry = own_servers("mlflow"), read_builtin("log_har")
    frame = make_frame(market(3_000), msgspec.structs.replace(RECIPE.dataset, min_bars=1))
    assert bundles.newest_version(settings, "log_har", "ETH/USD") is None
    rng = np.random.default_rng(1)
    own = UserColumns(("mine",), "abc", frame.origin_ns, rng.normal(size=(len(frame.origin_ns), 1)))
    found = train_entry(settings, entry, "ETH/USD", frame, own)
    version = bundles.newest_version(settings, "log_har", "ETH/USD")
    assert version == found["version"] == "1"
    assert found["train_rows"] == len(frame.origin_ns)
    assert "log_har / 5m" in found["scores"].value
    trained = bundles.load(settings, "log_har", "ETH/USD", version, own.version)
    with pytest.raises(SchemaError, match="trained on other inputs"):
        bundles.load(settings, "log_har", "ETH/USD", version)  # without the feature of the user
    assert (trained.source, trained.file_version) == (entry.source, entry.version)
    with EntryProcess(entry, (*INPUTS, "mine"), settings.league.memory_bytes) as process:
        process.use("ETH/USD", trained.model)
        sigma = process.predict("ETH/USD", rows_of(frame.take(slice(-10, None)), own), 10.0).sigma_bps
    assert np.isfinite(sigma).all()

    bad = EntryFile(
        "bad", Path("bad.py"), b"def fit(dataset):\n    return 1\ndef predict(model, rows):\n    return 1\n"
    )
    with pytest.raises(EntryFailed, match=r"bad\.py: predict returned the shape \(\)"):
        train_entry(settings, bad, "ETH/USD", frame, own)
    assert bundles.newest_version(settings, "bad", "ETH/USD") is None

    with monkeypatch.context() as patch:
        patch.setattr(bundles, "INPUTS_VERSION", "another")
        with pytest.raises(SchemaError, match="trained on other inputs"):
            bundles.load(settings, "log_har", "ETH/USD", version, own.version)
    client = MlflowClient(settings.mlflow, settings.store)
    client.put_artifact(f"{client.version('league-log_har-ETHUSD', version).source}/model.pkl", b"damaged")
    with pytest.raises(SchemaError, match="its SHA-256 is not the registered one"):
        bundles.load(settings, "log_har", "ETH/USD", version, own.version)
