"""Runs that failed: a line in the daemon's log for each, and a message to the contacts of `BTC_ALERT_URLS`.

What does not belong here: how a message reaches a contact (`btc_core.stores.contacts`), and the alerts of the stream (`serving`).
"""

from __future__ import annotations

from datetime import timedelta

import dagster as dg

from btc_assets.resources import Environment  # noqa: TC001 - Dagster reads the annotations
from btc_core.clock import from_ns, now_ns
from btc_core.errors import BtcError

RUNBOOK_SECTION = "a-run-fails-in-dagster"


@dg.run_failure_sensor(
    name="failure_sensor",
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Logs each run that failed, with its day and its error, and sends the first of its job to the contacts.",
)
def failure_sensor(context: dg.RunFailureSensorContext, environment: Environment) -> None:
    """Log which run failed, of which day, why, and how many runs of the job have failed; then send a message.

    Further failures of the job within `BTC_ALERT_REPEAT_H` are only logged, so that a job that is retried sends one message.
    """
    # Apprise takes 0.1 s, a tenth of the time in which the definitions load.
    from btc_core.stores.contacts import contacts, sender_of  # noqa: PLC0415 - slow to import

    run, settings = context.dagster_run, environment.get()
    failures = dg.RunsFilter(job_name=run.job_name, statuses=[dg.DagsterRunStatus.FAILURE])
    failed = context.instance.get_runs_count(failures)
    partition = run.tags.get("dagster/partition", "")
    what = f"run {run.run_id} of {' '.join(filter(None, (run.job_name, partition)))}"
    context.log.error("%s failed (%d failed runs of this job): %s", what, failed, context.failure_event.message)
    since = from_ns(now_ns()) - timedelta(hours=settings.alert.repeat_h)
    recent = dg.RunsFilter(job_name=run.job_name, statuses=[dg.DagsterRunStatus.FAILURE], updated_after=since)
    if context.instance.get_runs_count(recent) > 1:
        return
    title = f"{sender_of(settings)}: {run.job_name} failed"
    body = (
        f"{what} failed: {context.failure_event.message}\n{settings.dagster.url}/runs/{run.run_id}\n"
        f"What to do: {settings.links.runbook(RUNBOOK_SECTION)}"
    )
    try:
        for contact in contacts(settings.alert):
            contact.send(title, body, "failure")
    except BtcError as error:
        context.log.error("%s could not be sent: %s", what, error)  # noqa: TRY400 - the message says everything
