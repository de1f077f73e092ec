"""The asset `minute_bars`: history of one-minute bars, fetched from the exchange into QuestDB.

Running it again writes the same rows onto themselves. Rows imported from a file are never overwritten from
here; the newest ones are by the bars that ingest fetches at its start, which bronze writes whatever the source.
What does not belong here: bars of the live stream (the view `gold_1min`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np

from btc_assets.asset_metadata import EVENTS_TOPIC, EXCHANGE_FEED, OWNERS, table_metadata
from btc_assets.resources import Database, Environment  # noqa: TC001 - Dagster reads the annotations
from btc_core.clock import NS_PER_DAY, NS_PER_MIN, NS_PER_S, SYSTEM_CLOCK, column_ns, from_ns, now_ns
from btc_core.days.rows import wait_until_applied
from btc_core.errors import NotOffered
from btc_core.exchanges import history
from btc_core.exchanges.interface import exchange_of
from btc_core.market.bars import to_table
from btc_core.tables.catalogue import TABLES
from btc_core.tables.form import of_symbol

if TYPE_CHECKING:
    from btc_core.stores.questdb import QuestDB

TABLE = "minute_bars"
WRITE_ROWS = 50_000
"""Rows a write: about 6 MB on the wire, a fraction of a second."""
PIECE_NS = NS_PER_DAY // 4
"""Of trades at a time: some 15 pages of a thousand, a quarter of a minute."""
OLDER_BARS_BUDGET_S = 900.0
"""A run's time: about two weeks of trades at one page a second; the next run goes on."""
OHLC_ROWS = 720
"""Most that the exchange gives of one interval: 12 hours of minutes. Hence a refresh every 6 hours."""


def store(db: QuestDB, symbol: str, bars: np.ndarray, source: str) -> int:
    """Upsert `bars`, except where a file's row stands, and wait until they can be read; returns rows written."""
    if not len(bars):
        return 0
    imported = db.query(f"SELECT ts FROM {TABLE} WHERE {of_symbol(symbol)} AND source = 'file'")  # noqa: S608
    kept = column_ns(imported["ts"]) if len(imported) else np.empty(0, np.int64)
    fresh = bars[~np.isin(bars["ts_ns"], kept)]
    for start in range(0, len(fresh), WRITE_ROWS):
        part = fresh[start : start + WRITE_ROWS]
        db.write(TABLE, to_table(part, symbol, source), timestamp="ts")
    wait_until_applied(db, TABLE)
    return len(fresh)


def stored_range(db: QuestDB, symbol: str) -> tuple[int, int, int]:
    """Rows, first and last bar open in ns of what is stored; zeros when nothing is."""
    sql = f"SELECT count(), cast(min(ts) AS LONG), cast(max(ts) AS LONG) FROM {TABLE} WHERE {of_symbol(symbol)}"  # noqa: S608
    rows, first, last = db.execute(sql)[0]
    return (int(rows), int(first), int(last)) if rows else (0, 0, 0)


def missing_days(stored: tuple[int, int, int], wanted_days: int, now: int) -> int:
    """How many days back to fetch: the whole window unless its start is stored, else since the newest bar and a day."""
    rows, first, last = stored
    if not rows or first > now - (wanted_days - 1) * NS_PER_DAY:
        return wanted_days
    return min(wanted_days, (now - last) // NS_PER_DAY + 2)


@dg.asset(
    name=TABLE,
    deps=[EXCHANGE_FEED, EVENTS_TOPIC],
    kinds={"questdb", "bronze"},
    group_name="bronze",
    owners=OWNERS,
    description=TABLES[TABLE].meaning,
    metadata=table_metadata(TABLES[TABLE]),
    retry_policy=dg.RetryPolicy(max_retries=2, delay=5),
)
def minute_bars(environment: Environment, database: Database) -> dg.MaterializeResult[None]:
    """Fetch what is missing of the training window and upsert it."""
    from btc_core.tables.schema import ensure_tables  # noqa: PLC0415

    chosen = environment.get()
    symbol = chosen.exchange.symbols[0]
    with database.connect() as db:
        ensure_tables(db)
        days = missing_days(stored_range(db, symbol), chosen.model.history_days + 1, now_ns())
        bars, source = exchange_of(chosen.exchange).minute_bars(symbol, days)
        written = store(db, symbol, bars, source)
        rows, first, last = stored_range(db, symbol)
    metadata: dict[str, Any] = {"rows_fetched": len(bars), "rows_written": written, "dagster/row_count": rows}
    if rows:
        expected = (last - first) // NS_PER_MIN + 1
        metadata |= {"first": from_ns(first).isoformat(), "last": from_ns(last).isoformat()}
        metadata |= {"rows_missing": expected - rows, "lag_s": (now_ns() - last) / NS_PER_S, "source": source}
    return dg.MaterializeResult(metadata=metadata)


@dg.asset(
    deps=[minute_bars],
    kinds={"questdb", "bronze"},
    group_name="bronze",
    owners=OWNERS,
    description="Minute bars older than the exchange's candles, made from its trades, backwards from the oldest stored.",
)
def older_bars(environment: Environment, database: Database) -> dg.MaterializeResult[None]:
    """Go back through the exchange's trades, six hours at a time, until the history that is kept by itself is whole or time is up.

    Each piece is stored before the next begins, so an interrupted run goes on where it was.
    """
    log = dg.get_dagster_logger()
    chosen = environment.get()
    symbol = chosen.exchange.symbols[0]
    deadline_s = SYSTEM_CLOCK.monotonic_s() + OLDER_BARS_BUDGET_S
    written = 0
    with database.connect() as db:
        wanted_ns = now_ns() - chosen.model.history_days * NS_PER_DAY
        _, first, _ = stored_range(db, symbol)
        while wanted_ns < first and SYSTEM_CLOCK.monotonic_s() < deadline_s and not chosen.exchange.history_url:
            begin = max(wanted_ns, first - PIECE_NS) // NS_PER_MIN * NS_PER_MIN
            try:
                pages = list(history.trades_between(chosen.exchange, symbol, begin, first))
            except NotOffered as error:
                log.info("%s", error)
                break
            if not pages:
                log.info("the exchange has no trades before %s", from_ns(first).isoformat())
                break
            bars = history.bars_of_trades(np.concatenate(pages))
            written += store(db, symbol, bars, "trades")
            first = min(begin, int(bars["ts_ns"][0]))
            log.info("bars back to %s", from_ns(first).isoformat())
    days_left = max(0.0, (first - wanted_ns) / NS_PER_DAY)
    return dg.MaterializeResult(metadata={"rows_written": written, "days_left": days_left})
