"""Sealed days: bronze compared with the log, silver with its replay, gold computed for good, then a copy of every table.

Materializing a day proves and repairs it: what differs is written again and counted. A second time, it changes
nothing. Replaced rows are kept on the object store. If a day would change too much, the check `changes_are_plausible`
fails and the rows stay as they are. What does not belong here: when a day is complete (`sealing`).
"""

# no `from __future__ import annotations`: Dagster wants the type of `context`, not its name
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg

from btc_assets.archives import day_archive
from btc_assets.asset_metadata import OWNERS, code_version, table_metadata, upstream_tables
from btc_assets.forecast_roots import sealed_forecasts
from btc_assets.partitions import DAYS, ONE_RUN, ROW_COUNT, Result, for_each_day, markdown
from btc_assets.pictures import day_of_bars
from btc_assets.resources import Database, Environment, Lake
from btc_core.clock import SYSTEM_CLOCK
from btc_core.days import lake as copies
from btc_core.days.gold import fill_minute_bars, make_gold
from btc_core.days.history import History
from btc_core.days.replaced import keeper
from btc_core.days.seals import seal_of
from btc_core.days.stored_days import read_day
from btc_core.features.catalogue import FEATURE_VERSION
from btc_core.names import INSIST_TAG
from btc_core.tables.bar_tables import GOLD_1MIN_SEALED, GOLD_5MIN_SEALED
from btc_core.tables.catalogue import BRONZE_BARS, SILVER_FEATURES, STORED, TABLES
from btc_core.tables.form import Table

SEAL_TAG = "btc/seal"
PLAUSIBLE_CHECK = "changes_are_plausible"
SERVER_RETRY = dg.RetryPolicy(max_retries=2, delay=10)
"""For a server that does not answer for a moment. A proof that fails is no error, so it is not tried again."""
DAILY = dg.FreshnessPolicy.time_window(warn_window=timedelta(hours=26), fail_window=timedelta(hours=50))
"""A day is sealed minutes after midnight, or hours later if a gap in its trades may still be repaired."""


def _seconds_since(started_s: float) -> float:
    return round(SYSTEM_CLOCK.monotonic_s() - started_s, 2)


def _data_version(context: dg.AssetExecutionContext, results: Sequence[Mapping[str, Any]]) -> dg.DataVersion | None:
    """The seal, if the run is about one day."""
    return dg.DataVersion(str(results[0]["seal"])) if len(results) == 1 and context.has_partition_key else None


def _insists(context: dg.AssetExecutionContext) -> bool:
    """Whether the person who started the run wants implausible changes to be written."""
    return INSIST_TAG in context.run.tags


def _plausible_spec(asset: str) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        PLAUSIBLE_CHECK,
        asset=asset,
        description="The proof replaces no more stored rows of a day than plausible; otherwise it has left them as they are. "
        "`btc backfill --insist` writes the changes nevertheless.",
        blocking=True,
    )


def _plausible_result(results: Sequence[Mapping[str, Any]]) -> dg.AssetCheckResult:
    refusals = [result["refusal"] for result in results if result["refusal"]]
    advice = "None of these changes was made. If they are right, run `btc backfill` for the day with `--insist`."
    return dg.AssetCheckResult(
        check_name=PLAUSIBLE_CHECK,
        passed=not refusals,
        description="; ".join((*refusals, advice)) if refusals else None,
        metadata={"days_refused": len(refusals)},
    )


def _total(results: Iterable[Mapping[str, Any]], *names: str) -> int:
    return sum(result[name] for result in results for name in names)


def _differences(largest: Mapping[str, float]) -> dg.MarkdownMetadataValue:
    return markdown([{"column": name, "max_abs_diff": value} for name, value in largest.items()])


