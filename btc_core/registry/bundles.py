"""Model bundles in the MLflow registry: log, register, load, with a cache on disk for when it is away.

Talks MLflow's REST API over httpx: importing `mlflow` takes seconds and 200 MB, which no worker has to spare.
Artifacts go where the server says: straight to the object store (`s3:`) or through the server (`mlflow-artifacts:`).
What does not belong here: what a bundle is (`bundle`), who deserves to be champion (`gate`), and moving aliases (`promotion`).
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import msgspec

from btc_core.clock import from_ns, now_ns
from btc_core.errors import NotReady, SchemaError, ServiceError, StoreError
from btc_core.models.bundle import BidModel, Manifest, VolatilityModel, load_bundle
from btc_core.names import CHALLENGER, CHAMPION, TRAIN_MODELS_JOB

if TYPE_CHECKING:
    from btc_core.models.gate import Verdict
    from btc_core.settings import Settings, StoreSettings

ARTIFACT_FOLDER, PLOTS_FOLDER = "bundle", "plots"
TIMEOUT_S = 10.0
"""Of one request; an answer takes milliseconds. A champion check blocks its caller's loop at most this long."""
MAX_TAG = 4_000
"""Characters; MLflow refuses more than 5,000."""
KEPT_VERSIONS = 3
"""Bundles kept in the cache per model; each is about a megabyte."""


class Registered(msgspec.Struct, frozen=True):
    """A registered model version and where to look at it."""

    name: str
    version: str
    run_id: str
    url: str


def register(
    settings: Settings,
    folder: Path,
    verdict: Verdict,
    params: dict[str, str] | None = None,
    pictures: dict[str, bytes] | None = None,
) -> Registered:
    """Log the bundle in `folder` as a run of the experiment of its name and register it as `challenger`.

    `pictures` are PNG files by name, for the run.

    The version appears last, when every file of it is stored: a run that is killed on the way leaves none.
    Raises `StoreError` when MLflow or the object store refuses or is away; then no alias has moved.
    """
    manifest = msgspec.json.decode((folder / "bundle.json").read_bytes(), type=Manifest)
    tags = _tags(settings, manifest) | {
        "gate_result": "passed" if verdict.passed else "failed",
        "gate_reason": verdict.reason,
    }
    run = _start_run(settings, manifest, tags)
    run_id, artifacts = str(run["run_id"]), str(run["artifact_uri"]).rstrip("/")
    source = f"{artifacts}/{ARTIFACT_FOLDER}"
    figures = {f"gate/{name}": value for name, value in verdict.figures.items() if math.isfinite(value)}
    _log_numbers(settings, run_id, manifest, figures, params or {})
    for path in sorted(folder.iterdir()):
        _put(settings, f"{source}/{path.name}", path.read_bytes())
    for name, picture in (pictures or {}).items():
        _put(settings, f"{artifacts}/{PLOTS_FOLDER}/{name}", picture)
    call(settings, "POST", "runs/update", {"run_id": run_id, "status": "FINISHED", "end_time": _now_ms()})
    _ensure_model(settings, manifest.name)
    body = {"name": manifest.name, "source": source, "run_id": run_id, "tags": _pairs(tags)}
    version = str(call(settings, "POST", "model-versions/create", body)["model_version"]["version"])
    set_alias(settings, manifest.name, CHALLENGER, version)
    url = f"{settings.links.mlflow_url or settings.mlflow.url}/#/models/{manifest.name}/versions/{version}"
    return Registered(manifest.name, version, run_id, url)


def champion_version(settings: Settings, name: str) -> str | None:
    """Version behind the alias `champion`, None when nobody holds it; `StoreError` when MLflow is away."""
    return version_of(settings, name, CHAMPION)


def version_of(settings: Settings, name: str, alias: str) -> str | None:
    """Version behind an alias, None when nobody holds it; `StoreError` when MLflow is away."""
    answer = _find(settings, "registered-models/alias", {"name": name, "alias": alias})
    return None if answer is None else str(answer["model_version"]["version"])


def load_champion(settings: Settings, name: str) -> BidModel | VolatilityModel:
    """The champion, proven by its golden batch; its `version` is the registry's.

    While MLflow or the store is away the last champion that loaded here serves. Raises `NotReady` when there is neither,
    `SchemaError` when the champion is altered or belongs to another feature set.
    """
    shelf = settings.model.cache_dir / name
    try:
        version = champion_version(settings, name)
        if version is not None and not (shelf / version / "bundle.json").is_file():
            _download(settings, name, version, shelf)
    except ServiceError as error:
        return _load_cached(shelf, name, error)
    if version is None:
        msg = f"the registry has no champion of {name} yet; materialize the asset that trains it, or run {TRAIN_MODELS_JOB}"
        raise NotReady(msg)
    model = load_bundle(shelf / version, version)
    _remember(shelf, version)
    return model


