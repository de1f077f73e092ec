"""Runs that failed: one line in the daemon's log for each, with the number of failed runs of its job.

What does not belong here: notifying a person; Grafana does that, from the log or from Dagster's API.
"""

from __future__ import annotations

import dagster as dg


@dg.run_failure_sensor(
    name="failure_sensor",
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Logs each run that failed, with its day and its error.",
)
def failure_sensor(context: dg.RunFailureSensorContext) -> None:
    """Log which run failed, of which day, why, and how many runs of the job have failed."""
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
