"""The archive of the log: the messages of each sealed day, compressed on the object store.

What does not belong here: how an archive is made and proven (`btc_core.days.log_archive`, `btc_core.days.archive_proof`).
"""

# no `from __future__ import annotations`: Dagster wants the type of `context`, not its name
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from btc_assets.asset_metadata import OWNERS
from btc_assets.partitions import DAYS, ONE_RUN, ROW_COUNT, Result, for_each_day
from btc_assets.resources import Database, Environment, Lake
from btc_core.clock import NS_PER_DAY, SYSTEM_CLOCK, now_ns
from btc_core.days.seals import seal_of
from btc_core.settings import Settings
from btc_core.stores.questdb import QuestDB
from btc_core.stores.s3 import ObjectStore
from btc_core.utc_day import day_ns

ARCHIVE_CHECK = "archive_equals_bronze"
UNUSED = "BTC_BACKUP_LOG_DAYS keeps no archive of a day as old as this"
SERVER_RETRY = dg.RetryPolicy(max_retries=2, delay=10)
"""For a server that does not answer for a moment."""


@dg.asset(
    deps=["sealed_bronze", "market_events_topic"],
    partitions_def=DAYS,
    backfill_policy=ONE_RUN,
    check_specs=[
        dg.AssetCheckSpec(
            ARCHIVE_CHECK,
            asset="day_archive",
            description="The day has an archive, and its quotes and trades are those of the bronze rows that were received "
            "on the day. It is a warning if the log had dropped the day before it was archived.",
        )
    ],
    kinds={"s3"},
    group_name="backups",
    owners=OWNERS,
    retry_policy=SERVER_RETRY,
)
def day_archive(context: dg.AssetExecutionContext, environment: Environment, database: Database, lake: Lake) -> Result:
    """Every message of the log that was received on the day, order books included, as compressed lines for `btc replay`."""

    def archive(day: str) -> dict[str, Any]:
        started_s = SYSTEM_CLOCK.monotonic_s()
        with database.connect() as db, lake.connect() as store:
            environment.check_log()
            result = _archive_and_compare(environment.get(), db, store, day)
            result["seal"] = seal_of(db, day).id
        return {**result, "took_s": round(SYSTEM_CLOCK.monotonic_s() - started_s, 2)}

    results = for_each_day(context, "day_archive", archive)
    version = dg.DataVersion(str(results[0]["seal"])) if len(results) == 1 and context.has_partition_key else None
    return dg.MaterializeResult(check_results=[_check_result(results)], data_version=version)


def _archive_and_compare(settings: Settings, db: QuestDB, store: ObjectStore, day: str) -> dict[str, Any]:
    from btc_core.days import archive_proof, log_archive  # noqa: PLC0415 - numba and the decoders are needed only here

    if day_ns(day) < now_ns() - settings.backup.log_days * NS_PER_DAY:
        return {ROW_COUNT: 0, "written": False, "reason": UNUSED, "is_complete": True, "is_lost": False}
    made = log_archive.archive_day(store, settings.kafka, day)
    rows = archive_proof.rows_from_log(db, day)
    archive = made.archive
    if archive is None:
        return {ROW_COUNT: 0, "written": False, "reason": made.reason, "is_complete": not rows, "is_lost": bool(rows)}
    described = {
        ROW_COUNT: archive.messages,
        "written": made.written,
        "reason": "",
        "size_mb": round(archive.size_bytes / 1e6, 3),
        "bytes_per_message": round(archive.size_bytes / archive.messages, 1),
        "parts": len(archive.parts),
        "channels": dict(archive.channels),
        "manifest": store.uri(log_archive.manifest_key(day)),
        "is_lost": False,
    }
    if not rows and day_ns(day) < now_ns() - settings.questdb.ttl_bronze_days * NS_PER_DAY:
        return {**described, "reason": "QuestDB no longer holds the bronze rows of the day", "is_complete": True}
    proof = archive_proof.prove_archive(db, store, archive)
    names = ("quotes", "bronze_quotes", "trades", "repeated_trades", "bronze_trades")
    missing = ("missing_in_archive", "missing_in_bronze")
    return {
        **described,
        **{name: getattr(proof, name) for name in (*names, *missing)},
        "is_complete": proof.is_complete,
    }


def _check_result(results: Sequence[Mapping[str, Any]]) -> dg.AssetCheckResult:
    lost = [result for result in results if result["is_lost"]]
    incomplete = [result for result in results if not result["is_complete"]]
    only_lost = len(incomplete) == len(lost)
    return dg.AssetCheckResult(
        check_name=ARCHIVE_CHECK,
        passed=not incomplete,
        severity=dg.AssetCheckSeverity.WARN if only_lost else dg.AssetCheckSeverity.ERROR,
        description="; ".join(sorted({result["reason"] for result in lost})) or None,
        metadata={
            "days_without_archive": len(lost),
            "missing_in_archive": sum(result.get("missing_in_archive", 0) for result in results),
            "missing_in_bronze": sum(result.get("missing_in_bronze", 0) for result in results),
        },
    )
