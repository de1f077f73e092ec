"""Runs that failed: one line in the log of the daemon and a count by job.

What does not belong here: paging someone; that is Grafana's, from the log or from Dagster's own API.
"""

from __future__ import annotations

import dagster as dg


@dg.run_failure_sensor(name="failure_sensor", default_status=dg.DefaultSensorStatus.RUNNING)
def failure_sensor(context: dg.RunFailureSensorContext) -> None:
    """Say which run failed, of which day, why, and how many of the job failed before."""
    run = context.dagster_run
    failed = context.instance.get_runs_count(
        dg.RunsFilter(job_name=run.job_name, statuses=[dg.DagsterRunStatus.FAILURE])
    )
    day = run.tags.get("dagster/partition", "")
    context.log.error(
        "run %s of %s %s failed (%d failed runs of this job): %s",
        run.run_id,
        run.job_name,
        day,
        failed,
        context.failure_event.message,
    )
