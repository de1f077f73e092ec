"""Copies of the tables on the object store, what may then be dropped from QuestDB, and the drill that restores copies.

What does not belong here: how a copy is made and proven (`btc_core.days.lake`), and the copy of a sealed day (`sealed`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

from btc_assets.asset_metadata import OWNERS
from btc_assets.partitions import Result, markdown
from btc_assets.resources import Database, Environment, Lake  # noqa: TC001 - Dagster reads the annotations
from btc_assets.timetable import scheduled
from btc_core.clock import NS_PER_DAY, NS_PER_S, SYSTEM_CLOCK, now_ns
from btc_core.days import lake as copies
from btc_core.days.stored_days import stored_days
from btc_core.errors import BtcError
from btc_core.tables.catalogue import STORED
from btc_core.tables.schema import ensure_tables
from btc_core.utc_day import day_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.stores.questdb import QuestDB
    from btc_core.stores.s3 import ObjectStore
    from btc_core.tables.form import Table


@dg.asset(
    deps=["day_backup", *(table.name for table in STORED if not table.sealed)],
    kinds={"s3", "parquet"},
    group_name="backups",
    owners=OWNERS,
    check_specs=[
        dg.AssetCheckSpec(
            "retention_covered",
            asset="lake_backups",
            description="Every day that is past its retention in QuestDB has a sound, complete copy.",
        )
    ],
)
def lake_backups(environment: Environment, database: Database, lake: Lake) -> Result:
    """Copies of all complete days. A day whose copy is missing or outdated is copied; then days past their retention are dropped."""
    from btc_core.days import log_archive  # noqa: PLC0415 - imports numba

    started_s = SYSTEM_CLOCK.monotonic_s()
    log = dg.get_dagster_logger()
    now = now_ns()
    made: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    with database.connect() as db, lake.connect() as store:
        ensure_tables(db)
        for table, day in _days_to_copy(db, store, now):
            try:
                manifest = copies.back_up(db, store, table, day)
            except BtcError as error:  # one bad day must not keep the others without a copy
                log.warning("%s of %s is not copied: %s", table.name, day, error)
                refused.append({"table": table.name, "day": day, "why": str(error)})
                continue
            if manifest is not None:
                made.append({"table": table.name, "day": day, "rows": manifest.rows, "object": manifest.key})
        retention = copies.drop_old(db, store, now)
        backup = environment.get().backup
        expired = copies.expire(store, backup.keep_days, now)
        archives_expired = log_archive.expire(store, backup.log_days, now)
    held = [{"table": table, "day": day, "why": why} for table, day, why in retention.blocked]
    check = dg.AssetCheckResult(
        check_name="retention_covered",
        passed=not held and not refused,
        metadata={"held_in_questdb": markdown(held), "refused": markdown(refused)},
    )
    return dg.MaterializeResult(
        metadata={
            "copies_made": len(made),
            "copies_refused": len(refused),
            "rows_copied": sum(entry["rows"] for entry in made),
            "days_dropped": len(retention.dropped),
            "days_held": len(held),
            "copies_expired": len(expired),
            "archive_objects_expired": len(archives_expired),
            "copies": markdown(made),
            "took_s": round(SYSTEM_CLOCK.monotonic_s() - started_s, 2),
        },
        check_results=[check],
    )


def _days_to_copy(db: QuestDB, store: ObjectStore, now: int) -> Iterator[tuple[Table, str]]:
    """Complete days without a copy or with another number of rows than their copy, and days past their retention.

    Copying a day compares its content with that of the copy, which must happen before the day is dropped.
    """
    for table in STORED:
        kept_from = day_of(now - table.ttl_days(db.settings) * NS_PER_DAY)
        for day, rows in stored_days(db, table).items():
            if day >= day_of(now):
                continue
            copy = copies.read_manifest(store, table.name, day)
            if day < kept_from or copy is None or copy.rows != rows:
                yield table, day


@dg.asset(
    deps=["lake_backups"],
    kinds={"s3", "questdb"},
    group_name="backups",
    owners=OWNERS,
    check_specs=[
        dg.AssetCheckSpec(
            "copies_restore",
            asset="restore_drill",
            description="The oldest and the newest copy of every table can be restored to the rows that were copied.",
        )
    ],
)
def restore_drill(database: Database, lake: Lake) -> Result:
    """The oldest and the newest copy of every table, loaded into a scratch table and compared by row count and digest."""
    started_ns = now_ns()
    tried: list[dict[str, Any]] = []
    with database.connect() as db, lake.connect() as store:
        for table in STORED:
            days = copies.kept_days(store, table.name)
            for day in sorted({*days[:1], *days[-1:]}):
                try:
                    rows, problem = copies.drill(db, store, table, day), ""
                except BtcError as error:
                    rows, problem = 0, str(error)
                tried.append({"table": table.name, "day": day, "rows": rows, "problem": problem})
        failed = [entry for entry in tried if entry["problem"]]
        copies.write_drill(store, len(tried), len(failed))
    took_s = (now_ns() - started_ns) / NS_PER_S
    rows = sum(entry["rows"] for entry in tried)
    check = dg.AssetCheckResult(
        check_name="copies_restore", passed=not failed and bool(tried), metadata={"failed": markdown(failed)}
    )
    return dg.MaterializeResult(
        metadata={
            "copies_tried": len(tried),
            "rows_restored": rows,
            "rows_per_s": round(rows / took_s) if took_s else 0,
            "copies": markdown(tried),
        },
        check_results=[check],
    )


back_up_tables = dg.define_asset_job(
    "back_up_tables",
    selection=dg.AssetSelection.assets(lake_backups),
    description="Copy every complete day that has no copy yet, and drop days from QuestDB that are past their retention.",
)
drill_restore = dg.define_asset_job(
    "drill_restore",
    selection=dg.AssetSelection.assets(restore_drill),
    description="Restore the oldest and the newest copy of every table into scratch tables and compare them.",
)
daily_backup = scheduled("daily_backup", back_up_tables, "40 0 * * *")
weekly_drill = scheduled("weekly_drill", drill_restore, "20 3 * * 0")
