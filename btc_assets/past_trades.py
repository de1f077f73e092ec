"""The asset `bronze_history`: days of trades that never streamed, fetched from the exchange's REST into bronze.

What does not belong here: minute bars (`history`), and trades of a file (`btc import-trades`).
"""

# no `from __future__ import annotations`: Dagster wants the type of `context`, not its name
from typing import Any

import dagster as dg

from btc_assets.asset_metadata import EXCHANGE_FEED, OWNERS
from btc_assets.partitions import DAYS, ONE_RUN, ROW_COUNT, for_each_day
from btc_assets.resources import Database, Environment
from btc_core.clock import NS_PER_DAY, SYSTEM_CLOCK
from btc_core.days.rows import day_ns

LOG_EVERY_S = 10.0


@dg.asset(
    deps=[EXCHANGE_FEED],
    partitions_def=DAYS,
    backfill_policy=ONE_RUN,
    kinds={"questdb", "bronze"},
    group_name="sealed",
    owners=OWNERS,
    retry_policy=dg.RetryPolicy(max_retries=2, delay=30),
    description="Trades of days that never streamed, from REST at its pace of a thousand a second; "
    "trades that are there stay. An interrupted run goes on where it was.",
)
def bronze_history(
    context: dg.AssetExecutionContext, environment: Environment, database: Database
) -> dg.MaterializeResult[None]:
    """Fetch what bronze does not have of each day."""
    from btc_core.days.trade_import import fetch_day  # noqa: PLC0415 - pyarrow is slow to import

    exchange = environment.get().exchange

    def work(day: str) -> dict[str, Any]:
        told_s = SYSTEM_CLOCK.monotonic_s()

        def report(reached_ns: int, written: int) -> None:
            nonlocal told_s
            if SYSTEM_CLOCK.monotonic_s() - told_s > LOG_EVERY_S:
                told_s = SYSTEM_CLOCK.monotonic_s()
                share = (reached_ns - day_ns(day)) / NS_PER_DAY
                context.log.info("%s: %.0f %% fetched, %d trades written", day, 100 * share, written)

        with database.connect() as db:
            rows = [fetch_day(db, exchange, symbol, day, report) for symbol in exchange.symbols]
        return {"rows_written": sum(rows), ROW_COUNT: sum(rows)}

    for_each_day(context, "bronze_history", work)
    return dg.MaterializeResult()
