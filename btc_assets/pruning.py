"""Keeping Dagster's event log small: events of live tables, which belong to no run, are forgotten after some days.

What does not belong here: ticks of sensors (`stack/servers/dagster.yaml`), and events of runs, which stay.
"""

# no `from __future__ import annotations`: Dagster wants the type of `context`, not its name
from datetime import UTC, datetime, timedelta

import dagster as dg
import sqlalchemy as db
from dagster._core.storage.event_log import SqlEventLogStorage, SqlEventLogStorageTable

from btc_assets.timetable import scheduled
from btc_core.clock import from_ns, now_ns
from btc_core.errors import ServiceError

KEEP_DAYS = 7
"""Some 14,000 events a day of 2 KB; what is older is in QuestDB and in Prometheus."""
RUNLESS = ""
"""Dagster's run id of events that belong to no run."""


def prune(instance: dg.DagsterInstance, before: datetime) -> int:
    """Delete events without a run that are older than `before`, but each asset's newest; returns how many."""
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        msg = f"{type(storage).__name__} holds Dagster's events and is no SQL database: nothing was pruned"
        raise ServiceError(msg)
    events = SqlEventLogStorageTable
    runless = events.c.run_id == RUNLESS
    with storage.index_connection() as connection:
        newest = (
            db.select(db.func.max(events.c.id)).where(runless).group_by(events.c.asset_key, events.c.dagster_event_type)
        )
        kept = [row[0] for row in connection.execute(newest)]
        old = db.delete(events).where(runless, events.c.timestamp < before, events.c.id.not_in(kept))
        return int(connection.execute(old).rowcount)


@dg.op(description="Forget events of live tables that are older than a week.")
def forget_old_events(context: dg.OpExecutionContext) -> None:
    """Prune and say how many events went."""
    before = from_ns(now_ns()).astimezone(UTC).replace(tzinfo=None) - timedelta(days=KEEP_DAYS)
    context.log.info("%d old events of live tables forgotten", prune(context.instance, before))


@dg.job
def prune_events() -> None:
    """Keep the event log small."""
    forget_old_events()


daily_pruning = scheduled("daily_pruning", prune_events, "50 4 * * *")
