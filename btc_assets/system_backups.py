"""The daily backup of what is no table on the object store, and the daily copy of that store at a second place.

What does not belong here: what a backup holds (`btc_core.system_backup`), how a copy is kept (`btc_core.offsite`), and copies of
tables (`backups`).
"""

from __future__ import annotations

import dagster as dg

from btc_assets.asset_metadata import OWNERS
from btc_assets.model_assets import CHAMPION_ASSETS
from btc_assets.partitions import Result, markdown
from btc_assets.resources import Environment, Lake  # noqa: TC001 - Dagster reads the annotations
from btc_assets.timetable import schedule, scheduled
from btc_core import offsite
from btc_core import system_backup as backups
from btc_core.clock import SYSTEM_CLOCK, now_ns


@dg.asset(
    deps=[*CHAMPION_ASSETS],
    kinds={"s3", "postgres"},
    group_name="backups",
    owners=OWNERS,
)
def system_backup(environment: Environment, lake: Lake) -> Result:
    """A backup of the databases of Dagster and MLflow, the settings without secrets, and the user's models, from which `btc restore --all` rebuilds the system."""
    started_s = SYSTEM_CLOCK.monotonic_s()
    settings = environment.get()
    with lake.connect() as store:
        made = backups.back_up(settings, store)
        expired = backups.expire(store, settings.backup.system_days, now_ns())
    files = [{"file": file.name, "bytes": file.size_bytes, "object": file.key} for file in made.files]
    return dg.MaterializeResult(
        metadata={
            "size_bytes": made.size_bytes,
            "files": markdown(files),
            "objects_expired": len(expired),
            "took_s": round(SYSTEM_CLOCK.monotonic_s() - started_s, 2),
        }
    )


back_up_system = dg.define_asset_job(
    "back_up_system",
    selection=dg.AssetSelection.assets(system_backup),
    description="Back up the databases of Dagster and MLflow, the settings and the user's models on the object store.",
)
daily_system_backup = scheduled("daily_system_backup", back_up_system, "10 1 * * *")


@dg.asset(
    deps=["system_backup", "lake_backups"],
    kinds={"s3"},
    group_name="backups",
    owners=OWNERS,
)
def offsite_copy(environment: Environment, lake: Lake) -> Result:
    """A copy of all objects at the second place that BTC_BACKUP_COPY_TO names, from which `btc restore --all --from-copy` rebuilds the system. Encrypted settings that `btc backup --to` has copied there stay part of it."""
    started_s = SYSTEM_CLOCK.monotonic_s()
    settings = environment.get()
    where = settings.backup.copy_to
    if not where:
        raise dg.Failure("BTC_BACKUP_COPY_TO names no place, so there is nothing to copy to", allow_retries=False)
    with offsite.open_place(settings, where) as place, lake.connect() as store:
        offsite.require_earlier(settings, store, place)
        copy = offsite.make(settings, place, None)
        offsite.record(store, copy, where)
    return dg.MaterializeResult(
        metadata={
            "where": where,
            "objects": len(copy.objects),
            "size_bytes": copy.size_bytes,
            "with_settings": bool(copy.settings_sha256),
            "took_s": round(SYSTEM_CLOCK.monotonic_s() - started_s, 2),
        }
    )


copy_offsite = dg.define_asset_job(
    "copy_offsite",
    selection=dg.AssetSelection.assets(offsite_copy),
    description="Copy all objects to the second place that BTC_BACKUP_COPY_TO names.",
)


@schedule(
    job=copy_offsite,
    cron_schedule="30 1 * * *",
    description="Copies all objects to a second place once a day, after the backup of the databases, if BTC_BACKUP_COPY_TO names one.",
)
def daily_offsite_copy(environment: Environment) -> dg.RunRequest | dg.SkipReason:
    """Request a run unless no second place is named."""
    if not environment.get().backup.copy_to:
        return dg.SkipReason("BTC_BACKUP_COPY_TO names no second place")
    return dg.RunRequest()
