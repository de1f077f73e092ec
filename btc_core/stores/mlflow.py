"""A client of MLflow's REST API: experiments, runs, model versions with their aliases and tags, and artifacts.

It speaks HTTP itself, because importing the `mlflow` package takes a second and 90 MB in every worker.
Artifacts are where the MLflow server keeps them: on the object store (`s3:`) or behind the server (`mlflow-artifacts:`).
What does not belong here: what is stored and which aliases move when (`btc_core.registry`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import msgspec

from btc_core.clock import NS_PER_MS, now_ns
from btc_core.errors import StoreError
from btc_core.stores.s3 import ObjectStore
from btc_core.stores.shared_http import shared_client

if TYPE_CHECKING:
    from collections.abc import Mapping

    from btc_core.service_settings import StoreSettings
    from btc_core.settings import MlflowSettings

TIMEOUT_S = 10.0
"""For one request; an answer takes milliseconds. A process that looks for new champions waits at most this long."""
MAX_TAG_CHARACTERS = 4_000
"""MLflow refuses tags of more than 5,000 characters."""
EXPERIMENT_KIND = "custom_model_development"
"""MLflow's word for models that are trained. Without it, its UI opens an experiment as one of language models, with tokens and
cost, and hides the runs."""
NOTE_TAG = "mlflow.note.content"
"""The tag of an experiment or a run with its description, in Markdown."""
TABLES_TAG = "mlflow.loggedArtifacts"
"""The tag of a run that names its artifacts that are tables, which MLflow's UI shows as such."""
SOURCE_TAGS = ("mlflow.source.name", "mlflow.source.type")
"""The tags of a run that say what made it."""
MAX_VERSIONS = 200
"""How many versions of a model are listed, newest first."""
PAGE_VERSIONS = 50
"""How many are read at once where all are needed. On a busy machine, 200 took MLflow half of `TIMEOUT_S`, and 50 a second."""
NOT_FOUND = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"})
"""Error codes for what does not exist; MLflow answers INVALID_PARAMETER_VALUE for an alias that no version has."""


class UsedData(msgspec.Struct, frozen=True, kw_only=True):
    """The data that a run learned from."""

    name: str
    digest: str
    """At most 36 characters; another one is another version of the data."""
    source: dict[str, str | int]
    """Where the data is."""
    columns: tuple[str, ...]
    rows: int


class Run(msgspec.Struct, frozen=True):
    """A run of an experiment and the address of its artifacts."""

    run_id: str
    artifact_uri: str


class ModelVersion(msgspec.Struct, frozen=True):
    """A version of a registered model."""

    version: str
    source: str
    """Address of its artifacts."""
    created_ns: int
    tags: dict[str, str]
    run_id: str = ""


