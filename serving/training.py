"""Starts the training job in Dagster.

What does not belong here: training. The job is defined in `btc_assets`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from btc_core.names import TRAIN_MODELS_JOB
from btc_core.stores import dagster
from serving.deps import TrainingRun

if TYPE_CHECKING:
    from btc_core.settings import Settings


class DagsterTrainer:
    """Launches `train_models` for all markets through Dagster's GraphQL API."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def launch(self) -> TrainingRun:
        """Start a run without waiting for its end, or name the one that waits or is running.

        Raises `ServiceError` if Dagster refuses or does not answer.
        """
        running = dagster.unfinished_run(self._settings, TRAIN_MODELS_JOB)
        tags = dagster.market_tags(self._settings.exchange.symbols)
        run_id = running or dagster.launch_job(self._settings, TRAIN_MODELS_JOB, tags)
        return TrainingRun(run_id=run_id, url=dagster.run_url(self._settings, run_id), is_new=not running)
