"""Sealed days: bronze proven against the log, silver against its replay, gold computed for good, then a copy of it all.

Materializing a day is a proof and a repair at once: what differs is written anew and counted. Running it again on the
same rows changes nothing. What does not belong here: when a day is complete (`sealing`).
"""

# no `from __future__ import annotations`: Dagster wants the type of `context`, not its name
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import dagster as dg

from btc_assets.asset_metadata import OWNERS, code_version, table_metadata, upstream_tables
from btc_assets.partitions import DAYS, ROW_COUNT, RUNS, Result, for_each_day, markdown
from btc_assets.pictures import day_of_bars
from btc_assets.resources import Database, Environment, Lake
from btc_core.clock import SYSTEM_CLOCK
from btc_core.features.catalogue import FEATURE_VERSION
from btc_core.tables.catalogue import BRONZE_BARS, GOLD_1MIN_SEALED, GOLD_5MIN_SEALED, SILVER_FEATURES, STORED, TABLES
from btc_core.tables.form import Table

SEAL_TAG = "btc/seal"
PROOF_RETRY = dg.RetryPolicy(max_retries=2, delay=10)
"""For a server that is away for a moment; a proof that fails is no error and is not tried again."""
DAILY = dg.FreshnessPolicy.time_window(warn_window=timedelta(hours=26), fail_window=timedelta(hours=50))
"""A day is sealed minutes after midnight; hours later when a gap is waited for."""


def _seconds(started_s: float) -> float:
    return round(SYSTEM_CLOCK.monotonic_s() - started_s, 2)


def _version(context: dg.AssetExecutionContext, done: list[Mapping[str, Any]]) -> dg.DataVersion | None:
    """The seal, where the run is about one day."""
    return dg.DataVersion(str(done[0]["seal"])) if len(done) == 1 and context.has_partition_key else None


@dg.asset(
    deps=["market_events_topic", "bronze_ticks", "bronze_trades", "bronze_history", "gap_marks"],
    partitions_def=DAYS,
    backfill_policy=RUNS,
    check_specs=[
        dg.AssetCheckSpec(
            "bronze_equals_log", asset="sealed_bronze", description="Every tick and trade of the log is in bronze."
        )
    ],
    kinds={"questdb", "bronze"},
    group_name="sealed",
    owners=OWNERS,
    freshness_policy=DAILY,
    code_version="1",
    retry_policy=PROOF_RETRY,
)
def sealed_bronze(context: dg.AssetExecutionContext, environment: Environment, database: Database) -> Result:
    """Ticks and trades of a day, compared with the log; what is missing or different is written again."""
    from btc_core.days.bronze_proof import prove_bronze  # noqa: PLC0415 - numba is slow to import
    from btc_core.days.seals import seal_of  # noqa: PLC0415

    def work(day: str) -> dict[str, Any]:
        started_s = SYSTEM_CLOCK.monotonic_s()
        with database.connect() as db:
            proof = prove_bronze(db, environment.get().kafka, day)
            seal = seal_of(db, day)
        return {
            "seal": seal.id,
            ROW_COUNT: sum(seal.rows.values()),
            **{f"{name}_rows": rows for name, rows in seal.rows.items()},
            "log_has_day": proof.log_has_day,
            "rows_missing": proof.rows_missing,
            "rows_different": proof.rows_different,
            "open_gaps": seal.open_gaps,
            "last_offset": seal.last_offset,
            "took_s": _seconds(started_s),
        }

    done = for_each_day(context, "sealed_bronze", work)
    wrong = sum(facts["rows_missing"] + facts["rows_different"] for facts in done)
    check = dg.AssetCheckResult(
        check_name="bronze_equals_log",
        passed=wrong == 0,
        metadata={
            "rows_missing": sum(facts["rows_missing"] for facts in done),
            "rows_different": sum(facts["rows_different"] for facts in done),
            "days_the_log_has_forgotten": sum(not facts["log_has_day"] for facts in done),
        },
    )
    return dg.MaterializeResult(check_results=[check], data_version=_version(context, done))


