"""The asset `bronze_history`: trades of days on which this system did not run, from the exchange's REST API into bronze.

What does not belong here: minute bars (`training_bars`), and trades from a file (`btc import-trades`).
"""

# no `from __future__ import annotations`: Dagster wants the type of `context`, not its name
from typing import Any

import dagster as dg

from btc_assets.asset_metadata import EXCHANGE_FEED, OWNERS
from btc_assets.partitions import DAYS, ONE_RUN, ROW_COUNT, for_each_day
from btc_assets.resources import Database, Environment
from btc_core.clock import NS_PER_DAY, SYSTEM_CLOCK
from btc_core.days.trade_import import fetch_day
from btc_core.errors import NotOffered
from btc_core.utc_day import day_ns

LOG_EVERY_S = 10.0


@dg.asset(
    deps=[EXCHANGE_FEED],
    partitions_def=DAYS,
    backfill_policy=ONE_RUN,
    kinds={"questdb", "bronze"},
    group_name="sealed",
    owners=OWNERS,
    retry_policy=dg.RetryPolicy(max_retries=2, delay=30),
    description="Trades of days on which this system did not run, from REST at a thousand trades a second. Trades that are "
    "stored stay as they are, and an interrupted run continues where it was.",
)
def bronze_history(
    context: dg.AssetExecutionContext, environment: Environment, database: Database
) -> dg.MaterializeResult[None]:
    """Fetch the trades of each day that bronze does not have.

    Markets whose exchange finds no trades by time are left out, with its words in the metadata. Raises its error if that
    holds for all markets.
    """
    exchange = environment.get().exchange

    def fetch(day: str) -> dict[str, Any]:
        logged_s = SYSTEM_CLOCK.monotonic_s()

        def report(reached_ns: int, written: int) -> None:
            nonlocal logged_s
            if SYSTEM_CLOCK.monotonic_s() - logged_s > LOG_EVERY_S:
                logged_s = SYSTEM_CLOCK.monotonic_s()
                share = (reached_ns - day_ns(day)) / NS_PER_DAY
                context.log.info("%s: %.0f %% fetched, %d trades written", day, 100 * share, written)

        rows = 0
        refused: dict[str, str] = {}
        with database.connect() as db:
            for symbol in exchange.symbols:
                try:
                    rows += fetch_day(db, exchange, symbol, day, report)
                except NotOffered as error:
                    if len(refused) == len(exchange.symbols) - 1:
                        raise
                    refused[symbol] = str(error)
                    context.log.warning("%s", error)
        return {"rows_written": rows, ROW_COUNT: rows} | refused

    for_each_day(context, "bronze_history", fetch)
    return dg.MaterializeResult()
