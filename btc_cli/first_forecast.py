"""The end of `btc up`: models are trained when there are none that fit, and the API is asked until it serves.

What does not belong here: how models are trained (`btc_assets`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import httpx

from btc_core.errors import StackError
from btc_core.features.catalogue import FEATURE_VERSION
from btc_core.names import CHAMPION, FETCH_HISTORY_JOB, TRAIN_MODELS_JOB
from btc_core.registry.keys import model_keys
from btc_core.stores.mlflow import MlflowClient

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.settings import Settings

TRAINING_PATIENCE_S = 600.0
"""On two cores a first training takes about a minute, most of it loading libraries and fetching history."""
READY_PATIENCE_S = 60.0
"""From all healthy to the first forecast: the models are loaded within `BTC_MODEL_RELOAD_S`, features flow at once."""
OVER = frozenset({"SUCCESS", "FAILURE", "CANCELED"})
POLL_S = 1.0


def missing_champions(settings: Settings) -> list[str]:
    """The models without a champion of this feature version; raises `ServiceError` when MLflow does not answer."""
    mlflow = MlflowClient(settings.mlflow, settings.store)
    missing = []
    for key in model_keys(settings.exchange.modelled_symbols):
        champion = mlflow.aliased_version(key.name, CHAMPION)
        if champion is None or champion.tags.get("feature_version") != FEATURE_VERSION:
            missing.append(key.name)
    return missing


def train(settings: Settings, say: Callable[[str], None]) -> str:
    """Run the training job to its end and return its last status; `say` is told each change."""
    from btc_core.stores.dagster import launch_job, run_status  # noqa: PLC0415 - not needed by other commands

    run_id = launch_job(settings, TRAIN_MODELS_JOB)
    seen = ""
    deadline_s = time.monotonic() + TRAINING_PATIENCE_S
    while time.monotonic() < deadline_s:
        status = run_status(settings, run_id)
        if status != seen:
            say(f"training the first models: {status.lower()} ({settings.dagster.url}/runs/{run_id})")
            seen = status
        if status in OVER:
            return status
        time.sleep(POLL_S)
    url = f"{settings.dagster.url}/runs/{run_id}"
    msg = f"the first training has not ended after {TRAINING_PATIENCE_S:g} s; follow it at {url}"
    raise StackError(msg)


def fetch_history(settings: Settings) -> str:
    """Start to fetch older trades in the background, and the words that say so."""
    from btc_core.stores.dagster import launch_job, run_url  # noqa: PLC0415 - not needed by other commands

    run_id = launch_job(settings, FETCH_HISTORY_JOB)
    return f"older trades are fetched in the background, then the models train on them ({run_url(settings, run_id)})"


def wait_ready(settings: Settings, patience_s: float = READY_PATIENCE_S, *, trained: bool = False) -> dict[str, Any]:
    """The last answer of `/readyz`: with `status` `ready`, or what it said when the patience ended.

    `trained` also waits until the registered champions serve, not what served before there were any.
    """
    url = f"http://{settings.api.host}:{settings.api.port}/readyz"
    deadline_s = time.monotonic() + patience_s
    answer: dict[str, Any] = {"status": "starting", "reasons": ["the API did not answer"]}
    while True:
        try:
            answer = httpx.get(url, timeout=5).json()
        except (httpx.HTTPError, ValueError) as error:
            answer = {"status": "starting", "reasons": [f"the API did not answer: {error}"]}
        if time.monotonic() > deadline_s or (
            answer.get("status") == "ready" and (not trained or _registered(answer["models"]))
        ):
            return answer
        time.sleep(POLL_S)


def _registered(models: dict[str, dict[str, str | None]]) -> bool:
    """Versions of the registry are numbers; a baseline that was never registered has a name of its own."""
    return all((model["version"] or "").isdigit() for model in models.values())