@dg.asset(
    deps=sorted({"sealed_bronze", "silver_features", *upstream_tables(SILVER_FEATURES)}),
    partitions_def=DAYS,
    backfill_policy=RUNS,
    check_specs=[
        dg.AssetCheckSpec(
            "stream_equals_replay",
            asset="sealed_silver",
            description="Every row the stream wrote is, to the last bit, what replaying the day's bronze gives.",
            blocking=True,
        )
    ],
    kinds={"questdb", "silver"},
    group_name="sealed",
    owners=OWNERS,
    freshness_policy=DAILY,
    code_version=FEATURE_VERSION,
    metadata=table_metadata(SILVER_FEATURES),
    retry_policy=PROOF_RETRY,
)
def sealed_silver(context: dg.AssetExecutionContext, database: Database) -> Result:
    """Feature rows of a day, replayed from bronze and compared; late trades join at their place."""
    from btc_core.days.day_replay import symbols_on  # noqa: PLC0415 - numba is slow to import
    from btc_core.days.seals import seal_of  # noqa: PLC0415
    from btc_core.days.silver_proof import prove  # noqa: PLC0415

    examples: list[dict[str, Any]] = []
    failed: list[str] = []

    def work(day: str) -> dict[str, Any]:
        started_s = SYSTEM_CLOCK.monotonic_s()
        with database.connect() as db:
            proofs = [prove(db, symbol, day) for symbol in symbols_on(db, day)]
            seal = seal_of(db, day)
        examples.extend(example for proof in proofs for example in proof.examples)
        if not all(proof.stream_equals_replay for proof in proofs):
            failed.append(day)
        largest: dict[str, float] = {}
        for proof in proofs:
            for name, value in proof.max_abs_diff.items():
                largest[name] = max(value, largest.get(name, 0.0))
        counts = ("rows_missing", "rows_different", "rows_unexplained", "rows_extra", "late_trades")
        return {
            "seal": seal.id,
            ROW_COUNT: sum(proof.rows for proof in proofs),
            **{name: sum(getattr(proof, name) for proof in proofs) for name in counts},
            "max_abs_diff": markdown([{"column": name, "max_abs_diff": value} for name, value in largest.items()]),
            "took_s": _seconds(started_s),
        }

    done = for_each_day(context, "sealed_silver", work)
    check = dg.AssetCheckResult(
        check_name="stream_equals_replay",
        passed=not failed,
        metadata={
            "days_failed": ", ".join(failed) or "none",
            "rows_unexplained": sum(facts["rows_unexplained"] for facts in done),
            "rows_extra": sum(facts["rows_extra"] for facts in done),
            "examples": markdown(examples),
        },
    )
    return dg.MaterializeResult(check_results=[check], data_version=_version(context, done))


def _gold(table: Table) -> dg.AssetsDefinition:
    view = table.name.removesuffix("_sealed")
    source = "sealed_silver" if table is GOLD_1MIN_SEALED else GOLD_1MIN_SEALED.name
    checks = [
        dg.AssetCheckSpec(
            "view_equals_sealed", asset=table.name, description=f"The view {view} holds the same bars of the day."
        )
    ]

    @dg.asset(
        name=table.name,
        deps=sorted({source, view, *upstream_tables(table)}),
        partitions_def=DAYS,
        backfill_policy=RUNS,
        check_specs=checks,
        kinds={"questdb", "gold"},
        group_name="sealed",
        owners=OWNERS,
        freshness_policy=DAILY,
        code_version=code_version(TABLES[view].view, FEATURE_VERSION),
        description=table.meaning,
        metadata=table_metadata(table),
        retry_policy=PROOF_RETRY,
    )
    def gold(context: dg.AssetExecutionContext, database: Database) -> Result:
        from btc_core.days.gold import make_gold  # noqa: PLC0415
        from btc_core.days.rows import read_day  # noqa: PLC0415 - pyarrow is slow to import
        from btc_core.days.seals import seal_of  # noqa: PLC0415 - pyarrow is slow to import

        def work(day: str) -> dict[str, Any]:
            with database.connect() as db:
                proof = make_gold(db, table, day)
                seal = seal_of(db, day)
                picture = day_of_bars(read_day(db, table, day))
            largest = [{"column": name, "max_abs_diff": value} for name, value in proof.max_abs_diff.items()]
            return {
                "seal": seal.id,
                ROW_COUNT: proof.rows,
                "rows_missing": proof.rows_missing,
                "rows_different": proof.rows_different,
                "max_abs_diff": markdown(largest),
                "bars": picture,
            }

        done = for_each_day(context, table.name, work)
        wrong = sum(facts["rows_missing"] + facts["rows_different"] for facts in done)
        check = dg.AssetCheckResult(
            check_name="view_equals_sealed",
            passed=wrong == 0,
            severity=dg.AssetCheckSeverity.WARN,  # the view forgets, and is refreshed behind a repair
            metadata={"rows_missing_or_different": wrong},
        )
        return dg.MaterializeResult(check_results=[check], data_version=_version(context, done))

    return gold


