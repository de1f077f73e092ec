"""Old runs of Dagster are deleted with their events, and what an asset or a day shows stays."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime, timedelta

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import dagster as dg
    from dagster._core.test_utils import freeze_time

    from btc_assets.pruning import prune_runs

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning")]

NOW = datetime(2026, 11, 29, tzinfo=UTC)


@dg.asset
def scores() -> None: ...


@dg.asset(partitions_def=dg.DailyPartitionsDefinition("2026-01-01"))
def sealed() -> None: ...


watch = dg.define_asset_job("watch", [scores])
seal = dg.define_asset_job("seal", [sealed])
DEFS = dg.Definitions(assets=[scores, sealed], jobs=[watch, seal], executor=dg.in_process_executor)


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