def load_version(settings: Settings, name: str, version: str) -> BidModel | VolatilityModel:
    """One version, proven by its golden batch; `StoreError` or `SchemaError` when it cannot be had."""
    shelf = settings.model.cache_dir / name
    if not (shelf / version / "bundle.json").is_file():
        _download(settings, name, version, shelf)
    return load_bundle(shelf / version, version)


def _load_cached(shelf: Path, name: str, cause: ServiceError) -> BidModel | VolatilityModel:
    marker = shelf / CHAMPION
    if not marker.is_file():
        msg = f"no champion of {name}: the registry is away ({cause}) and the cache {shelf} is empty"
        raise NotReady(msg) from cause
    version = marker.read_text().strip()
    return load_bundle(shelf / version, version)


def _remember(shelf: Path, version: str) -> None:
    """Note the last good version and drop old ones; another process may do the same at the same time."""
    marker = shelf / CHAMPION
    if marker.is_file() and marker.read_text() == version:
        return
    scratch = shelf / f".{CHAMPION}-{os.getpid()}"
    scratch.write_text(version)
    scratch.replace(marker)
    kept = sorted((path for path in shelf.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
    for path in kept[:-KEPT_VERSIONS]:
        if path.name != version:
            shutil.rmtree(path, ignore_errors=True)


def _download(settings: Settings, name: str, version: str, shelf: Path) -> None:
    answer = call(settings, "GET", "model-versions/get", {"name": name, "version": version})
    source = str(answer["model_version"]["source"]).rstrip("/")
    shelf.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".download-", dir=shelf))
    try:
        text = _get(settings, f"{source}/bundle.json")
        for file in msgspec.json.decode(text, type=Manifest).files:
            (scratch / Path(file).name).write_bytes(_get(settings, f"{source}/{file}"))
        (scratch / "bundle.json").write_bytes(text)
        if not (shelf / version).exists():
            scratch.replace(shelf / version)
    except msgspec.MsgspecError as error:
        msg = f"version {version} of {name} has no readable bundle at {source}: {error}"
        raise SchemaError(msg) from error
    except OSError:
        if not (shelf / version / "bundle.json").is_file():  # another process may have been first
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _tags(settings: Settings, manifest: Manifest) -> dict[str, str]:
    return {
        "kind": manifest.kind,
        "feature_version": manifest.feature_version,
        "market": "simulated" if settings.simulated else "live",
        "data_from": from_ns(manifest.trained_from_ns).isoformat() if manifest.train_rows else "",
        "data_to": from_ns(manifest.trained_to_ns).isoformat() if manifest.train_rows else "",
        "recipe": manifest.recipe,
        "git_commit": manifest.code,
        "seals": _spelled(manifest.seals),
    }


def _spelled(seals: tuple[str, ...]) -> str:
    """All of them where a tag has room, else how many and what they are together; the bundle's manifest has all."""
    text = " ".join(seals)
    if len(text) <= MAX_TAG:
        return text
    return f"{len(seals)} days, {seals[0]} to {seals[-1]}, sha256 {hashlib.sha256(text.encode()).hexdigest()}"


def _start_run(settings: Settings, manifest: Manifest, tags: dict[str, str]) -> dict[str, Any]:
    found = _find(settings, "experiments/get-by-name", {"experiment_name": manifest.name})
    if found is None:
        experiment_id = call(settings, "POST", "experiments/create", {"name": manifest.name})["experiment_id"]
    else:
        experiment_id = found["experiment"]["experiment_id"]
    body = {
        "experiment_id": experiment_id,
        "start_time": manifest.created_ns // 1_000_000,
        "run_name": manifest.version,
        "tags": _pairs(tags),
    }
    return dict(call(settings, "POST", "runs/create", body)["run"]["info"])


def _log_numbers(
    settings: Settings, run_id: str, manifest: Manifest, figures: dict[str, float], params: dict[str, str]
) -> None:
    stamp = _now_ms()
    metrics = [
        {"key": key, "value": value, "timestamp": stamp, "step": 0}
        for key, value in sorted({**manifest.scores, **figures}.items())
    ]
    described = {"kind": manifest.kind, "train_rows": str(manifest.train_rows), **params}
    if manifest.shrinkage:
        described["shrinkage"] = ", ".join(f"{value:g}" for value in manifest.shrinkage)
    body = {"run_id": run_id, "metrics": metrics, "params": _pairs(described)}
    call(settings, "POST", "runs/log-batch", body)