@dg.asset(
    deps=["market_events_topic", "bronze_ticks", "bronze_trades", "bronze_history", "gap_marks"],
    partitions_def=DAYS,
    backfill_policy=ONE_RUN,
    check_specs=[
        dg.AssetCheckSpec(
            "bronze_equals_log",
            asset="sealed_bronze",
            description="Every tick and trade of the day in the log was in bronze before this run.",
        ),
        _plausible_spec("sealed_bronze"),
    ],
    kinds={"questdb", "bronze"},
    group_name="sealed",
    owners=OWNERS,
    freshness_policy=DAILY,
    code_version="1",
    retry_policy=SERVER_RETRY,
)
def sealed_bronze(
    context: dg.AssetExecutionContext, environment: Environment, database: Database, lake: Lake
) -> Result:
    """Ticks and trades of a day, compared with the log. Missing and different rows are written again."""
    from btc_core.days.bronze_proof import prove_bronze  # noqa: PLC0415 - imports numba

    def prove_day(day: str) -> dict[str, Any]:
        started_s = SYSTEM_CLOCK.monotonic_s()
        with database.connect() as db, lake.connect() as store:
            keep = keeper(store, day, seal_of(db, day).id)
            environment.check_log()
            proof = prove_bronze(db, environment.get().kafka, day, keep, insist=_insists(context), store=store)
            seal = seal_of(db, day)
        return {
            "seal": seal.id,
            ROW_COUNT: sum(seal.rows.values()),
            **{f"{name}_rows": rows for name, rows in seal.rows.items()},
            "log_has_day": proof.log_has_day,
            "nothing_compared": proof.nothing_compared,
            "rows_missing": proof.rows_missing,
            "rows_different": proof.rows_different,
            "open_gaps": seal.open_gaps,
            "last_offset": seal.last_offset,
            "refusal": proof.refusal,
            "took_s": _seconds_since(started_s),
        }

    results = for_each_day(context, "sealed_bronze", prove_day)
    check = dg.AssetCheckResult(
        check_name="bronze_equals_log",
        passed=_total(results, "rows_missing", "rows_different") == 0,
        metadata={
            "rows_missing": _total(results, "rows_missing"),
            "rows_different": _total(results, "rows_different"),
            "days_not_compared": sum(not result["log_has_day"] for result in results),
        },
        description="; ".join(result["nothing_compared"] for result in results if result["nothing_compared"]) or None,
    )
    checks = [check, _plausible_result(results)]
    return dg.MaterializeResult(check_results=checks, data_version=_data_version(context, results))


