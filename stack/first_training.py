"""Training at the first start: it trains the models that have no champion, so that no market waits for the nightly training.

A simulated system then fetches its first complete day, so that it soon has a sealed one. Where no day is fetched, the tables are
checked once, so that Dagster has results before the first midnight.
`btc up` calls it, and `python -m stack.first_training` is the one-shot service `first-training` of the containers.
What does not belong here: how models are trained (`btc_assets`), and waiting for the API (`btc_cli.first_forecast`).
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from btc_core import horizons
from btc_core.clock import NS_PER_DAY, now_ns
from btc_core.errors import BtcError, ServiceError, StackError
from btc_core.features.catalogue import FEATURE_VERSION
from btc_core.models.manifest import LAYOUT
from btc_core.names import CHAMPION, CHECK_TABLES_JOB, FETCH_HISTORY_JOB, HORIZONS_MIN, TRAIN_MODELS_JOB
from btc_core.registry.keys import model_keys
from btc_core.settings import load_settings
from btc_core.stores.dagster import launch_backfill, launch_job, market_tags, run_status, run_url
from btc_core.stores.mlflow import MlflowClient
from btc_core.utc_day import day_of
from btc_core.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from btc_core.settings import Settings

TRAINING_TIMEOUT_S = 600.0
"""On two cores a first training takes about a minute, most of it for loading libraries and fetching history."""
SUCCESS = "SUCCESS"
FINAL_STATUSES = frozenset({SUCCESS, "FAILURE", "CANCELED"})
"""Statuses of a Dagster run that no other status follows."""
POLL_S = 1.0
PAST_DAY_ASSETS = ("bronze_history",)
"""What is fetched of yesterday; the sensor seals the day once its rows are there."""
PAST_DAY_MAX_MARKETS = 4
"""A day of one market takes about a minute, because REST answers a thousand trades a second."""

_logger = logging.getLogger("first-training")


def train_missing(
    settings: Settings, say: Callable[[str], None], meanwhile: Callable[[], object] = lambda: None
) -> str:
    """Train the models that have no usable champion; returns the final status of the run, or "" if none was missing.

    `say` prints a line about each step. `meanwhile` is called when a run begins, and must return at once. Raises
    `ServiceError` if a server does not answer, and `StackError` if the training takes too long.
    """
    missing = missing_champions(settings)
    if not missing:
        return ""
    say(f"no champion for the current features yet: {', '.join(missing)}")
    meanwhile()
    status = train(settings, say)
    if status == SUCCESS and (not settings.exchange.history_url or len(settings.exchange.names) > 1):
        url = run_url(settings, launch_job(settings, FETCH_HISTORY_JOB, market_tags(settings.exchange.symbols)))
        say(f"fetching older trades in the background, to train the models on them as well ({url})")
    if status == SUCCESS:
        _give_dagster_results(settings, say)
    return status


def _give_dagster_results(settings: Settings, say: Callable[[str], None]) -> None:
    """Fetch the day before, whose tables are checked once it is sealed, or check the tables now; `say` prints a line."""
    try:
        if settings.simulated and fetch_yesterday(settings, say):
            return
    except ServiceError as error:
        say(f"the trades of yesterday are not fetched: {error}. `btc backfill` fetches them")
    try:
        url = run_url(settings, launch_job(settings, CHECK_TABLES_JOB, {"dagster/priority": "-1"}))
        say(f"checking the tables in the background ({url})")
    except ServiceError as error:
        say(f"the tables are not checked yet: {error}. The job {CHECK_TABLES_JOB} runs each day at 00:30 UTC")


def fetch_yesterday(settings: Settings, say: Callable[[str], None]) -> bool:
    """Ask Dagster for yesterday's trades of a new system with few markets, which are then sealed; `say` prints a line.

    Does nothing and returns False if a day before today has trades. Raises `ServiceError` if QuestDB or Dagster does not answer.
    """
    from btc_core.days.stored_days import stored_days  # noqa: PLC0415 - loads pyarrow, which `btc status` does not need
    from btc_core.stores.questdb import QuestDB  # noqa: PLC0415 - loads pyarrow, which `btc status` does not need
    from btc_core.tables.catalogue import BRONZE_TRADES  # noqa: PLC0415 - loads pyarrow, which `btc status` does not need

    now = now_ns()
    with QuestDB(settings.questdb) as db:
        has_past = any(day < day_of(now) for day in stored_days(db, BRONZE_TRADES))
    if has_past or len(settings.exchange.symbols) > PAST_DAY_MAX_MARKETS:
        return False
    yesterday = day_of(now - NS_PER_DAY)
    launch_backfill(settings, PAST_DAY_ASSETS, (yesterday,), {"dagster/priority": "-1"})
    say(f"fetching the trades of {yesterday} in the background; Dagster then seals the day ({settings.dagster.url})")
    return True


def missing_champions(settings: Settings) -> list[str]:
    """The models without a champion that this version can load; raises `ServiceError` if MLflow does not answer.

    An upgrade may have changed the features or the layout of a bundle.
    """
    needed = {"feature_version": FEATURE_VERSION, "layout": str(LAYOUT)}
    mlflow = MlflowClient(settings.mlflow, settings.store)
    missing = []
    for key in model_keys(settings.exchange.symbols):
        champion = mlflow.aliased_version(key.name, CHAMPION)
        if champion is None or not needed.items() <= champion.tags.items() or _horizons(champion.tags) != HORIZONS_MIN:
            missing.append(key.name)
    return missing


def _horizons(tags: Mapping[str, str]) -> tuple[int, ...]:
    """The horizons of a version; one without the tag has the default ones."""
    return horizons.parse(tags.get(horizons.TAG, ""))


def train(settings: Settings, say: Callable[[str], None]) -> str:
    """Run the training job to its end and return its final status; `say` prints each change of the status.

    Raises `StackError` after `TRAINING_TIMEOUT_S`.
    """
    run_id = launch_job(settings, TRAIN_MODELS_JOB, market_tags(settings.exchange.symbols))
    url = run_url(settings, run_id)
    reported = ""

    def final_status() -> str:
        nonlocal reported
        try:
            status = run_status(settings, run_id)
            words = status.lower()
        except ServiceError as error:  # on a busy machine Dagster answers late, and the run goes on
            status, words = "", f"not known for now, {error}"
        if words != reported:
            say(f"training the first models: {words} ({url})")
            reported = words
        return status if status in FINAL_STATUSES else ""

    status = wait_until(final_status, TRAINING_TIMEOUT_S, POLL_S)
    if not status:
        msg = f"the first training has not ended after {TRAINING_TIMEOUT_S:g} s; follow it at {url}"
        raise StackError(msg)
    return status


def main() -> int:
    """Train what is missing, with the settings of the environment; 0 if every model has a champion then."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stdout)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        status = train_missing(load_settings(), _logger.info)
    except BtcError as error:
        _logger.critical("stopped: %s", error)
        return 1
    if not status:
        _logger.info("every model has a champion")
    return 0 if status in {"", SUCCESS} else 1


if __name__ == "__main__":
    sys.exit(main())
