"""The registry against a real MLflow server, artifacts through the server and straight to a real object store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest

from btc_core import names
from btc_core.errors import InvalidInput, NotReady, SchemaError, StoreError
from btc_core.features import catalogue
from btc_core.models import bundle
from btc_core.models.gate import Verdict
from btc_core.names import HORIZONS_MIN
from btc_core.registry import bundles, promotion
from btc_core.settings import MlflowSettings, ModelSettings, Settings, StoreSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [
    pytest.mark.service,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore"),
]

NAME = names.BID_MODEL
PICTURE = b"\x89PNG and what follows"
PASSED = Verdict(passed=True, reason="loss 0.990 of the champion's", figures={"ratio_to_champion": 0.99})


@pytest.fixture(scope="module")
def proxied(own_servers: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """An MLflow that knows no model yet, with a cache of its own."""
    cache = ModelSettings(cache_dir=tmp_path_factory.mktemp("cache"))
    return own_servers("mlflow").model_copy(update={"model": cache})


def _save(folder: Path, shrinkage: float = 0.0) -> Path:
    manifest = bundle.new_manifest(
        NAME, "random_walk", shrinkage=(shrinkage,) * len(HORIZONS_MIN), scores={"model/5m/mse_ratio": 0.999}
    )
    bundle.BidModel(manifest).save(folder, np.zeros((2, len(catalogue.MODEL_FEATURES))))
    return folder


def _champion(settings: Settings, folder: Path, params: dict[str, str] | None = None) -> bundles.Registered:
    """Register a bundle with a picture and promote it."""
    registered = bundles.register(settings, folder, PASSED, params, {"one.png": PICTURE})
    promotion.promote(settings, NAME, registered.version, PASSED.reason)
    return registered


def _elsewhere(settings: Settings, cache: Path) -> Settings:
    """The same stores with the registry out of reach."""
    return settings.model_copy(
        update={"mlflow": MlflowSettings(url="http://127.0.0.1:9"), "model": ModelSettings(cache_dir=cache)}
    )


def test_a_model_goes_from_nothing_to_champion_and_the_one_before_becomes_previous(
    proxied: Settings, tmp_path: Path
) -> None:
    assert bundles.champion_version(proxied, NAME) is None
    with pytest.raises(NotReady, match="no champion"):
        bundles.load_champion(proxied, NAME)
    first = _champion(proxied, _save(tmp_path / "a"), {"trees": "0"})
    assert bundles.champion_version(proxied, NAME) == first.version
    second = _champion(proxied, _save(tmp_path / "b"))
    assert bundles.champion_version(proxied, NAME) == second.version != first.version
    api = f"{proxied.mlflow.url}/api/2.0/mlflow"
    alias = httpx.get(f"{api}/registered-models/alias", params={"name": NAME, "alias": "previous"}).json()
    assert alias["model_version"]["version"] == first.version
    run = httpx.get(f"{api}/runs/get", params={"run_id": first.run_id}).json()["run"]
    assert {tag["key"]: tag["value"] for tag in run["data"]["tags"]}["feature_version"] == catalogue.FEATURE_VERSION
    assert {metric["key"]: metric["value"] for metric in run["data"]["metrics"]} == {
        "model/5m/mse_ratio": 0.999,
        "gate/ratio_to_champion": 0.99,
    }
    assert {"key": "trees", "value": "0"} in run["data"]["params"]
    assert run["info"]["status"] == "FINISHED"
    shown = httpx.get(f"{api}/artifacts/list", params={"run_id": first.run_id, "path": "plots"}).json()
    assert [(file["path"], int(file["file_size"])) for file in shown["files"]] == [("plots/one.png", len(PICTURE))]


def test_the_champion_loads_and_goes_on_serving_while_the_registry_is_away(proxied: Settings, tmp_path: Path) -> None:
    registered = _champion(proxied, _save(tmp_path / "a"))
    model = bundles.load_champion(proxied, NAME)
    assert isinstance(model, bundle.BidModel)
    assert (model.version, model.kind) == (registered.version, "random_walk")
    away = _elsewhere(proxied, proxied.model.cache_dir)
    assert bundles.load_champion(away, NAME).version == registered.version
    with pytest.raises(StoreError, match="does not answer"):
        bundles.champion_version(away, NAME)
    with pytest.raises(NotReady, match="is empty"):
        bundles.load_champion(_elsewhere(proxied, tmp_path / "nothing"), NAME)


def test_a_failed_registration_moves_no_alias(proxied: Settings, tmp_path: Path) -> None:
    before = _champion(proxied, _save(tmp_path / "a")).version
    folder = _save(tmp_path / "b")
    with pytest.raises(StoreError):
        bundles.register(_elsewhere(proxied, tmp_path), folder, PASSED)
    assert bundles.champion_version(proxied, NAME) == before


def test_a_challenger_waits_a_promotion_needs_a_reason_and_a_rollback_takes_it_back(
    proxied: Settings, tmp_path: Path
) -> None:
    first = _champion(proxied, _save(tmp_path / "a")).version
    challenger = bundles.register(proxied, _save(tmp_path / "b", 0.1), PASSED).version
    assert bundles.champion_version(proxied, NAME) == first
    assert bundles.version_of(proxied, NAME, names.CHALLENGER) == challenger
    with pytest.raises(InvalidInput, match="reason"):
        promotion.promote(proxied, NAME, challenger, " ")
    with pytest.raises(InvalidInput, match="no version 9999"):
        promotion.promote(proxied, NAME, "9999", "why not")
    promotion.promote(proxied, NAME, challenger, "better in shadow")
    listed = {each.version: each for each in promotion.versions(proxied, NAME)}
    assert listed[challenger].aliases == ("champion",)
    assert listed[first].aliases == ("previous",)
    assert (listed[challenger].gate_result, listed[challenger].gate_reason) == ("passed", PASSED.reason)
    assert "better in shadow" in listed[challenger].reason
    assert promotion.rollback(proxied, NAME, "it jumps") == first == bundles.champion_version(proxied, NAME)
    listed = {each.version: each for each in promotion.versions(proxied, NAME)}
    assert "it jumps" in listed[challenger].reason
    assert listed[challenger].aliases == ("previous",)


def test_a_demoted_champion_hands_over_to_its_baseline(proxied: Settings, tmp_path: Path) -> None:
    version = _champion(proxied, _save(tmp_path / "a", 0.2)).version
    model = bundles.load_champion(proxied, NAME)
    rows = np.zeros((2, len(catalogue.MODEL_FEATURES)))
    served = promotion.demote(proxied, model, rows, "24 h loss 1.5 of the baseline's")
    champion = bundles.load_champion(proxied, NAME)
    assert (champion.version, champion.kind) == (served.version, "random_walk")
    assert bundles.version_of(proxied, NAME, names.PREVIOUS) == version


def test_a_training_that_is_killed_before_its_end_leaves_no_version(
    proxied: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _champion(proxied, _save(tmp_path / "a"))
    before = promotion.versions(proxied, NAME)
    stored: list[str] = []

    def killed(_settings: Settings, uri: str, _data: bytes) -> None:
        stored.append(uri)
        raise KeyboardInterrupt

    monkeypatch.setattr(bundles, "_put", killed)
    with pytest.raises(KeyboardInterrupt):
        bundles.register(proxied, _save(tmp_path / "b"), PASSED)
    assert len(stored) == 1
    assert promotion.versions(proxied, NAME) == before


def test_an_altered_champion_is_refused(proxied: Settings, tmp_path: Path) -> None:
    version = _champion(proxied, _save(tmp_path / "a")).version
    bundles.load_champion(proxied, NAME)
    golden = proxied.model.cache_dir / NAME / version / "golden.npz"
    golden.write_bytes(golden.read_bytes()[:-10])
    with pytest.raises(SchemaError, match="SHA-256"):
        bundles.load_champion(proxied, NAME)


def test_the_cache_keeps_a_few_versions(proxied: Settings, tmp_path: Path) -> None:
    for number in range(bundles.KEPT_VERSIONS + 2):
        _champion(proxied, _save(tmp_path / str(number)))
        bundles.load_champion(proxied, NAME)
    shelf = proxied.model.cache_dir / NAME
    assert len([path for path in shelf.iterdir() if path.is_dir()]) == bundles.KEPT_VERSIONS


def test_artifacts_can_lie_on_the_object_store_itself(own_servers: Callable[..., Settings]) -> None:
    settings = own_servers("store")
    wrong = settings.model_copy(update={"store": StoreSettings(endpoint_url=settings.store.endpoint_url)})
    uri = f"s3://{settings.store.mlflow_bucket}/1/abc/artifacts/bundle/golden.npz"
    bundles._put(settings, uri, b"\x00\x01")
    assert bundles._get(settings, uri) == b"\x00\x01"
    with pytest.raises(StoreError, match="get_object"):
        bundles._get(settings, f"s3://{settings.store.mlflow_bucket}/nothing")
    with pytest.raises(StoreError, match="put_object"):
        bundles._put(wrong, uri, b"")
