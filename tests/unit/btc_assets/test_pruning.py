"""Old runs of Dagster are deleted with their events, output and checks, and what an asset or a day shows stays."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import dagster as dg
    from dagster._core.test_utils import freeze_time

    from btc_assets.pruning import prune_checks, prune_runs

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning")]

NOW = datetime(2026, 11, 29, tzinfo=UTC)


@dg.asset
def scores() -> None: ...


@dg.asset_check(asset=scores)
def scores_are_good() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


@dg.asset(partitions_def=dg.DailyPartitionsDefinition("2026-01-01"))
def sealed() -> None: ...


watch = dg.define_asset_job("watch", dg.AssetSelection.assets(scores))
seal = dg.define_asset_job("seal", [sealed])
DEFS = dg.Definitions(
    assets=[scores, sealed], asset_checks=[scores_are_good], jobs=[watch, seal], executor=dg.in_process_executor
)


def _run(instance: dg.DagsterInstance, job: str, days_ago: float, partition: str | None = None) -> str:
    with freeze_time(NOW - timedelta(days=days_ago)):
        done = DEFS.resolve_job_def(job).execute_in_process(instance=instance, partition_key=partition)
    return done.run_id


def test_old_runs_go_and_the_newest_of_each_job_and_day_stay() -> None:
    with dg.instance_for_test() as instance:
        old = [_run(instance, "watch", days) for days in (50, 40, 31)]
        recent = [_run(instance, "watch", days) for days in (20, 1)]
        days = [_run(instance, "seal", 100, "2026-08-20"), _run(instance, "seal", 99, "2026-08-21")]
        sealed_again = _run(instance, "seal", 98, "2026-08-20")
        events = instance.event_log_storage.get_logs_for_run(old[0])
        assert events
        assert prune_runs(instance, NOW - timedelta(days=30)) == 4
        left = {run.run_id for run in instance.get_runs()}
        assert left == {*recent, days[1], sealed_again}
        assert instance.event_log_storage.get_logs_for_run(old[0]) == []
        assert instance.get_materialized_partitions(dg.AssetKey("sealed")) == {"2026-08-20", "2026-08-21"}
        assert prune_runs(instance, NOW - timedelta(days=30)) == 0
        assert prune_runs(instance, NOW) == 1, "the newest run of a job stays, however old it is"


def test_the_output_of_old_runs_and_old_evaluations_of_checks_go_too() -> None:
    with dg.instance_for_test() as instance:
        runs = [_run(instance, "watch", days) for days in (50, 40, 1)]
        output = {run_id: Path(instance.storage_directory()) / run_id / "compute_logs" for run_id in runs}
        assert all(any(folder.iterdir()) for folder in output.values())
        prune_runs(instance, NOW - timedelta(days=30))
        assert [folder.exists() for folder in output.values()] == [False, False, True]

        key = dg.AssetCheckKey(dg.AssetKey("scores"), "scores_are_good")
        storage = instance.event_log_storage
        newest = storage.get_asset_check_execution_history(key, limit=9)[0]
        # The database says when an evaluation was created, by its own clock.
        tomorrow = datetime.now(UTC).replace(tzinfo=None) + timedelta(days=1)
        assert prune_checks(instance, tomorrow - timedelta(days=2)) == 0
        assert prune_checks(instance, tomorrow) == 2
        assert storage.get_asset_check_execution_history(key, limit=9) == [newest]
        assert prune_checks(instance, tomorrow) == 0