@dg.asset(
    deps=sorted({"sealed_bronze", "silver_features", *upstream_tables(SILVER_FEATURES)}),
    partitions_def=DAYS,
    backfill_policy=ONE_RUN,
    check_specs=[
        dg.AssetCheckSpec(
            "stream_equals_replay",
            asset="sealed_silver",
            description="Every row, and every value of the user's own features, that the stream wrote equals, to the last bit, what "
            "a replay of the day's bronze gives. "
            "It says so if nothing was streamed on the day.",
            blocking=True,
        ),
        _plausible_spec("sealed_silver"),
    ],
    kinds={"questdb", "silver"},
    group_name="sealed",
    owners=OWNERS,
    freshness_policy=DAILY,
    code_version=FEATURE_VERSION,
    metadata=table_metadata(SILVER_FEATURES),
    retry_policy=SERVER_RETRY,
)
def sealed_silver(
    context: dg.AssetExecutionContext, environment: Environment, database: Database, lake: Lake
) -> Result:
    """Feature rows of a day, compared with a replay of its bronze, in which late trades are in their place."""
    from btc_core.days.day_books import NO_BOOKS, books_around  # noqa: PLC0415 - imports numba
    from btc_core.days.day_replay import symbols_on  # noqa: PLC0415 - imports numba
    from btc_core.days.forecast_roots import close_before_repair  # noqa: PLC0415 - imports numba
    from btc_core.days.silver_proof import prove  # noqa: PLC0415 - imports numba
    from btc_core.days.user_features import prove_user_features  # noqa: PLC0415 - imports numba
    from btc_core.features.user.values import UserFeatures  # noqa: PLC0415 - imports numba

    features = UserFeatures.in_folder(environment.get().user_features)
    examples: list[dict[str, Any]] = []
    failed_days: list[str] = []
    empty_days: list[str] = []
    days_without_books: list[str] = []
    days_without_leader: list[str] = []

    with database.connect() as db, lake.connect() as store:
        close_before_repair(History(db, lambda: store), environment.get(), store, context.partition_keys)

    def prove_day(day: str) -> dict[str, Any]:
        started_s = SYSTEM_CLOCK.monotonic_s()
        with database.connect() as db, lake.connect() as store:
            seal = seal_of(db, day)
            keep = keeper(store, day, seal.id)
            environment.check_log()
            books = books_around(db, environment.get().kafka, store, day)
            symbols = symbols_on(db, day)
            proofs = [
                prove(
                    *(db, symbol, day, keep),
                    insist=_insists(context),
                    books=None if books is None else books.get(symbol, NO_BOOKS),
                    leader=environment.get().leader,
                )
                for symbol in symbols
            ]
            own = [
                prove_user_features(db, symbol, day, features, keep, insist=_insists(context))
                for symbol, proof in zip(symbols, proofs, strict=True)
                if features and not proof.refusal
            ]
        examples.extend(example for proof in proofs for example in proof.examples)
        if not all(proof.stream_equals_replay for proof in proofs) or any(each.unexplained for each in own):
            failed_days.append(day)
        if not any(proof.rows_streamed for proof in proofs):
            empty_days.append(day)
        if not all(proof.books_proven for proof in proofs):
            days_without_books.append(day)
        if not all(proof.leader_proven for proof in proofs):
            days_without_leader.append(day)
        largest: dict[str, float] = {}
        for proof in proofs:
            for name, value in proof.max_abs_diff.items():
                largest[name] = max(value, largest.get(name, 0.0))
        refusals = [*(proof.refusal for proof in proofs), *(each.refusal for each in own)]
        counts = ("rows_streamed", "rows_missing", "rows_different", "rows_unexplained", "rows_extra", "late_trades")
        return {
            "seal": seal.id,
            ROW_COUNT: sum(proof.rows for proof in proofs),
            **{name: sum(getattr(proof, name) for proof in proofs) for name in counts},
            "user_values": sum(each.values for each in own),
            "user_values_written": sum(each.missing + each.different for each in own if not each.refusal),
            "user_values_unexplained": sum(each.unexplained for each in own),
            "max_abs_diff": _differences(largest),
            "refusal": "; ".join(filter(None, refusals)),
            "took_s": _seconds_since(started_s),
        }

    results = for_each_day(context, "sealed_silver", prove_day)
    check = dg.AssetCheckResult(
        check_name="stream_equals_replay",
        passed=not failed_days,
        description=f"nothing was streamed on {', '.join(empty_days)}, so there was nothing to compare"
        if empty_days
        else None,
        metadata={
            "days_failed": ", ".join(failed_days) or "none",
            "days_with_nothing_to_compare": len(empty_days),
            "rows_compared": _total(results, "rows_streamed"),
            "rows_unexplained": _total(results, "rows_unexplained"),
            "rows_extra": _total(results, "rows_extra"),
            "user_values_unexplained": _total(results, "user_values_unexplained"),
            "days_without_order_books": ", ".join(days_without_books) or "none",
            "days_without_leader": ", ".join(days_without_leader) or "none",
            "examples": markdown(examples),
        },
    )
    checks = [check, _plausible_result(results)]
    return dg.MaterializeResult(check_results=checks, data_version=_data_version(context, results))