sealed_specs: list[dg.AssetSpec] = [
    dg.AssetSpec(
        BRONZE_BARS.name,
        deps=["sealed_bronze", *upstream_tables(BRONZE_BARS)],
        kinds={"questdb", "bronze"},
        group_name="sealed",
        description=BRONZE_BARS.meaning,
        owners=OWNERS,
        metadata=table_metadata(BRONZE_BARS),
    )
]
gold_1min_sealed = _gold(GOLD_1MIN_SEALED)
gold_5min_sealed = _gold(GOLD_5MIN_SEALED)


@dg.asset(
    deps=["gold_1min_sealed"],
    partitions_def=DAYS,
    backfill_policy=RUNS,
    kinds={"questdb", "bronze"},
    group_name="sealed",
    owners=OWNERS,
    freshness_policy=DAILY,
    code_version="1",
    retry_policy=PROOF_RETRY,
)
def sealed_bars(context: dg.AssetExecutionContext, database: Database) -> Result:
    """Minute bars of a proven day's own trades, put into `minute_bars` where it has none: models train on them."""
    from btc_core.days.gold import fill_minute_bars  # noqa: PLC0415 - pyarrow is slow to import
    from btc_core.days.seals import seal_of  # noqa: PLC0415

    def work(day: str) -> dict[str, Any]:
        with database.connect() as db:
            bars, written = fill_minute_bars(db, day)
            return {"seal": seal_of(db, day).id, ROW_COUNT: bars, "rows_written": written}

    done = for_each_day(context, "sealed_bars", work)
    return dg.MaterializeResult(data_version=_version(context, done))


@dg.asset(
    deps=["sealed_bronze", "sealed_silver", "gold_1min_sealed", "gold_5min_sealed", "sealed_bars"],
    partitions_def=DAYS,
    backfill_policy=RUNS,
    kinds={"s3", "parquet"},
    group_name="backups",
    owners=OWNERS,
    freshness_policy=DAILY,
    retry_policy=PROOF_RETRY,
)
def day_backup(context: dg.AssetExecutionContext, database: Database, lake: Lake) -> Result:
    """A copy of the day of every table on the object store, read back after writing, with a manifest."""
    from btc_core.days import lake as copies  # noqa: PLC0415 - pyarrow is slow to import
    from btc_core.days.seals import seal_of  # noqa: PLC0415

    def work(day: str) -> dict[str, Any]:
        started_s = SYSTEM_CLOCK.monotonic_s()
        with database.connect() as db, lake.connect() as store:
            seal = seal_of(db, day)
            made = [copies.back_up(db, store, table, day, seal.id) for table in STORED]
        kept = [manifest for manifest in made if manifest is not None]
        rows = [
            {"table": m.table, "rows": m.rows, "MB": round(m.size_bytes / 1e6, 3), "object": store.uri(m.key)}
            for m in kept
        ]
        return {
            "seal": seal.id,
            ROW_COUNT: sum(manifest.rows for manifest in kept),
            "size_mb": round(sum(manifest.size_bytes for manifest in kept) / 1e6, 3),
            "copies": dg.MetadataValue.md("\n".join(_lines(rows))),
            "took_s": _seconds(started_s),
        }

    done = for_each_day(context, "day_backup", work)
    return dg.MaterializeResult(data_version=_version(context, done))


def _lines(rows: list[dict[str, Any]]) -> list[str]:
    head = ["| table | rows | MB | object |", "|---|---|---|---|"]
    return head + [f"| {' | '.join(str(value) for value in row.values())} |" for row in rows]


sealed_assets = (sealed_bronze, sealed_silver, gold_1min_sealed, gold_5min_sealed, sealed_bars, day_backup)
"""In the order in which a day passes through them."""
