"""Benchmark of the daily jobs: what one run of each writes, and what Dagster's database holds after a month.

What does not belong here: what grows by itself all day (`growth`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.growth import MB, sizes
from benchmarks.registry import Figure, Plan, benchmark
from btc_core.errors import ServiceError
from btc_core.names import TRAIN_MODELS_JOB
from btc_core.stores.dagster import launch_job, market_tags, run_status
from btc_core.waiting import wait_until
from stack.postgres_connection import connect
from stack.runtime import Stack

if TYPE_CHECKING:
    from btc_core.settings import Settings

JOBS = (TRAIN_MODELS_JOB, "back_up_system", "check_tables", "back_up_tables", "drill_restore", "prune_events")
"""Daily jobs that a stack of an hour can run. The sealing needs a day that is over."""
PARTS = ("database", "objects", "output of Dagster's runs", "models in the cache")
"""How the parts are named that a job writes, and that the stream does not."""
RUN_TIMEOUT_S, POLL_S = 1_800.0, 2.0
WINDOW_MIN = 20
"""Minutes before now whose rows give the rate of a month. The first training must be over by then."""
SKIPPED_DAYS, SENSOR_DAYS, SCHEDULE_DAYS = 2, 14, 30
"""Days that ticks stay (`stack/servers/dagster.yaml`)."""
SMALL_MB = 0.005


@benchmark("nightly", needs_servers=True)
def nightly(plan: Plan) -> list[Figure]:
    """Run each daily job once, and read the sizes before and after. It needs `--data-dir`, and a stack that runs."""
    if plan.data_dir is None:
        return []
    stack = Stack(plan.data_dir)
    settings = stack.settings
    found = month_of_dagster(settings)
    for job in JOBS:
        before, versions = sizes(settings, stack.layout.data_dir), _versions(settings)
        run(settings, job)
        after, made = sizes(settings, stack.layout.data_dir), _versions(settings) - versions
        note = f"{made} versions of models" if made else ""
        for part, size in after.items():
            grown_mb = (size - before.get(part, 0)) / MB
            if part.startswith(PARTS) and abs(grown_mb) > SMALL_MB:
                found.append(Figure(f"a run of {job} in {part}", grown_mb, "MB", note=note))
    return found


def run(settings: Settings, job: str) -> None:
    """Let Dagster run a job for all markets; raises `ServiceError` unless it succeeds."""
    run_id = launch_job(settings, job, market_tags(settings.exchange.symbols) if job == TRAIN_MODELS_JOB else {})
    ended = {"SUCCESS", "FAILURE", "CANCELED"}
    wait_until(lambda: run_status(settings, run_id) in ended, RUN_TIMEOUT_S, POLL_S)
    if (status := run_status(settings, run_id)) != "SUCCESS":
        msg = f"the run {run_id} of {job} has the status {status}"
        raise ServiceError(msg)


def _versions(settings: Settings) -> int:
    """How many versions of all models the registry has."""
    with connect(settings.postgres, settings.postgres.mlflow_db) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM model_versions")
        return int((cursor.fetchone() or (0,))[0])


def month_of_dagster(settings: Settings) -> list[Figure]:
    """What Dagster's database holds once rows leave as fast as they come, computed from the last minutes of this system.

    Indexes are counted as they are in the largest table, because in small ones the first page of each is most of it.
    """
    dagster = settings.dagster
    kinds = (
        ("event_logs", "run_id <> ''", "timestamp", dagster.keep_days),
        ("event_logs", "run_id = ''", "timestamp", dagster.event_days),
        ("asset_check_executions", "true", "create_timestamp", dagster.keep_days),
        ("runs", "true", "create_timestamp", dagster.keep_days),
        ("job_ticks", "status = 'SKIPPED'", "create_timestamp", SKIPPED_DAYS),
        ("job_ticks", "status <> 'SKIPPED' AND type = 'SENSOR'", "create_timestamp", SENSOR_DAYS),
        ("job_ticks", "status <> 'SKIPPED' AND type = 'SCHEDULE'", "create_timestamp", SCHEDULE_DAYS),
    )
    total, found = 0.0, []
    with connect(settings.postgres, settings.postgres.dagster_db) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_total_relation_size('event_logs') / sum(pg_column_size(e.*)) FROM event_logs e")
        with_indexes = float((cursor.fetchone() or (1.0,))[0])
        for table, condition, at, days in kinds:
            recent = f"{at} > timezone('utc', now()) - interval '{WINDOW_MIN} minutes'"
            cursor.execute(
                f"SELECT count(*) FILTER (WHERE {recent}), coalesce(avg(pg_column_size(t.*)), 0) FROM {table} t WHERE {condition}"  # noqa: S608 - names of this module
            )
            rows, row_bytes = cursor.fetchone() or (0, 0.0)
            row_bytes = float(row_bytes) * with_indexes
            a_day = rows * 1_440 / WINDOW_MIN
            total += a_day * days * row_bytes / MB
            note = f"{a_day:,.0f} a day of {row_bytes:,.0f} bytes, kept for {days} days"
            found.append(Figure(f"rows of {table} where {condition}", a_day * days * row_bytes / MB, "MB", note=note))
    return [Figure("Dagster's database after a month", total, "MB", note="computed from the next rows"), *found]
