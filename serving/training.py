"""Starts the training job in Dagster.

What does not belong here: training. The job is defined in `btc_assets`.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from btc_core.errors import ServiceError
from btc_core.names import TRAIN_MODELS_JOB
from btc_core.stores import dagster
from serving.deps import TrainingRun

if TYPE_CHECKING:
    from btc_core.settings import Settings


class DagsterTrainer:
    """Launches `train_models` for all markets through Dagster's GraphQL API."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = Lock()

    def launch(self) -> TrainingRun:
        """Start a run without waiting for its end, or name the one that waits or is running.

        Raises `ServiceError` if Dagster refuses or does not answer.
        """
        tags = dagster.market_tags(self._settings.exchange.symbols)
        with self._lock:  # two requests at the same moment are one run
            running = dagster.unfinished_run(self._settings, TRAIN_MODELS_JOB)
            run_id = running or dagster.launch_job(self._settings, TRAIN_MODELS_JOB, tags)
        url = dagster.run_url(self._settings, run_id)
        return TrainingRun(run_id, url, is_new=not running, status=self._status(run_id))

    def _status(self, run_id: str) -> str | None:
        """What a run does; None if Dagster does not say, which is no reason to refuse an answer about a run that exists."""
        try:
            return dagster.run_status(self._settings, run_id).lower()
        except ServiceError:
            return None
