"""Model bundles in MLflow: registering them as challengers, and loading champions and challengers through the cache on disk.

What does not belong here: what a bundle is (`btc_core.models.bundle`), how MLflow is spoken to (`btc_core.stores.mlflow`),
and which version becomes champion (`promotion`).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from btc_core.clock import from_ns
from btc_core.errors import NotReady, SchemaError, ServiceError
from btc_core.horizons import TAG, are_default, text_of
from btc_core.models.bundle import BidModel, VolatilityModel
from btc_core.models.input_gains import in_words
from btc_core.models.manifest import Manifest
from btc_core.names import BID, CHALLENGER, CHAMPION, TRAIN_MODELS_JOB, ModelKey
from btc_core.registry import run_page
from btc_core.registry.cache import MANIFEST, BundleCache
from btc_core.stores.mlflow import MAX_TAG_CHARACTERS, NOTE_TAG, SOURCE_TAGS, MlflowClient

if TYPE_CHECKING:
    from collections.abc import Mapping

    from btc_core.models.gate import Verdict
    from btc_core.settings import Settings
    from btc_core.stores.mlflow import ModelVersion

Model: TypeAlias = BidModel | VolatilityModel

ARTIFACT_FOLDER, PLOTS_FOLDER = "bundle", "plots"
ORIGIN_TAG = "origin"
"""The tag with `ExchangeSettings.origin`: whose data a model was trained on."""


class Registration(msgspec.Struct, frozen=True):
    """A new version of a registered model, and its page in MLflow."""

    name: str
    version: str
    run_id: str
    url: str


def mlflow_of(settings: Settings) -> MlflowClient:
    """A client of the MLflow server that the settings name."""
    return MlflowClient(settings.mlflow, settings.store)


def register(  # noqa: PLR0913 - everything that MLflow keeps of a version
    settings: Settings,
    key: ModelKey,
    folder: Path,
    verdict: Verdict,
    *,
    params: Mapping[str, str] | None = None,
    pictures: Mapping[str, bytes] | None = None,
    alias: str | None = CHALLENGER,
) -> Registration:
    """Log the bundle in `folder` as a run and register it under an alias, if any; `pictures` are PNG files by name.

    The version is created last, after all of its files, so an interrupted registration leaves no version behind.
    Raises `StoreError` if MLflow or the object store refuses or does not answer; then no alias has moved.
    """
    mlflow = mlflow_of(settings)
    manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    tags = _tags(settings, key, manifest) | {
        "gate_result": verdict.result,
        "gate_reason": verdict.reason,
    }
    note, data = run_page.note(key, manifest, verdict), run_page.used_data(key.symbol, manifest)
    shown = {NOTE_TAG: note} | dict(zip(SOURCE_TAGS, (TRAIN_MODELS_JOB, "JOB"), strict=True))
    experiment = mlflow.experiment_id(key.experiment, run_page.EXPERIMENT_NOTE)
    run = mlflow.create_run(experiment, manifest.version, manifest.created_ns, tags | shown)
    figures = run_page.figures_of(manifest, verdict)
    mlflow.log(run.run_id, run_page.headlines(figures), _params(manifest) | dict(params or {}))
    mlflow.put_tables(run, run_page.tables(figures))
    if data is not None:
        mlflow.log_data(run.run_id, data)
    source = f"{run.artifact_uri}/{ARTIFACT_FOLDER}"
    for path in sorted(folder.iterdir()):
        mlflow.put_artifact(f"{source}/{path.name}", path.read_bytes())
    for name, picture in (pictures or {}).items():
        mlflow.put_artifact(f"{run.artifact_uri}/{PLOTS_FOLDER}/{name}", picture)
    mlflow.finish_run(run.run_id)
    mlflow.ensure_model(key.name, run_page.model_note(key))
    version = mlflow.create_version(key.name, source, run.run_id, tags, note)
    if alias is not None:
        mlflow.set_alias(key.name, alias, version)
    url = f"{settings.links.mlflow_url or settings.mlflow.url}/#/models/{key.name}/versions/{version}"
    return Registration(key.name, version, run.run_id, url)


def champion_version(settings: Settings, key: ModelKey) -> str | None:
    """The version with the alias `champion`, None if there is none; raises `StoreError` if MLflow does not answer."""
    return version_of(settings, key, CHAMPION)


def version_of(settings: Settings, key: ModelKey, alias: str) -> str | None:
    """The version with an alias, None if there is none; raises `StoreError` if MLflow does not answer."""
    found = mlflow_of(settings).aliased_version(key.name, alias)
    return None if found is None else found.version


def release(settings: Settings, key: ModelKey, alias: str) -> None:
    """Take an alias away, because the newest training gave no version that holds it; raises `StoreError`."""
    if version_of(settings, key, alias) is not None:
        mlflow_of(settings).delete_alias(key.name, alias)


def load_champion(settings: Settings, key: ModelKey) -> Model:
    """The champion, with the number of its registered version as its `version`.

    While MLflow or the object store does not answer, this is the champion that was loaded last on this machine. Raises
    `NotReady` if there is none either, and `SchemaError` if the champion is damaged or was made for other features.
    """
    cache = cache_of(settings, key)
    try:
        version = champion_version(settings, key)
        if version is not None:
            _ensure_cached(settings, key, version)
    except ServiceError as error:
        version = cache.last_champion()
        if version is None:
            msg = f"no champion of {key.name}: the registry does not answer ({error}) and the cache {cache.folder} is empty"
            raise NotReady(msg) from error
        return _load(cache, key, version)
    if version is None:
        msg = f"the registry has no champion of {key.name} yet; run the Dagster job {TRAIN_MODELS_JOB}"
        raise NotReady(msg)
    model = _load(cache, key, version)
    cache.keep_champion(version)
    return model


def load_challenger(settings: Settings, key: ModelKey) -> Model:
    """The challenger; raises `NotReady` if there is none, `StoreError` or `SchemaError` if it cannot be loaded."""
    version = version_of(settings, key, CHALLENGER)
    if version is None:
        msg = f"the registry has no challenger of {key.name}"
        raise NotReady(msg)
    return load_version(settings, key, version)


def load_version(settings: Settings, key: ModelKey, version: str) -> Model:
    """A registered version; raises `StoreError` or `SchemaError` if it does not exist or cannot be loaded."""
    _ensure_cached(settings, key, version)
    return _load(cache_of(settings, key), key, version)


def cache_of(settings: Settings, key: ModelKey) -> BundleCache:
    """The cache of a model, in a folder of the data's origin, so that a process never finds bundles of another market."""
    return BundleCache(settings.model.cache_dir / settings.exchange.origin / key.name)


