"""The job that keeps Dagster's event log small: events of live assets, which belong to no run, are deleted after a week.

What does not belong here: the ticks of sensors (`stack/servers/dagster.yaml`), and the events of runs, which are kept.
"""

# no `from __future__ import annotations`: Dagster wants the type of `context`, not its name
from datetime import UTC, datetime, timedelta

import dagster as dg

from btc_assets.timetable import scheduled
from btc_core.clock import from_ns, now_ns
from btc_core.errors import ServiceError

KEEP_DAYS = 7
"""Some 14,000 events a day of 2 KB each. What they said of older days is in QuestDB and in Prometheus."""
NO_RUN = ""
"""Dagster's run id of events that belong to no run."""


def prune(instance: dg.DagsterInstance, before: datetime) -> int:
    """Delete events without a run that are older than `before`, except the newest of each asset; returns how many."""
    # SQLAlchemy and Alembic take 200 ms, a fifth of the time in which the definitions load.
    import sqlalchemy as db  # noqa: PLC0415 - slow to import
    from dagster._core.storage.event_log import SqlEventLogStorage, SqlEventLogStorageTable  # noqa: PLC0415 - slow to import

    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        msg = f"nothing was pruned: Dagster's event log is a {type(storage).__name__}, which is no SQL database"
        raise ServiceError(msg)
    events = SqlEventLogStorageTable
    without_run = events.c.run_id == NO_RUN
    with storage.index_connection() as connection:
        newest = (
            db.select(db.func.max(events.c.id))
            .where(without_run)
            .group_by(events.c.asset_key, events.c.dagster_event_type)
        )
        kept = [row[0] for row in connection.execute(newest)]
        old = db.delete(events).where(without_run, events.c.timestamp < before, events.c.id.not_in(kept))
        return int(connection.execute(old).rowcount)


@dg.op(description="Delete the events of live assets that are older than a week, except the newest of each.")
def forget_old_events(context: dg.OpExecutionContext) -> None:
    """Prune the event log and log how many events were deleted."""
    before = from_ns(now_ns()).astimezone(UTC).replace(tzinfo=None) - timedelta(days=KEEP_DAYS)
    context.log.info("%d old events of live assets are deleted", prune(context.instance, before))


@dg.job(description="Keep Dagster's event log small.")
def prune_events() -> None:
    """Delete old events."""
    forget_old_events()


daily_pruning = scheduled("daily_pruning", prune_events, "50 4 * * *")
