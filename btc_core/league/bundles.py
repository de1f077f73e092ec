"""Trained models of the league in MLflow: the user's file and its pickled model, as artifacts of a registered version.

A pickle is loaded in the process of its entry and nowhere else (`child`); here it is a string of bytes.
What does not belong here: bundles of the models that serve (`btc_core.registry.bundles`).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from btc_core.clock import from_ns, now_ns
from btc_core.errors import SchemaError
from btc_core.league.rows import INPUTS_VERSION
from btc_core.names import market_suffix
from btc_core.registry.bundles import ARTIFACT_FOLDER, mlflow_of
from btc_core.version import git_commit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from btc_core.league.child import Fitted
    from btc_core.league.contract import Dataset
    from btc_core.league.folder import EntryFile
    from btc_core.settings import Settings

EXPERIMENT = "league"
EXPERIMENT_NOTE = (
    "Each run is one training of a model of your own. The metrics are its scores on the newest days, which it was not fitted on. "
    "Open *Training runs* for the list."
)
NEWEST = "newest"
"""The alias of the version that forecasts in the league."""
_FILE, _MODEL = "entry.py", "model.pkl"


class TrainedEntry(msgspec.Struct, frozen=True):
    """A version of an entry's model, ready to forecast."""

    version: str
    """The number in the registry."""
    file_version: str
    """The version of the user's file with which the model was fitted."""
    source: bytes
    """The user's file."""
    model: bytes
    data_from: str = ""
    data_to: str = ""
    """Begin and end of its training window, ISO 8601."""


def model_name(entry: str, symbol: str) -> str:
    """The name of the registered model of an entry in a market.

    >>> model_name("garch", "ETH/USD")
    'league-garch-ETHUSD'
    """
    return f"{EXPERIMENT}-{entry}{market_suffix(symbol)}"


def _inputs_version(user_version: str) -> str:
    return f"{INPUTS_VERSION}-{user_version}" if user_version else INPUTS_VERSION


def register(  # noqa: PLR0913, PLR0917 - what was fitted, on what, and how well
    settings: Settings,
    entry: EntryFile,
    dataset: Dataset,
    fitted: Fitted,
    scores: Mapping[str, float],
    user_version: str = "",
) -> tuple[str, str]:
    """Log a fit as a run, and make it the version that forecasts; returns the version and the address of its page.

    `user_version` is that of the user's own features among the inputs.
    The alias moves last, so an interrupted registration changes nothing. Raises `StoreError`.
    """
    mlflow = mlflow_of(settings)
    name = model_name(entry.name, dataset.symbol)
    first, last = (from_ns(int(ns)).isoformat() for ns in (dataset.origin_ns[0], dataset.origin_ns[-1]))
    tags = {
        "symbol": dataset.symbol,
        "entry": entry.name,
        "file_version": entry.version,
        "model_sha256": hashlib.sha256(fitted.model).hexdigest(),
        "inputs_version": _inputs_version(user_version),
        "market": "simulated" if settings.simulated else "live",
        "data_from": first,
        "data_to": last,
        "git_commit": git_commit(),
    }
    experiment = mlflow.experiment_id(EXPERIMENT, EXPERIMENT_NOTE)
    run = mlflow.create_run(experiment, f"{entry.name} {dataset.symbol}", now_ns(), tags)
    params = {"entry": entry.name, "train_rows": str(len(dataset)), "model_bytes": str(len(fitted.model))}
    mlflow.log(run.run_id, {**scores, "fit_s": fitted.took_s}, params)
    source = f"{run.artifact_uri}/{ARTIFACT_FOLDER}"
    mlflow.put_artifact(f"{source}/{_FILE}", entry.source)
    mlflow.put_artifact(f"{source}/{_MODEL}", fitted.model)
    mlflow.finish_run(run.run_id)
    note = (
        f"The model {entry.name} of your own, for {dataset.symbol}. It forecasts in the league; `btc models` and the live page have its scores. "
        f"`btc models promote {entry.name}` asks the gate whether it may serve."
    )
    mlflow.ensure_model(name, note)
    version = mlflow.create_version(name, source, run.run_id, tags, "")
    mlflow.set_alias(name, NEWEST, version)
    return version, f"{settings.links.mlflow_url or settings.mlflow.url}/#/models/{name}/versions/{version}"


def newest_version(settings: Settings, entry: str, symbol: str) -> str | None:
    """The number of the version that forecasts, or None before the first training; raises `StoreError`."""
    found = mlflow_of(settings).aliased_version(model_name(entry, symbol), NEWEST)
    return None if found is None else found.version


def load(settings: Settings, entry: str, symbol: str, version: str, user_version: str = "") -> TrainedEntry:
    """A version with its files. Raises `StoreError`, and `SchemaError` if it is damaged or was trained on other inputs."""
    mlflow = mlflow_of(settings)
    found = mlflow.version(model_name(entry, symbol), version)
    if found.tags.get("inputs_version") != _inputs_version(user_version):
        raise SchemaError(
            f"version {version} was trained on other inputs or for other horizons; the next training replaces it"
        )
    source, model = (mlflow.get_artifact(f"{found.source}/{name}") for name in (_FILE, _MODEL))
    if hashlib.sha256(model).hexdigest() != found.tags.get("model_sha256"):
        msg = f"the model of version {version} is damaged: its SHA-256 is not the registered one"
        raise SchemaError(msg)
    data_from, data_to = (found.tags.get(name, "") for name in ("data_from", "data_to"))
    return TrainedEntry(version, found.tags.get("file_version", ""), source, model, data_from, data_to)


def reads_own_features(settings: Settings, entry: str, symbol: str, version: str) -> bool:
    """Whether a version was trained with features of the user among its inputs; raises `StoreError`."""
    found = mlflow_of(settings).version(model_name(entry, symbol), version)
    return found.tags.get("inputs_version", "").startswith(f"{INPUTS_VERSION}-")
