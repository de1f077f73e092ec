"""The last step of `btc up`: train models if there are none for the current features, and wait until the API is ready.

What does not belong here: how models are trained (`btc_assets`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx

from btc_core.errors import StackError
from btc_core.features.catalogue import FEATURE_VERSION
from btc_core.models.manifest import LAYOUT
from btc_core.names import CHAMPION, FETCH_HISTORY_JOB, TRAIN_MODELS_JOB
from btc_core.registry.keys import model_keys
from btc_core.stores.dagster import launch_job, market_tags, run_status, run_url
from btc_core.stores.mlflow import MlflowClient
from btc_core.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.settings import Settings

TRAINING_TIMEOUT_S = 600.0
"""On two cores a first training takes about a minute, most of it for loading libraries and fetching history."""
READY_TIMEOUT_S = 60.0
"""From all components healthy to the first forecast: models are loaded within `BTC_MODEL_RELOAD_S`."""
FINAL_STATUSES = frozenset({"SUCCESS", "FAILURE", "CANCELED"})
"""Statuses of a Dagster run that no other status follows."""
POLL_S = 1.0


def ensure_forecasts(settings: Settings, say: Callable[[str], None]) -> dict[str, Any]:
    """Train the models that have no usable champion and wait until the API is ready; returns its last `/readyz`.

    `say` prints a line about each step. Raises `ServiceError` or `StackError` if a server or the training hangs.
    """
    missing = missing_champions(settings)
    if missing:
        say(f"no champion for the current features yet: {', '.join(missing)}")
        status = train(settings, say)
        if status != "SUCCESS":
            say(f"the training run ended with {status}; the page above says why. The API serves its baselines.")
            return wait_ready(settings)
        if not settings.exchange.history_url or len(settings.exchange.names) > 1:
            url = run_url(settings, launch_job(settings, FETCH_HISTORY_JOB, market_tags(settings.exchange.symbols)))
            say(f"fetching older trades in the background, to train the models on them as well ({url})")
    return wait_ready(settings, with_champions=True)


def missing_champions(settings: Settings) -> list[str]:
    """The models without a champion that this version can load; raises `ServiceError` if MLflow does not answer.

    An upgrade may have changed the features or the layout of a bundle.
    """
    needed = {"feature_version": FEATURE_VERSION, "layout": str(LAYOUT)}
    mlflow = MlflowClient(settings.mlflow, settings.store)
    missing = []
    for key in model_keys(settings.exchange.symbols):
        champion = mlflow.aliased_version(key.name, CHAMPION)
        if champion is None or not needed.items() <= champion.tags.items():
            missing.append(key.name)
    return missing


def train(settings: Settings, say: Callable[[str], None]) -> str:
    """Run the training job to its end and return its final status; `say` prints each change of the status.

    Raises `StackError` after `TRAINING_TIMEOUT_S`.
    """
    run_id = launch_job(settings, TRAIN_MODELS_JOB, market_tags(settings.exchange.symbols))
    url = run_url(settings, run_id)
    reported = ""

    def final_status() -> str:
        nonlocal reported
        status = run_status(settings, run_id)
        if status != reported:
            say(f"training the first models: {status.lower()} ({url})")
            reported = status
        return status if status in FINAL_STATUSES else ""

    status = wait_until(final_status, TRAINING_TIMEOUT_S, POLL_S)
    if not status:
        msg = f"the first training has not ended after {TRAINING_TIMEOUT_S:g} s; follow it at {url}"
        raise StackError(msg)
    return status


def wait_ready(
    settings: Settings, timeout_s: float = READY_TIMEOUT_S, *, with_champions: bool = False
) -> dict[str, Any]:
    """Wait until the API is ready and return its last answer from `/readyz`, which says what is missing after a timeout.

    `with_champions` also waits until the API serves registered models instead of its built-in baselines.
    """
    url = f"http://{settings.api.host}:{settings.api.port}/readyz"
    answer: dict[str, Any] = {}

    def is_ready() -> bool:
        nonlocal answer
        answer = _readiness(url)
        return answer.get("status") == "ready" and (not with_champions or _are_registered(answer["models"]))

    wait_until(is_ready, timeout_s, POLL_S)
    return answer


def _readiness(url: str) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = httpx.get(url, timeout=5).json()
    except (httpx.HTTPError, ValueError) as error:
        return {"status": "starting", "reasons": [f"the API did not answer: {error}"]}
    return answer


def _are_registered(models: dict[str, dict[str, str | None]]) -> bool:
    """Whether all versions are numbers, as the registry gives them; built-in baselines have names instead."""
    return all((model["version"] or "").isdigit() for model in models.values())