def _ensure_cached(settings: Settings, key: ModelKey, version: str) -> None:
    """Download a version unless the cache has it."""
    cache = cache_of(settings, key)
    if cache.has(version):
        return
    mlflow = mlflow_of(settings)
    found = mlflow.version(key.name, version)
    _check_origin(settings, key, found)
    source = found.source
    text = mlflow.get_artifact(f"{source}/{MANIFEST}")
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except msgspec.MsgspecError as error:
        msg = f"version {version} of {key.name} has no readable bundle at {source}: {error}"
        raise SchemaError(msg) from error
    files = {Path(name).name: mlflow.get_artifact(f"{source}/{name}") for name in manifest.files}
    cache.add(version, files | {MANIFEST: text})


def _check_origin(settings: Settings, key: ModelKey, version: ModelVersion) -> None:
    """Refuse a model of another market data than this process follows; older versions are tagged with the mode only."""
    market = version.tags.get("market", "")
    origin = version.tags.get(ORIGIN_TAG, "")
    own = settings.exchange.origin
    if origin in {"", own} and market in {"", _market(settings)}:
        return
    msg = (
        f"version {version.version} of {key.name} was trained on the data of {origin or market!r}, and this process follows "
        f"{own!r}: no such model serves here. Use a registry of its own (docs/how-to/live-exchange.md)"
    )
    raise SchemaError(msg)


def _market(settings: Settings) -> str:
    return "simulated" if settings.simulated else "live"


def _load(cache: BundleCache, key: ModelKey, version: str) -> Model:
    """Load a cached version and check that it is a model of this market and quantity."""
    model = cache.load(version)
    symbol = model.manifest.symbol or key.symbol  # bundles made before there were several markets name none
    if not isinstance(model, BidModel if key.quantity == BID else VolatilityModel) or symbol != key.symbol:
        msg = (
            f"version {version} of {key.name} is a {type(model).__name__} of {symbol}, not the {key.quantity} of "
            f"{key.symbol}; train the model again"
        )
        raise SchemaError(msg)
    return model


def _tags(settings: Settings, key: ModelKey, manifest: Manifest) -> dict[str, str]:
    others: dict[str, str] = {} if are_default(manifest.horizons_min) else {TAG: text_of(manifest.horizons_min)}
    return others | {
        "symbol": key.symbol,
        "kind": manifest.served_kind,
        "user_model": _user_tag(manifest),
        "feature_version": manifest.feature_version,
        "layout": str(manifest.layout),
        "market": _market(settings),
        ORIGIN_TAG: settings.exchange.origin,
        "data_from": from_ns(manifest.trained_from_ns).isoformat() if manifest.train_rows else "",
        "data_to": from_ns(manifest.trained_to_ns).isoformat() if manifest.train_rows else "",
        "recipe": manifest.recipe,
        "fit": _fit_tag(manifest),
        "fit_reason": manifest.choice,
        "inputs": in_words(manifest),
        "pretrained": manifest.pretrained[:MAX_TAG_CHARACTERS],
        "pool": " ".join(manifest.pool)[:MAX_TAG_CHARACTERS],
        "git_commit": manifest.code,
        "seals": _seals_tag(manifest.seals),
    }


def _fit_tag(manifest: Manifest) -> str:
    """`pre-trained`, or `pooled` or `own` for trees that were fitted on several markets or on one; empty without trees."""
    if manifest.served_kind != "xgboost":
        return ""
    if manifest.pretrained:
        return "pre-trained"
    return "pooled" if manifest.pool else "own"


def _user_tag(manifest: Manifest) -> str:
    """Which user's model the version serves, and its stand-in; empty for other versions."""
    entry = manifest.user_entry
    if entry is None:
        return ""
    return f"{entry.name}, file {entry.file_version}, fit {entry.model_version}; its stand-in is {manifest.kind}"


def _seals_tag(seals: tuple[str, ...]) -> str:
    """All seals if a tag has room for them, otherwise their number, range and digest; the manifest lists all of them."""
    text = " ".join(seals)
    if len(text) <= MAX_TAG_CHARACTERS:
        return text
    return f"{len(seals)} days, {seals[0]} to {seals[-1]}, sha256 {hashlib.sha256(text.encode()).hexdigest()}"


def _params(manifest: Manifest) -> dict[str, str]:
    params = {"kind": manifest.served_kind, "train_rows": str(manifest.train_rows)}
    params |= {"streamed_days": str(manifest.inputs.streamed_days), "inputs_used": str(len(manifest.inputs.gains))}
    if manifest.shrinkage:
        params["shrinkage"] = ", ".join(f"{value:g}" for value in manifest.shrinkage)
    return params
