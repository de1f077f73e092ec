"""The job that keeps Dagster's and MLflow's databases small: old events, runs, evaluations of checks, and versions of models.

What does not belong here: the ticks of sensors (`stack/servers/dagster.yaml`), and which versions may go (`btc_core.registry.retention`).
"""

# no `from __future__ import annotations`: Dagster wants the type of `context`, not its name
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from btc_assets.resources import Environment
from btc_assets.timetable import scheduled
from btc_core.clock import from_ns, now_ns
from btc_core.errors import ServiceError

if TYPE_CHECKING:
    from dagster._core.storage.event_log import SqlEventLogStorage

PAGE_RUNS = 500
PARTITION_TAGS = ("dagster/partition", "dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
FINISHED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
NO_RUN = ""
"""Dagster's run id of events that belong to no run."""


def prune(instance: dg.DagsterInstance, before: datetime) -> int:
    """Delete events without a run that are older than `before`, except the newest of each asset; returns how many."""
    # SQLAlchemy and Alembic take 200 ms, a fifth of the time in which the definitions load.
    import sqlalchemy as db  # noqa: PLC0415 - slow to import
    from dagster._core.storage.event_log import SqlEventLogStorageTable  # noqa: PLC0415 - slow to import

    events = SqlEventLogStorageTable
    without_run = events.c.run_id == NO_RUN
    with _event_log(instance).index_connection() as connection:
        newest = (
            db.select(db.func.max(events.c.id))
            .where(without_run)
            .group_by(events.c.asset_key, events.c.dagster_event_type)
        )
        kept = [row[0] for row in connection.execute(newest)]
        old = db.delete(events).where(without_run, events.c.timestamp < before, events.c.id.not_in(kept))
        return int(connection.execute(old).rowcount)


def _event_log(instance: dg.DagsterInstance) -> "SqlEventLogStorage":
    """The event log; raises `ServiceError` if it is no SQL database."""
    from dagster._core.storage.event_log import SqlEventLogStorage  # noqa: PLC0415 - slow to import

    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        msg = f"nothing was pruned: Dagster's event log is a {type(storage).__name__}, which is no SQL database"
        raise ServiceError(msg)
    return storage


def prune_runs(instance: dg.DagsterInstance, before: datetime) -> int:
    """Delete finished runs that were created before a time, with their events and their output; returns how many.

    The newest run of each job, partition and outcome stays, so that no asset and no day loses what it shows.
    """
    known: set[tuple[str, ...]] = set()
    old: list[str] = []
    cursor: str | None = None
    while records := instance.get_run_records(dg.RunsFilter(statuses=list(FINISHED)), limit=PAGE_RUNS, cursor=cursor):
        for record in records:  # newest first
            run = record.dagster_run
            kind = (run.job_name, run.status.value, *(run.tags.get(tag, "") for tag in PARTITION_TAGS))
            if kind in known and record.create_timestamp.astimezone(UTC) < before:
                old.append(run.run_id)
            known.add(kind)
        cursor = records[-1].dagster_run.run_id
    for run_id in old:
        # Dagster keeps the output of the steps. It goes first: without its run, nobody would find it again.
        instance.compute_log_manager.delete_logs(prefix=[run_id])
        instance.delete_run(run_id)
    return len(old)


def prune_checks(instance: dg.DagsterInstance, before: datetime) -> int:
    """Delete evaluations of checks that were created before a time, except the newest of each check; returns how many.

    Dagster keeps them in a table of their own when it deletes the run, and reads all of a check for its page.
    """
    import sqlalchemy as db  # noqa: PLC0415 - slow to import, as above
    from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable  # noqa: PLC0415 - slow to import

    checks = AssetCheckExecutionsTable
    with _event_log(instance).index_connection() as connection:
        newest = db.select(db.func.max(checks.c.id)).group_by(
            checks.c.asset_key, checks.c.check_name, checks.c.partition, checks.c.execution_status
        )
        old = db.delete(checks).where(checks.c.create_timestamp < before, checks.c.id.not_in(newest))
        return int(connection.execute(old).rowcount)


@dg.op(
    description="Delete the events of live assets that are older than BTC_DAGSTER_EVENT_DAYS, except the newest of each."
)
def forget_old_events(context: dg.OpExecutionContext, environment: Environment) -> None:
    """Prune the event log and log how many events were deleted. What they said is in QuestDB and in Prometheus."""
    days = environment.get().dagster.event_days
    before = from_ns(now_ns()).astimezone(UTC).replace(tzinfo=None) - timedelta(days=days)
    context.log.info("%d old events of live assets are deleted", prune(context.instance, before))


@dg.op(
    description="Delete finished runs that are older than BTC_DAGSTER_KEEP_DAYS, except the newest of each job and partition."
)
def forget_old_runs(context: dg.OpExecutionContext, environment: Environment) -> None:
    """Delete old runs and log how many."""
    before = from_ns(now_ns()) - timedelta(days=environment.get().dagster.keep_days)
    context.log.info("%d old runs are deleted", prune_runs(context.instance, before))
    checks = prune_checks(context.instance, before.astimezone(UTC).replace(tzinfo=None))
    context.log.info("%d old evaluations of checks are deleted", checks)


@dg.op(
    description="Delete versions of models that are older than BTC_MLFLOW_KEEP_DAYS and have no alias, with their files."
)
def forget_old_versions(context: dg.OpExecutionContext, environment: Environment) -> None:
    """Delete old versions and log which."""
    from btc_core.registry.retention import expire  # noqa: PLC0415 - imports numba

    deleted = expire(environment.get(), now_ns())
    context.log.info("%d old versions of models are deleted: %s", len(deleted), ", ".join(deleted) or "none")


@dg.job(description="Keep the databases of Dagster and MLflow small.")
def prune_events() -> None:
    """Delete old events, runs and versions of models."""
    forget_old_events()
    forget_old_runs()
    forget_old_versions()


daily_pruning = scheduled("daily_pruning", prune_events, "50 4 * * *")