def _gold_asset(table: Table) -> dg.AssetsDefinition:
    view = table.name.removesuffix("_sealed")
    source = "sealed_silver" if table is GOLD_1MIN_SEALED else GOLD_1MIN_SEALED.name
    check_spec = dg.AssetCheckSpec(
        "view_equals_sealed", asset=table.name, description=f"The view {view} has the same bars for the day."
    )

    @dg.asset(
        name=table.name,
        deps=sorted({source, view, *upstream_tables(table)}),
        partitions_def=DAYS,
        backfill_policy=ONE_RUN,
        check_specs=[check_spec],
        kinds={"questdb", "gold"},
        group_name="sealed",
        owners=OWNERS,
        freshness_policy=DAILY,
        code_version=code_version(TABLES[view].view, FEATURE_VERSION),
        description=table.meaning,
        metadata=table_metadata(table),
        retry_policy=SERVER_RETRY,
    )
    def gold(context: dg.AssetExecutionContext, database: Database) -> Result:
        def compute_day(day: str) -> dict[str, Any]:
            with database.connect() as db:
                proof = make_gold(db, table, day)
                seal = seal_of(db, day)
                picture = day_of_bars(read_day(db, table, day))
            return {
                "seal": seal.id,
                ROW_COUNT: proof.rows,
                "rows_missing": proof.rows_missing,
                "rows_different": proof.rows_different,
                "max_abs_diff": _differences(proof.max_abs_diff),
                "bars": picture,
            }

        results = for_each_day(context, table.name, compute_day)
        wrong_rows = _total(results, "rows_missing", "rows_different")
        check = dg.AssetCheckResult(
            check_name="view_equals_sealed",
            passed=wrong_rows == 0,
            severity=dg.AssetCheckSeverity.WARN,  # the view keeps fewer days, and shows a repair only after its refresh
            metadata={"rows_missing_or_different": wrong_rows},
        )
        return dg.MaterializeResult(check_results=[check], data_version=_data_version(context, results))

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
gold_1min_sealed = _gold_asset(GOLD_1MIN_SEALED)
gold_5min_sealed = _gold_asset(GOLD_5MIN_SEALED)


@dg.asset(
    deps=["gold_1min_sealed"],
    partitions_def=DAYS,
    backfill_policy=ONE_RUN,
    kinds={"questdb", "bronze"},
    group_name="sealed",
    owners=OWNERS,
    freshness_policy=DAILY,
    code_version="1",
    retry_policy=SERVER_RETRY,
)
def sealed_bars(context: dg.AssetExecutionContext, database: Database) -> Result:
    """Minute bars from the trades of a proven day, added to `minute_bars` where it has none. Models are trained on them."""

    def fill_day(day: str) -> dict[str, Any]:
        with database.connect() as db:
            bars, written = fill_minute_bars(db, day)
            return {"seal": seal_of(db, day).id, ROW_COUNT: bars, "rows_written": written}

    results = for_each_day(context, "sealed_bars", fill_day)
    return dg.MaterializeResult(data_version=_data_version(context, results))


@dg.asset(
    deps=["sealed_forecasts", "sealed_bronze", "sealed_silver", "gold_1min_sealed", "gold_5min_sealed", "sealed_bars"],
    partitions_def=DAYS,
    backfill_policy=ONE_RUN,
    kinds={"s3", "parquet"},
    group_name="backups",
    owners=OWNERS,
    freshness_policy=DAILY,
    retry_policy=SERVER_RETRY,
)
def day_backup(context: dg.AssetExecutionContext, database: Database, lake: Lake) -> Result:
    """A copy of the day's rows of every table on the object store, with a manifest, read back after writing."""

    def copy_day(day: str) -> dict[str, Any]:
        started_s = SYSTEM_CLOCK.monotonic_s()
        with database.connect() as db, lake.connect() as store:
            seal = seal_of(db, day)
            manifests = [
                manifest for table in STORED if (manifest := copies.back_up(db, store, table, day, seal.id)) is not None
            ]
        rows = [
            {"table": m.table, "rows": m.rows, "MB": round(m.size_bytes / 1e6, 3), "object": store.uri(m.key)}
            for m in manifests
        ]
        return {
            "seal": seal.id,
            ROW_COUNT: sum(manifest.rows for manifest in manifests),
            "size_mb": round(sum(manifest.size_bytes for manifest in manifests) / 1e6, 3),
            "copies": markdown(rows, limit=len(STORED)),
            "took_s": _seconds_since(started_s),
        }

    results = for_each_day(context, "day_backup", copy_day)
    return dg.MaterializeResult(data_version=_data_version(context, results))


sealed_assets = (
    sealed_bronze,
    sealed_silver,
    sealed_forecasts,
    gold_1min_sealed,
    gold_5min_sealed,
    sealed_bars,
    day_backup,
    day_archive,
)
"""In the order in which a day passes through them."""
