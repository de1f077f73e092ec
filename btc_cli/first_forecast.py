"""The last step of `btc up`: train models if there are none for the current features, and wait until the API is ready.

What does not belong here: which models are missing and how they are trained (`stack.first_training`).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx

from btc_cli.screen import missing
from btc_core.errors import StackError
from btc_core.stores.api_connection import api_client
from btc_core.waiting import wait_until
from stack.first_training import SUCCESS, train_missing
from stack.servers.programs import compile_proofs

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.api_settings import ApiSettings
    from btc_core.settings import Settings

READY_TIMEOUT_S = 60.0
"""From all components healthy to the first forecast: models are loaded within `BTC_MODEL_RELOAD_S`."""
FIRST_FORECAST_TIMEOUT_S = 10.0
"""From the workers and the API healthy to the first forecast. A market without bars takes half an hour, so that waiting
longer would only keep MLflow and Dagster from starting."""
POLL_S = 0.5
REST = "The components that forecasts do not need start now."


def ensure_forecasts(settings: Settings, say: Callable[[str], None]) -> dict[str, Any]:
    """Train the models that have no usable champion and wait until the API is ready; returns its last `/readyz`.

    `say` prints a line about each step. Raises `ServiceError` or `StackError` if a server or the training hangs.
    """
    with ThreadPoolExecutor(1) as beside:
        status = train_missing(settings, say, lambda: beside.submit(_compile_proofs, say))
    if status not in {"", SUCCESS}:
        say(f"the training run ended with {status}; the page above says why. The API serves its baselines.")
        return wait_ready(settings)
    return wait_ready(settings, with_champions=True)


def _compile_proofs(say: Callable[[str], None]) -> None:
    """Compile for `btc verify` on the core that a training leaves free."""
    try:
        compile_proofs()
    except StackError as error:
        say(f"{error}. The first `btc verify` compiles them")


def announce_forecasts(settings: Settings, say: Callable[[str], None]) -> None:
    """Wait until the API is ready, while the servers that forecasts do not need are not started yet; say what it serves."""
    answer = wait_ready(settings, FIRST_FORECAST_TIMEOUT_S)
    if answer.get("status") == "ready":
        say(f"Forecasts are served at {settings.api.url}/live. {REST}")
    else:
        say(f"No forecast is served yet: {missing(answer)}. {REST}")


def serving_cards(settings: Settings, answer: dict[str, Any]) -> list[dict[str, Any]]:
    """What `/v1/model` says of each market that an answer of `/readyz` calls ready; a market without an answer is left out."""
    token = settings.api.reader_token
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"{settings.api.url}/v1/model"
    cards = []
    for market in answer.get("markets", []):
        if market["status"] != "ready":
            continue
        try:
            client = api_client(settings.api)
            found = client.get(url, params={"symbol": market["symbol"]}, headers=headers, timeout=10)
            cards.append(found.raise_for_status().json())
        except (httpx.HTTPError, ValueError):
            continue
    return cards


def wait_ready(
    settings: Settings, timeout_s: float = READY_TIMEOUT_S, *, with_champions: bool = False
) -> dict[str, Any]:
    """Wait until the API is ready and return its last answer from `/readyz`, which says what is missing after a timeout.

    `with_champions` also waits until the API serves registered models instead of its built-in baselines.
    """
    answer: dict[str, Any] = {}

    def is_ready() -> bool:
        nonlocal answer
        answer = _readiness(settings.api)
        return answer.get("status") == "ready" and (not with_champions or _are_registered(answer["models"]))

    wait_until(is_ready, timeout_s, POLL_S)
    return answer


def _readiness(api: ApiSettings) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = api_client(api).get(f"{api.url}/readyz", timeout=5).json()
    except (httpx.HTTPError, ValueError) as error:
        return {"status": "starting", "reasons": [f"the API did not answer: {error}"]}
    return answer


def _are_registered(models: dict[str, dict[str, str | None]]) -> bool:
    """Whether all versions are numbers, as the registry gives them; built-in baselines have names instead."""
    return all((model["version"] or "").isdigit() for model in models.values())
