"""How schedules are made here: in UTC, and switched on from the start.

What does not belong here: which jobs there are and when each runs; that is beside the job.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from dagster import JobDefinition
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition


schedule = partial(dg.schedule, execution_timezone="UTC", default_status=dg.DefaultScheduleStatus.RUNNING)
"""Decorates a function that decides at each time whether there is something to run."""


def scheduled(
    name: str, job: JobDefinition | UnresolvedAssetJobDefinition, cron_schedule: str
) -> dg.ScheduleDefinition:
    """A schedule in UTC that runs without being switched on."""
    return dg.ScheduleDefinition(
        name=name,
        job=job,
        cron_schedule=cron_schedule,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
