"""The model registry against a real MLflow server, with artifacts behind that server and on a real object store."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import httpx
import msgspec
import numpy as np
import pytest
import xgboost

from btc_core import names
from btc_core.clock import NS_PER_DAY, NS_PER_S, SYSTEM_CLOCK, now_ns
from btc_core.errors import InvalidInput, NotReady, SchemaError, StoreError
from btc_core.exchange_settings import ExchangeSettings
from btc_core.features import catalogue
from btc_core.models import bundle, fitting, gate, pooling
from btc_core.models.baselines import Autoregression
from btc_core.models.dataset import make_frame
from btc_core.models.gate import Verdict
from btc_core.models.manifest import new_manifest
from btc_core.models.recipe import RECIPE
from btc_core.models.trainers import in_memory
from btc_core.names import BID_MODEL, HORIZONS_MIN, ModelKey
from btc_core.registry import bundles, promotion, retention, shadows
from btc_core.registry.cache import KEPT_VERSIONS, MANIFEST
from btc_core.service_settings import StoreSettings
from btc_core.settings import MlflowSettings, ModelSettings, Settings
from btc_core.stores.mlflow import MlflowClient
from serving.gate_decisions import GateDecisions, RefusedModels
from serving.system_gauges import update_demotions
from tests.real_alerts import Looks
from tests.unit.btc_core.models.test_bundle import market

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from serving.deps import Deps

pytestmark = [
    pytest.mark.service,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore"),
]

KEY = ModelKey("BTC/USD", "bid")
ETHER = ModelKey("ETH/USD", "bid")
PICTURE = b"\x89PNG and what follows"
SCORES = {"model/1m/mse_ratio": 0.998, "model/5m/mse_ratio": 0.999, "test_rows": 2016.0}
PASSED = Verdict(passed=True, reason="loss 0.990 of the champion's", figures={"ratio_to_champion": 0.99})


@pytest.fixture(scope="module")
def settings(own_servers: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """An MLflow server without any model, which keeps artifacts itself, and an empty cache."""
    cache = ModelSettings(cache_dir=tmp_path_factory.mktemp("cache"))
    return own_servers("mlflow").model_copy(update={"model": cache})


def _cache(settings: Settings) -> Path:
    return settings.model.cache_dir / settings.exchange.origin


def _model(shrinkage: float = 0.0) -> bundle.BidModel:
    manifest = new_manifest(
        BID_MODEL, "random_walk", shrinkage=(shrinkage,) * len(HORIZONS_MIN), scores=SCORES,
        trained_from_ns=NS_PER_DAY, trained_to_ns=3 * NS_PER_DAY, train_rows=2880,
    )  # fmt: skip
    return bundle.BidModel(manifest)


def _rows() -> np.ndarray:
    return np.zeros((2, len(catalogue.MODEL_FEATURES)))


def _save(folder: Path, shrinkage: float = 0.0) -> Path:
    _model(shrinkage).save(folder, _rows())
    return folder


def _champion(settings: Settings, folder: Path, params: dict[str, str] | None = None) -> bundles.Registration:
    """Register a bundle with a picture and promote it."""
    registered = bundles.register(settings, KEY, folder, PASSED, params=params, pictures={"one.png": PICTURE})
    promotion.promote(settings, KEY, registered.version, PASSED.reason)
    return registered


def _without_registry(settings: Settings, cache: Path) -> Settings:
    """The same settings with an MLflow server that does not answer."""
    return settings.model_copy(
        update={"mlflow": MlflowSettings(url="http://127.0.0.1:9"), "model": ModelSettings(cache_dir=cache)}
    )


def test_a_promoted_model_becomes_champion_and_its_predecessor_previous(settings: Settings, tmp_path: Path) -> None:
    assert bundles.champion_version(settings, KEY) is None
    with pytest.raises(NotReady, match="no champion"):
        bundles.load_champion(settings, KEY)
    first = _champion(settings, _save(tmp_path / "a"), {"trees": "0"})
    assert bundles.champion_version(settings, KEY) == first.version
    second = _champion(settings, _save(tmp_path / "b"))
    assert bundles.champion_version(settings, KEY) == second.version != first.version
    api = f"{settings.mlflow.url}/api/2.0/mlflow"
    alias = httpx.get(f"{api}/registered-models/alias", params={"name": BID_MODEL, "alias": "previous"}).json()
    assert alias["model_version"]["version"] == first.version
    run = httpx.get(f"{api}/runs/get", params={"run_id": first.run_id}).json()["run"]
    tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
    assert tags["feature_version"] == catalogue.FEATURE_VERSION
    assert tags["symbol"] == "BTC/USD"
    assert {metric["key"]: metric["value"] for metric in run["data"]["metrics"]} == {
        "model/5m/mse_ratio": 0.999,
        "gate/ratio_to_champion": 0.99,
        "test_rows": 2016.0,
    }, "the other horizons are in a table"
    assert "trained on 2,880 rows from 1970-01-02 00:00 to 1970-01-04 00:00 UTC" in tags["mlflow.note.content"]
    assert "**Gate passed:** loss 0.990" in tags["mlflow.note.content"]
    (used,) = run["inputs"]["dataset_inputs"]
    assert used["dataset"]["name"] == "rows of BTC/USD"
    assert '"from":"1970-01-02' in used["dataset"]["source"]
    assert used["tags"] == [{"key": "mlflow.data.context", "value": "training"}]
    model = httpx.get(f"{api}/registered-models/get", params={"name": BID_MODEL}).json()["registered_model"]
    assert "`champion` serves" in model["description"]
    assert {"key": "trees", "value": "0"} in run["data"]["params"]
    assert run["info"]["status"] == "FINISHED"
    shown = httpx.get(f"{api}/artifacts/list", params={"run_id": first.run_id, "path": "plots"}).json()
    assert [(file["path"], int(file["file_size"])) for file in shown["files"]] == [("plots/one.png", len(PICTURE))]


def test_the_champion_still_loads_from_the_cache_while_the_registry_does_not_answer(
    settings: Settings, tmp_path: Path
) -> None:
    registered = _champion(settings, _save(tmp_path / "a"))
    model = bundles.load_champion(settings, KEY)
    assert isinstance(model, bundle.BidModel)
    assert (model.version, model.kind) == (registered.version, "random_walk")
    away = _without_registry(settings, settings.model.cache_dir)
    assert bundles.load_champion(away, KEY).version == registered.version
    with pytest.raises(StoreError, match="does not answer"):
        bundles.champion_version(away, KEY)
    with pytest.raises(NotReady, match="is empty"):
        bundles.load_champion(_without_registry(settings, tmp_path / "nothing"), KEY)


def test_a_failed_registration_moves_no_alias(settings: Settings, tmp_path: Path) -> None:
    before = _champion(settings, _save(tmp_path / "a")).version
    folder = _save(tmp_path / "b")
    with pytest.raises(StoreError):
        bundles.register(_without_registry(settings, tmp_path), KEY, folder, PASSED)
    assert bundles.champion_version(settings, KEY) == before


def test_a_challenger_waits_a_promotion_needs_a_reason_and_a_rollback_takes_it_back(
    settings: Settings, tmp_path: Path
) -> None:
    first = _champion(settings, _save(tmp_path / "a")).version
    challenger = bundles.register(settings, KEY, _save(tmp_path / "b", 0.1), PASSED).version
    assert bundles.champion_version(settings, KEY) == first
    assert bundles.version_of(settings, KEY, names.CHALLENGER) == challenger
    with pytest.raises(InvalidInput, match="reason"):
        promotion.promote(settings, KEY, challenger, " ")
    with pytest.raises(InvalidInput, match="no version 9999"):
        promotion.promote(settings, KEY, "9999", "why not")
    promotion.promote(settings, KEY, challenger, "better in shadow")
    listed = {each.version: each for each in promotion.versions(settings, KEY)}
    assert listed[challenger].aliases == ("champion",)
    assert listed[first].aliases == ("previous",)
    assert (listed[challenger].gate_result, listed[challenger].gate_reason) == ("passed", PASSED.reason)
    assert "better in shadow" in listed[challenger].reason
    assert promotion.rollback(settings, KEY, "it jumps") == first == bundles.champion_version(settings, KEY)
    listed = {each.version: each for each in promotion.versions(settings, KEY)}
    assert "it jumps" in listed[challenger].reason
    assert listed[challenger].aliases == ("previous",)


def test_the_scores_of_all_horizons_are_tables_that_mlflow_reads(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", settings.mlflow.url)  # `load_table` looks there
    registered = bundles.register(settings, KEY, _save(tmp_path / "a"), PASSED)
    client = mlflow.MlflowClient(settings.mlflow.url)
    run = client.get_run(registered.run_id)
    scores, figures = (
        client.load_table(run.info.experiment_id, name, run_ids=[registered.run_id])
        for name in ("scores.json", "figures.json")
    )
    assert scores.to_numpy().tolist() == [["model", "1m", 0.998], ["model", "5m", 0.999]]
    assert dict(figures.to_numpy().tolist()) == {"test_rows": 2016.0, "gate/ratio_to_champion": 0.99}
    assert '"num_rows":2880' in run.inputs.dataset_inputs[0].dataset.profile


def test_only_a_challenger_that_passed_its_gate_is_promoted_without_a_person(
    settings: Settings, tmp_path: Path
) -> None:
    first = _champion(settings, _save(tmp_path / "a")).version
    assert promotion.promote_challenger(settings, KEY) is None, "the champion is no challenger any more"
    failed = Verdict(passed=False, reason="loss 1.1 of the champion's")
    bundles.register(settings, KEY, _save(tmp_path / "b"), failed)
    assert promotion.promote_challenger(settings, KEY) is None
    assert bundles.champion_version(settings, KEY) == first
    challenger = bundles.register(settings, KEY, _save(tmp_path / "c"), PASSED).version
    assert promotion.promote_challenger(settings, KEY) == promotion.Promotion(challenger, PASSED.reason)
    assert bundles.champion_version(settings, KEY) == challenger


def test_a_refused_version_has_an_alias_of_its_own_and_keeps_its_score_in_shadow(settings: Settings) -> None:
    key, refusal = ModelKey("REF/USD", "bid"), Verdict(passed=False, reason="loss 1.03 of harx's")
    refused = promotion.publish(settings, key, _model(), _rows(), refusal, alias=names.REFUSED)
    served = promotion.publish(settings, key, _model(), _rows(), PASSED)
    assert promotion.promote_challenger(settings, key) == promotion.Promotion(served.version, PASSED.reason)
    found = shadows.RefusedVersion(refused.version, "random_walk", refusal.reason, None)
    assert shadows.refused_version(settings, key) == found
    score = shadows.ShadowScore(1.031, 1.06, 240, 1, 2, 3)
    shadows.keep_score(settings, key, refused.version, score)
    assert shadows.refused_version(settings, key) == msgspec.structs.replace(found, score=score)
    listed = {each.version: each for each in promotion.versions(settings, key)}
    assert listed[refused.version].aliases == ("refused",)
    assert (listed[refused.version].shadow, listed[served.version].shadow) == (score.words, "")
    kept = RefusedModels(settings, SYSTEM_CLOCK)(key)
    assert kept is not None
    assert (kept.version, kept.loss_ratio, kept.rows) == (refused.version, 1.031, 240)
    promotion.promote(settings, key, refused.version, "chosen by hand")
    assert shadows.refused_version(settings, key) is None, "a champion is in no shadow"
    listed = {each.version: each for each in promotion.versions(settings, key)}
    assert (listed[refused.version].aliases, listed[refused.version].shadow) == (("champion",), "")
    bundles.release(settings, key, names.REFUSED)
    assert shadows.refused_version(settings, key) is None


def test_models_of_another_market_have_versions_a_cache_and_a_champion_of_their_own(
    settings: Settings, tmp_path: Path
) -> None:
    bitcoin = _champion(settings, _save(tmp_path / "a")).version
    assert promotion.versions(settings, ETHER) == []
    registered = promotion.publish(settings, ETHER, _model(), _rows(), PASSED)
    assert (registered.name, registered.version) == ("bid-price-model-ETHUSD", "1")
    promotion.promote(settings, ETHER, registered.version, "the first one")
    model = bundles.load_champion(settings, ETHER)
    assert (model.version, model.manifest.symbol) == ("1", "ETH/USD")
    assert (_cache(settings) / "bid-price-model-ETHUSD" / "1" / "bundle.json").is_file()
    assert bundles.champion_version(settings, KEY) == bitcoin
    runs = httpx.post(
        f"{settings.mlflow.url}/api/2.0/mlflow/runs/search",
        json={
            "experiment_ids": [MlflowClient(settings.mlflow, settings.store).experiment_id(BID_MODEL)],
            "filter": "tags.symbol = 'ETH/USD'",
        },
    ).json()["runs"]
    assert [run["info"]["run_id"] for run in runs] == [registered.run_id], "an experiment has the runs of all markets"


def test_a_model_of_another_market_is_refused(settings: Settings, tmp_path: Path) -> None:
    model = _model()
    model.manifest = msgspec.structs.replace(model.manifest, symbol="ETH/USD")
    model.save(tmp_path / "ether", _rows())
    _champion(settings, tmp_path / "ether")
    with pytest.raises(SchemaError, match="ETH/USD, not the bid of BTC/USD"):
        bundles.load_champion(settings, KEY)


@pytest.mark.causes("ModelDemoted")
def test_a_demoted_champion_is_replaced_by_its_baseline(settings: Settings, tmp_path: Path) -> None:
    version = _champion(settings, _save(tmp_path / "a", 0.2)).version
    model = bundles.load_champion(settings, KEY)
    before_s = now_ns() // NS_PER_S
    served = promotion.demote(settings, KEY, model, "random_walk", _rows(), "24 h loss 1.5 of the baseline's")
    at_s = promotion.demoted_at_s(settings, KEY, served.version)
    assert at_s is not None
    assert before_s <= at_s <= now_ns() / NS_PER_S
    assert promotion.demoted_at_s(settings, KEY, model.version) is None
    champion = bundles.load_champion(settings, KEY)
    assert (champion.version, champion.kind) == (served.version, "random_walk")
    assert bundles.version_of(settings, KEY, names.PREVIOUS) == version
    decision = GateDecisions(settings, SYSTEM_CLOCK)(KEY, served.version)
    assert decision is not None
    assert (decision.took_over_from, decision.reason) == (
        version, f"random_walk of version {version}: 24 h loss 1.5 of the baseline's"
    )  # fmt: skip
    current = SimpleNamespace(models={KEY: champion})
    update_demotions(cast("Deps", SimpleNamespace(settings=settings, models=SimpleNamespace(current=current))))
    assert Looks().find("ModelDemoted", KEY.symbol)


def _trees() -> bundle.BidModel:
    """A model of the bid with tiny trees and both baselines."""
    rng = np.random.default_rng(4)
    data = xgboost.DMatrix(rng.normal(size=(64, len(catalogue.MODEL_FEATURES))).astype(np.float32), rng.normal(size=64))
    boosters = tuple(xgboost.train({"max_depth": 1, "nthread": 1, "base_score": 0.0}, data, 1) for _ in HORIZONS_MIN)
    windows = RECIPE.baselines.ar_windows_min
    autoregression = Autoregression(windows, tuple((0.1,) * len(windows) for _ in HORIZONS_MIN))
    manifest = new_manifest(BID_MODEL, "xgboost", shrinkage=(0.5,) * len(HORIZONS_MIN))
    return bundle.BidModel(manifest, boosters, autoregression)


def test_a_better_baseline_takes_over_from_a_champion_of_any_kind_and_trees_return_after_a_rest(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, trees = ModelKey("REST/USD", "bid"), _trees()
    first = promotion.publish(settings, key, trees, _rows(), PASSED)
    promotion.promote(settings, key, first.version, "better than no change")
    served = promotion.demote(settings, key, bundles.load_champion(settings, key), "ar", _rows(), "loss 1.07 of ar's")
    champion = bundles.load_champion(settings, key)
    assert (champion.version, champion.kind) == (served.version, "ar")
    simpler = promotion.demote(settings, key, champion, "random_walk", _rows(), "loss 1.05 of random_walk's")
    assert bundles.load_champion(settings, key).kind == "random_walk"
    listed = {each.version: each for each in promotion.versions(settings, key)}[simpler.version]
    assert (listed.kind, listed.aliases) == ("random_walk", ("champion",))
    assert listed.reason.endswith(
        f"promoted: demotion of {served.version} (ar) to random_walk: loss 1.05 of random_walk's"
    )

    again = promotion.publish(settings, key, trees, _rows(), PASSED)
    held = promotion.promote_challenger(settings, key)
    assert held is not None
    assert f"version {simpler.version} took over by a demotion" in held.held
    assert bundles.champion_version(settings, key) == simpler.version
    later_ns = now_ns() + gate.REST_HOURS * 3_600 * NS_PER_S
    monkeypatch.setattr(promotion, "now_ns", lambda: later_ns)
    assert promotion.promote_challenger(settings, key) == promotion.Promotion(again.version, PASSED.reason)
    assert bundles.champion_version(settings, key) == again.version, "the gate's win brings trees back"


def test_trees_that_win_in_shadow_serve_and_neither_a_training_nor_a_demotion_makes_a_market_go_to_and_fro(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, trees, lost = ModelKey("WON/USD", "bid"), _trees(), Verdict(passed=False, reason="loss 1.01 of random_walk's")
    walk = promotion.publish(settings, key, trees.as_baseline(), _rows(), PASSED)
    assert promotion.promote_challenger(settings, key) is not None
    refused = promotion.publish(settings, key, trees, _rows(), lost, alias=names.REFUSED)
    won = promotion.promote_refused(settings, key, refused.version, "live loss 0.98")
    assert (won.version, won.held, won.reason) == (refused.version, "", "won in shadow: live loss 0.98")
    assert bundles.load_champion(settings, key).kind == "xgboost"
    assert shadows.refused_version(settings, key) is None
    decision = GateDecisions(settings, SYSTEM_CLOCK)(key, refused.version)
    assert decision is not None
    assert decision.passed
    assert decision.reason == "won in shadow: live loss 0.98; before that: loss 1.01 of random_walk's"

    again = promotion.publish(settings, key, trees.as_baseline(), _rows(), PASSED)
    held = promotion.promote_challenger(settings, key)
    assert held is not None
    assert held.held.startswith(f"version {refused.version} won in shadow, and no baseline replaces it before ")
    served = promotion.demote(settings, key, trees, "random_walk", _rows(), "24 h loss 1.5")
    next_night = promotion.publish(settings, key, trees, _rows(), lost, alias=names.REFUSED)
    rests = promotion.promote_refused(settings, key, next_night.version, "live loss 0.97")
    assert f"version {served.version} took over by a demotion" in rests.held
    assert bundles.champion_version(settings, key) == served.version
    later_ns = now_ns() + gate.REST_HOURS * 3_600 * NS_PER_S
    monkeypatch.setattr(promotion, "now_ns", lambda: later_ns)
    assert not promotion.promote_refused(settings, key, next_night.version, "live loss 0.97").held
    assert bundles.champion_version(settings, key) not in {walk.version, again.version, served.version}


def test_the_markets_have_champions_demotions_and_reasons_of_their_own(settings: Settings) -> None:
    """Four markets whose models were chosen between two fits; one is demoted, and one rolled back."""
    keys = [ModelKey(symbol, "bid") for symbol in ("AAA/USD", "BBB/USD", "CCC/USD", "DDD/USD")]
    for key in keys:
        for number in range(2):
            model = _model(0.1)
            model.manifest = msgspec.structs.replace(model.manifest, choice=f"choice {number} of {key.symbol}")
            verdict = Verdict(passed=True, reason=f"gate {number} of {key.symbol}")
            promotion.publish(settings, key, model, _rows(), verdict)
            assert promotion.promote_challenger(settings, key) is not None
    demoted, rolled_back = keys[1], keys[2]
    champion = bundles.load_champion(settings, demoted)
    promotion.demote(settings, demoted, champion, "random_walk", _rows(), "24 h loss of 1.5")
    promotion.rollback(settings, rolled_back, "it jumps")
    champions = {key.symbol: bundles.champion_version(settings, key) for key in keys}
    assert champions == {"AAA/USD": "2", "BBB/USD": "3", "CCC/USD": "1", "DDD/USD": "2"}
    for key in keys:
        listed = {each.version: each for each in promotion.versions(settings, key)}
        assert {(each.symbol, each.quantity) for each in listed.values()} == {(key.symbol, "bid")}
        assert listed["2"].gate_reason == f"gate 1 of {key.symbol}"
        assert listed["2"].fit_reason == f"choice 1 of {key.symbol}"
        assert bundles.load_champion(settings, key).manifest.symbol == key.symbol


def test_pooled_trees_are_registered_as_such_and_loaded_by_their_market_alone(settings: Settings) -> None:
    bars = market(3 * 1440)
    frames = {symbol: make_frame(bars) for symbol in ("ONE/USD", "TWO/USD")}
    members = [
        pooling.pool_rows(symbol, frame, fitting.pool_log_variance(frame), 2_000) for symbol, frame in frames.items()
    ]
    pool = pooling.Pool(members, in_memory)
    frame = frames["ONE/USD"]
    model = fitting.fit_volatility(frame, pool=pool)
    key = ModelKey("ONE/USD", "volatility")
    registered = promotion.publish(settings, key, model, frame.sample(), PASSED)
    promotion.promote(settings, key, registered.version, PASSED.reason)
    loaded = bundles.load_champion(settings, key)
    assert isinstance(loaded, bundle.VolatilityModel)
    assert loaded.manifest.pool == ("ONE/USD", "TWO/USD")
    rows = frame.last_days(0.1)
    assert np.array_equal(loaded.predict(rows.matrix, rows.columns), model.predict(rows.matrix, rows.columns))
    (listed,) = promotion.versions(settings, key)
    assert (listed.kind, listed.fit) == ("xgboost", "pooled")
    with pytest.raises(NotReady, match="TWOUSD"):
        bundles.load_champion(settings, ModelKey("TWO/USD", "volatility"))


def test_a_training_that_is_killed_before_its_end_leaves_no_version(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _champion(settings, _save(tmp_path / "a"))
    before = promotion.versions(settings, KEY)
    stored: list[str] = []

    def killed(_client: MlflowClient, uri: str, _data: bytes) -> None:
        stored.append(uri)
        raise KeyboardInterrupt

    monkeypatch.setattr(MlflowClient, "put_artifact", killed)
    with pytest.raises(KeyboardInterrupt):
        bundles.register(settings, KEY, _save(tmp_path / "b"), PASSED)
    assert len(stored) == 1
    assert promotion.versions(settings, KEY) == before


def test_an_altered_champion_is_refused(settings: Settings, tmp_path: Path) -> None:
    version = _champion(settings, _save(tmp_path / "a")).version
    bundles.load_champion(settings, KEY)
    golden = _cache(settings) / BID_MODEL / version / "golden.npz"
    golden.write_bytes(golden.read_bytes()[:-10])
    with pytest.raises(SchemaError, match="SHA-256"):
        bundles.load_champion(settings, KEY)


def test_a_version_whose_manifest_is_missing_from_the_cache_is_downloaded_again(
    settings: Settings, tmp_path: Path
) -> None:
    version = _champion(settings, _save(tmp_path / "a")).version
    bundles.load_champion(settings, KEY)
    (_cache(settings) / BID_MODEL / version / "bundle.json").unlink()
    assert bundles.load_champion(settings, KEY).version == version


def test_the_cache_keeps_a_few_versions(settings: Settings, tmp_path: Path) -> None:
    for number in range(KEPT_VERSIONS + 2):
        _champion(settings, _save(tmp_path / str(number)))
        bundles.load_champion(settings, KEY)
    cached = _cache(settings) / BID_MODEL
    assert len([path for path in cached.iterdir() if path.is_dir()]) == KEPT_VERSIONS


def test_artifacts_can_be_on_the_object_store_itself(own_servers: Callable[..., Settings]) -> None:
    settings = own_servers("store")
    client = MlflowClient(settings.mlflow, settings.store)
    refused = MlflowClient(settings.mlflow, StoreSettings(endpoint_url=settings.store.endpoint_url))
    uri = f"s3://{settings.store.mlflow_bucket}/1/abc/artifacts/bundle/golden.npz"
    client.put_artifact(uri, b"\x00\x01")
    assert client.get_artifact(uri) == b"\x00\x01"
    missing = f"s3://{settings.store.mlflow_bucket}/nothing"
    with pytest.raises(StoreError, match=missing):
        client.get_artifact(missing)
    with pytest.raises(StoreError, match="put_object"):
        refused.put_artifact(uri, b"")


def test_a_champion_of_simulated_data_is_never_loaded_by_a_process_that_follows_a_live_market(
    settings: Settings, tmp_path: Path
) -> None:
    registered = _champion(settings, _save(tmp_path / "bundle"))
    assert bundles.load_champion(settings, KEY).manifest.version == registered.version
    live = settings.model_copy(update={"exchange": ExchangeSettings()})
    with pytest.raises(
        SchemaError, match="was trained on the data of 'sim-kraken', and this process follows 'live-kraken'"
    ):
        bundles.load_champion(live, KEY)
    with pytest.raises(NotReady, match=r"the cache .*live-kraken.* is empty"):
        bundles.load_champion(_without_registry(live, settings.model.cache_dir), KEY)


def test_old_versions_without_an_alias_are_deleted_with_their_files(settings: Settings, tmp_path: Path) -> None:
    key = ModelKey("BTC/USD", "bid")
    only = settings.model_copy(update={"exchange": ExchangeSettings(mode="sim", symbols=("BTC/USD",))})
    mlflow = bundles.mlflow_of(settings)
    registered = [_champion(settings, _save(tmp_path / name)) for name in ("old", "previous", "champion")]
    challenger = bundles.register(settings, key, _save(tmp_path / "challenger"), PASSED)
    uri = {each.version: each.source for each in mlflow.versions(key.name)}
    assert all(mlflow.get_artifact(f"{source}/{MANIFEST}") for source in uri.values())
    assert retention.expire(only, now_ns() + 29 * NS_PER_DAY) == []
    deleted = retention.expire(only, now_ns() + 31 * NS_PER_DAY)
    assert f"{key.name} {registered[0].version}" in deleted
    kept = {registered[1].version, registered[2].version, challenger.version}
    assert {each.version for each in mlflow.versions(key.name)} == kept
    assert bundles.champion_version(settings, key) == registered[2].version
    files = {version: f"{source}/{MANIFEST}" for version, source in uri.items()}
    assert all(mlflow.get_artifact(files[version]) for version in kept)
    with pytest.raises(StoreError):
        mlflow.get_artifact(files[registered[0].version])
