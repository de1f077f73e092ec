"""The daily backup of the databases of Dagster and MLflow, the settings, and the user's models on the object store.

What does not belong here: what a backup holds (`btc_core.system_backup`), and copies of tables (`backups`).
"""

from __future__ import annotations

import dagster as dg

from btc_assets.asset_metadata import OWNERS
from btc_assets.model_assets import CHAMPION_ASSETS
from btc_assets.partitions import Result, markdown
from btc_assets.resources import Environment, Lake  # noqa: TC001 - Dagster reads the annotations
from btc_assets.timetable import scheduled
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
