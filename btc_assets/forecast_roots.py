"""The Merkle roots over forecasts: made when an hour or a day is closed, and compared with the forecasts of a sealed day.

What does not belong here: what a root is made of (`btc_core.days.forecast_roots`).
"""

# no `from __future__ import annotations`: Dagster wants the type of `context`, not its name
from typing import Any

import dagster as dg

from btc_assets.asset_metadata import OWNERS, table_metadata, upstream_tables
from btc_assets.partitions import DAYS, ONE_RUN, ROW_COUNT, Result, for_each_day, markdown
from btc_assets.resources import Database, Environment, Lake
from btc_assets.timetable import scheduled
from btc_core.clock import now_ns
from btc_core.days.history import History
from btc_core.days.seals import seal_of
from btc_core.tables.catalogue import BID_PREDICTION, VOLATILITY_PREDICTION
from btc_core.tables.proof_tables import FORECAST_ROOTS

ROOTS_CHECK, LATE_CHECK = "forecasts_equal_roots", "forecasts_are_in_time"
SERVER_RETRY = dg.RetryPolicy(max_retries=2, delay=10)
"""For a server that does not answer for a moment."""


@dg.asset(
    name=FORECAST_ROOTS.name,
    deps=sorted({*upstream_tables(FORECAST_ROOTS), "gold_forecast_states", "silver_features"}),
    check_specs=[
        dg.AssetCheckSpec(
            LATE_CHECK,
            asset=FORECAST_ROOTS.name,
            description="No forecast was stored after the root of its hour had been made.",
        )
    ],
    kinds={"questdb", "gold"},
    group_name="forecasts",
    owners=OWNERS,
    description=FORECAST_ROOTS.meaning,
    metadata=table_metadata(FORECAST_ROOTS),
    retry_policy=SERVER_RETRY,
)
def forecast_roots(environment: Environment, database: Database, lake: Lake) -> Result:
    """Close every hour and day that is over, for each market that is followed."""
    from btc_core.days.forecast_roots import HOUR, Closer  # noqa: PLC0415 - imports numba

    chosen = environment.get()
    with database.connect() as db, lake.connect() as store:
        history = History(db, lambda: store)
        closer = Closer(history, chosen, store)
        closed = [period for symbol in chosen.exchange.symbols for period in closer.close(symbol, now_ns())]
    late = sum(period.hour_header.late_forecasts for period in closed if period.period == HOUR)
    rows = [
        {"market": each.symbol, each.period: each.name, "leaves": each.leaves, "root": each.root[:16]}
        for each in closed
    ]
    check = dg.AssetCheckResult(
        check_name=LATE_CHECK, passed=late == 0, severity=dg.AssetCheckSeverity.WARN, metadata={"late_forecasts": late}
    )
    return dg.MaterializeResult(
        metadata={"closed": len(closed), "late_forecasts": late, "roots": markdown(rows)}, check_results=[check]
    )


close_hours = dg.define_asset_job(
    "close_hours",
    selection=dg.AssetSelection.assets(forecast_roots),
    description="Make the Merkle roots of the hours and days that are over.",
    tags={"btc/kind": "sealing"},  # one at a time with the sealing, which closes the last hours of its day, too
)
close_schedule = scheduled("close_every_hour", close_hours, "5 * * * *")


@dg.asset(
    deps=[FORECAST_ROOTS.name, BID_PREDICTION.name, VOLATILITY_PREDICTION.name, "sealed_silver"],
    partitions_def=DAYS,
    backfill_policy=ONE_RUN,
    check_specs=[
        dg.AssetCheckSpec(
            ROOTS_CHECK,
            asset="sealed_forecasts",
            description="The stored forecasts of the day are those in the roots of its hours, and the roots form a chain.",
        )
    ],
    kinds={"questdb", "gold"},
    group_name="forecasts",
    owners=OWNERS,
    retry_policy=SERVER_RETRY,
)
def sealed_forecasts(
    context: dg.AssetExecutionContext, environment: Environment, database: Database, lake: Lake
) -> Result:
    """The roots of a day, compared with its forecasts before these are copied. `sealed_silver` has closed the hours."""
    from btc_core.days.forecast_days import check_day  # noqa: PLC0415 - imports numba

    chosen = environment.get()
    problems: list[str] = []

    def compare(day: str) -> dict[str, Any]:
        with database.connect() as db, lake.connect() as store:
            history = History(db, lambda: store)
            found = {symbol: check_day(history, store, symbol, day) for symbol in chosen.exchange.symbols}
            seal = seal_of(db, day).id
        problems.extend(f"{symbol}: {problem}" for symbol, check in found.items() for problem in check.problems)
        names = ("hours", "forecasts", "stored", "changed", "late")
        return {
            "seal": seal,
            ROW_COUNT: sum(check.forecasts for check in found.values()),
            **{name: sum(getattr(check, name) for check in found.values()) for name in names},
            "roots": markdown([{"market": symbol, "root": check.root} for symbol, check in found.items()]),
        }

    results = for_each_day(context, "sealed_forecasts", compare)
    check = dg.AssetCheckResult(
        check_name=ROOTS_CHECK,
        passed=not problems,
        description="; ".join(problems) or None,
        metadata={"forecasts": sum(result["forecasts"] for result in results)},
    )
    version = dg.DataVersion(str(results[0]["seal"])) if len(results) == 1 and context.has_partition_key else None
    return dg.MaterializeResult(check_results=[check], data_version=version)