class MlflowClient:
    """Requests to one MLflow server. Every method raises `StoreError` if the server refuses or does not answer."""

    def __init__(self, settings: MlflowSettings, store: StoreSettings) -> None:
        self._url = settings.url.rstrip("/")
        self._store = store

    def experiment_id(self, name: str, note: str = "") -> str:
        """The id of an experiment, which is created with this description if it does not exist."""
        found = self._find("experiments/get-by-name", {"experiment_name": name})
        if found is not None:
            return str(found["experiment"]["experiment_id"])
        tags = {"mlflow.experimentKind": EXPERIMENT_KIND, NOTE_TAG: note}
        body = {"name": name, "tags": _pairs(tags)}
        return str(self._call("POST", "experiments/create", body)["experiment_id"])

    def create_run(self, experiment_id: str, name: str, started_ns: int, tags: Mapping[str, str]) -> Run:
        """Start a run."""
        body = {
            "experiment_id": experiment_id,
            "run_name": name,
            "start_time": started_ns // NS_PER_MS,
            "tags": _pairs(tags),
        }
        info = self._call("POST", "runs/create", body)["run"]["info"]
        return Run(str(info["run_id"]), str(info["artifact_uri"]).rstrip("/"))

    def log(self, run_id: str, metrics: Mapping[str, float], params: Mapping[str, str]) -> None:
        """Add metrics, which must be finite, and parameters to a run."""
        stamp = now_ns() // NS_PER_MS
        values = [{"key": key, "value": value, "timestamp": stamp, "step": 0} for key, value in sorted(metrics.items())]
        self._call("POST", "runs/log-batch", {"run_id": run_id, "metrics": values, "params": _pairs(params)})

    def log_data(self, run_id: str, data: UsedData) -> None:
        """Say what data a run was trained on."""
        schema = {"mlflow_colspec": [{"name": name, "type": "double", "required": True} for name in data.columns]}
        dataset = {
            "name": data.name,
            "digest": data.digest,
            "source_type": "questdb",
            "source": _text(data.source),
            "schema": _text(schema),
            "profile": _text({"num_rows": data.rows}),
        }
        given = {"dataset": dataset, "tags": _pairs({"mlflow.data.context": "training"})}
        self._call("POST", "runs/log-inputs", {"run_id": run_id, "datasets": [given]})

    def put_tables(self, run: Run, tables: Mapping[str, bytes]) -> None:
        """Add JSON files with `columns` and `data` to a run, by name, as tables."""
        for name, text in tables.items():
            self.put_artifact(f"{run.artifact_uri}/{name}", text)
        named = _text([{"path": name, "type": "table"} for name in tables])
        self._call("POST", "runs/set-tag", {"run_id": run.run_id, "key": TABLES_TAG, "value": named})

    def finish_run(self, run_id: str) -> None:
        """Mark a run as finished now."""
        body = {"run_id": run_id, "status": "FINISHED", "end_time": now_ns() // NS_PER_MS}
        self._call("POST", "runs/update", body)

    def ensure_model(self, name: str, note: str) -> None:
        """Create a registered model with this description if it does not exist."""
        if self._find("registered-models/get", {"name": name}) is None:
            self._call("POST", "registered-models/create", {"name": name, "description": note})

    def create_version(self, name: str, source: str, run_id: str, tags: Mapping[str, str], note: str) -> str:
        """Register artifacts of a run as the next version of a model, with this description; returns its number."""
        body = {"name": name, "source": source, "run_id": run_id, "tags": _pairs(tags), "description": note}
        return str(self._call("POST", "model-versions/create", body)["model_version"]["version"])

    def version(self, name: str, version: str) -> ModelVersion:
        """One version of a model."""
        query = {"name": name, "version": version}
        return _model_version(self._call("GET", "model-versions/get", query)["model_version"])

    def versions(self, name: str) -> list[ModelVersion]:
        """The newest `MAX_VERSIONS` versions of a model, newest first; empty if there is no such model."""
        return self._page_of_versions(name, MAX_VERSIONS)[0]

    def all_versions(self, name: str) -> list[ModelVersion]:
        """All versions of a model, newest first; empty if there is no such model."""
        found, token = self._page_of_versions(name, PAGE_VERSIONS)
        while token:
            more, token = self._page_of_versions(name, PAGE_VERSIONS, token)
            found += more
        return found

    def _page_of_versions(self, name: str, size: int, token: str = "") -> tuple[list[ModelVersion], str]:
        """Versions from where `token` says, and the token of those after them, which is empty at the end."""
        query = {"filter": f"name='{name}'", "max_results": str(size), "order_by": "version_number DESC"}
        answer = self._call("GET", "model-versions/search", query | ({"page_token": token} if token else {}))
        found = map(_model_version, answer.get("model_versions", []))
        return sorted(found, key=lambda each: -int(each.version)), str(answer.get("next_page_token", ""))

    def aliased_version(self, name: str, alias: str) -> ModelVersion | None:
        """The version that has an alias, or None if no version has it."""
        found = self._find("registered-models/alias", {"name": name, "alias": alias})
        return None if found is None else _model_version(found["model_version"])

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Give an alias to a version; no other version of the model keeps it."""
        self._call("POST", "registered-models/alias", {"name": name, "alias": alias, "version": version})

    def delete_alias(self, name: str, alias: str) -> None:
        """Take an alias away from the version that has it."""
        self._call("DELETE", "registered-models/alias", {"name": name, "alias": alias})

    def set_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        """Set a tag of a version."""
        body = {"name": name, "version": version, "key": key, "value": value}
        self._call("POST", "model-versions/set-tag", body)

    def delete_version(self, name: str, version: ModelVersion) -> None:
        """Delete a version, its run, and all files of the run.

        MLflow only marks the run as deleted: its parameters and metrics, some kilobytes, stay until `mlflow gc`.
        """
        artifact_uri = ""
        if version.run_id:
            run = self._call("GET", "runs/get", {"run_id": version.run_id})["run"]
            artifact_uri = str(run["info"]["artifact_uri"]).rstrip("/")
        self._call("DELETE", "model-versions/delete", {"name": name, "version": version.version})
        if not version.run_id:
            return
        self._delete_artifacts(artifact_uri)
        self._call("POST", "runs/delete", {"run_id": version.run_id})

    def _delete_artifacts(self, uri: str) -> None:
        """Delete all files below an address."""
        parts = urlsplit(uri)
        if parts.scheme == "s3":
            with self._bucket(parts.netloc) as bucket:
                for key in bucket.keys(f"{parts.path.strip('/')}/"):
                    bucket.delete(key)
            return
        response = self._send("DELETE", _proxy_path(uri))
        if response.status_code not in {httpx.codes.OK, httpx.codes.NO_CONTENT}:
            msg = f"MLflow did not delete {uri} ({response.status_code}): {response.text[:300]}"
            raise StoreError(msg)

    def put_artifact(self, uri: str, data: bytes) -> None:
        """Write one file to an address below a run's `artifact_uri`."""
        parts = urlsplit(uri)
        if parts.scheme == "s3":
            with self._bucket(parts.netloc) as bucket:
                bucket.put(parts.path.lstrip("/"), data)
            return
        response = self._send("PUT", _proxy_path(uri), content=data)
        if response.status_code not in {httpx.codes.OK, httpx.codes.NO_CONTENT}:
            msg = f"MLflow did not store {uri} ({response.status_code}): {response.text[:300]}"
            raise StoreError(msg)

    def get_artifact(self, uri: str) -> bytes:
        """Read one file."""
        parts = urlsplit(uri)
        if parts.scheme == "s3":
            with self._bucket(parts.netloc) as bucket:
                data = bucket.get(parts.path.lstrip("/"))
            if data is None:
                msg = f"the object store at {self._store.place} has no {uri}"
                raise StoreError(msg)
            return data
        response = self._send("GET", _proxy_path(uri))
        if response.status_code != httpx.codes.OK:
            msg = f"MLflow has no {uri} ({response.status_code}): {response.text[:300]}"
            raise StoreError(msg)
        return response.content

    def _bucket(self, name: str) -> ObjectStore:
        return ObjectStore(self._store, name, connect_timeout_s=TIMEOUT_S, read_timeout_s=TIMEOUT_S)

    def _find(self, path: str, query: dict[str, str]) -> dict[str, Any] | None:
        """The answer to a GET, or None if what it asks for does not exist."""
        response = self._send("GET", f"/api/2.0/mlflow/{path}", params=query)
        if response.status_code != httpx.codes.OK and _error_code(response) in NOT_FOUND:
            return None
        return _answer(path, response)

    def _call(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request with its parameters in the query (GET) or in a JSON body (other methods)."""
        sent: dict[str, Any] = {"params": body} if method == "GET" else {"json": body}
        return _answer(path, self._send(method, f"/api/2.0/mlflow/{path}", **sent))

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            return shared_client().request(method, self._url + path, timeout=TIMEOUT_S, **arguments)
        except httpx.HTTPError as error:
            msg = f"MLflow at {self._url} does not answer: {error!r}"
            raise StoreError(msg) from error


def _answer(path: str, response: httpx.Response) -> dict[str, Any]:
    if response.status_code != httpx.codes.OK:
        msg = f"MLflow refused {path} ({response.status_code} {_error_code(response)}): {response.text[:300]}"
        raise StoreError(msg)
    return dict(response.json())


def _error_code(response: httpx.Response) -> str:
    try:
        return str(response.json().get("error_code", ""))
    except (ValueError, AttributeError):
        return ""


def _proxy_path(uri: str) -> str:
    """The path on the MLflow server of an artifact that the server keeps."""
    parts = urlsplit(uri)
    if parts.scheme != "mlflow-artifacts":
        msg = f"cannot reach artifacts at {uri}: the MLflow server must keep them on s3: or behind mlflow-artifacts:"
        raise StoreError(msg)
    return f"/api/2.0/mlflow-artifacts/artifacts/{parts.path.lstrip('/')}"


def _model_version(answer: dict[str, Any]) -> ModelVersion:
    return ModelVersion(
        version=str(answer["version"]),
        source=str(answer["source"]).rstrip("/"),
        created_ns=int(answer["creation_timestamp"]) * NS_PER_MS,
        tags={tag["key"]: tag["value"] for tag in answer.get("tags", [])},
        run_id=str(answer.get("run_id", "")),
    )


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]