def _ensure_model(settings: Settings, name: str) -> None:
    if _find(settings, "registered-models/get", {"name": name}) is None:
        call(settings, "POST", "registered-models/create", {"name": name})


def set_alias(settings: Settings, name: str, alias: str, version: str) -> None:
    """Give an alias to a version; whoever held it holds it no more."""
    call(settings, "POST", "registered-models/alias", {"name": name, "alias": alias, "version": version})


def _pairs(values: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _now_ms() -> int:
    return now_ns() // 1_000_000


def _find(settings: Settings, path: str, params: dict[str, str]) -> dict[str, Any] | None:
    """A GET that may find nothing."""
    response = _send(settings, "GET", f"/api/2.0/mlflow/{path}", params=params)
    if response.status_code != httpx.codes.OK and _code(response) in {
        "RESOURCE_DOES_NOT_EXIST",
        "INVALID_PARAMETER_VALUE",
    }:
        # MLflow says INVALID_PARAMETER_VALUE for an alias that nobody holds
        return None
    return _answer(path, response)


def call(settings: Settings, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """One request to MLflow's REST API; raises `StoreError`."""
    sent: dict[str, Any] = {"params": body} if method == "GET" else {"json": body}
    return _answer(path, _send(settings, method, f"/api/2.0/mlflow/{path}", **sent))


def _answer(path: str, response: httpx.Response) -> dict[str, Any]:
    if response.status_code != httpx.codes.OK:
        msg = f"MLflow refused {path} ({response.status_code} {_code(response)}): {response.text[:300]}"
        raise StoreError(msg)
    return dict(response.json())


def _code(response: httpx.Response) -> str:
    try:
        return str(response.json().get("error_code", ""))
    except (ValueError, AttributeError):
        return ""


@functools.cache
def _client() -> httpx.Client:
    """One for the process: each new one reads the certificates of all authorities, 20 ms of a worker's time."""
    return httpx.Client(timeout=TIMEOUT_S, limits=httpx.Limits(max_keepalive_connections=0))


def _send(settings: Settings, method: str, path: str, **more: Any) -> httpx.Response:
    url = settings.mlflow.url.rstrip("/")
    try:
        return _client().request(method, url + path, **more)
    except httpx.HTTPError as error:
        msg = f"MLflow at {url} does not answer: {error!r}"
        raise StoreError(msg) from error


def _put(settings: Settings, uri: str, data: bytes) -> None:
    parts = urlsplit(uri)
    if parts.scheme == "s3":
        _s3(settings.store, "put_object", uri, Bucket=parts.netloc, Key=parts.path.lstrip("/"), Body=data)
    else:
        response = _send(settings, "PUT", _proxied(uri), content=data)
        if response.status_code not in {httpx.codes.OK, httpx.codes.NO_CONTENT}:
            msg = f"MLflow did not store {uri} ({response.status_code}): {response.text[:300]}"
            raise StoreError(msg)


def _get(settings: Settings, uri: str) -> bytes:
    parts = urlsplit(uri)
    if parts.scheme == "s3":
        return bytes(
            _s3(settings.store, "get_object", uri, Bucket=parts.netloc, Key=parts.path.lstrip("/"))["Body"].read()
        )
    response = _send(settings, "GET", _proxied(uri))
    if response.status_code != httpx.codes.OK:
        msg = f"MLflow has no {uri} ({response.status_code}): {response.text[:300]}"
        raise StoreError(msg)
    return response.content


def _proxied(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.scheme != "mlflow-artifacts":
        msg = (
            f"artifacts at {uri} are out of reach; the MLflow server must keep them on s3: or behind mlflow-artifacts:"
        )
        raise StoreError(msg)
    return f"/api/2.0/mlflow-artifacts/artifacts/{parts.path.lstrip('/')}"


def _s3(store: StoreSettings, action: str, uri: str, **arguments: Any) -> dict[str, Any]:
    """One call to the object store."""
    import boto3  # noqa: PLC0415 - a third of a second to import, only for loading and registering
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    client = boto3.client(
        "s3",
        endpoint_url=store.endpoint_url,
        aws_access_key_id=store.access_key,
        aws_secret_access_key=store.secret_key.get_secret_value(),
        region_name="us-east-1",
        config=Config(
            s3={"addressing_style": "path"},
            connect_timeout=TIMEOUT_S,
            read_timeout=TIMEOUT_S,
            retries={"max_attempts": 2},
        ),
    )
    try:
        return dict(getattr(client, action)(**arguments))
    except (BotoCoreError, ClientError) as error:
        msg = f"the object store at {store.endpoint_url} refused {action} of {uri}: {error}"
        raise StoreError(msg) from error
    finally:
        client.close()
