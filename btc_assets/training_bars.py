"""The assets `minute_bars` and `older_bars`: the one-minute bars that models are trained on, from the exchange into QuestDB.

Fetching the same bars again changes nothing. Bars imported from a file are never overwritten from here. (Ingest fetches
the newest bars at its start, and the bronze worker writes those over any source.)
What does not belong here: bars made from the live stream (the view `gold_1min`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg
import msgspec
import numpy as np

from btc_assets.asset_metadata import EVENTS_TOPIC, EXCHANGE_FEED, OWNERS, market_suffix, table_metadata
from btc_assets.resources import Database, Environment  # noqa: TC001 - Dagster reads the annotations
from btc_core.clock import NS_PER_DAY, NS_PER_MIN, NS_PER_S, SYSTEM_CLOCK, column_ns, from_ns, now_ns
from btc_core.errors import ExchangeError, NotOffered
from btc_core.exchanges import history
from btc_core.exchanges.adapters import exchange_for
from btc_core.names import exchange_in
from btc_core.stores.questdb import append, wait_until_applied
from btc_core.tables import rows as table_rows
from btc_core.tables.catalogue import MINUTE_BARS, TABLES
from btc_core.tables.schema import ensure_tables
from btc_core.tables.sql import of_symbol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from btc_core.settings import Settings
    from btc_core.stores.questdb import QuestDB

TABLE = "minute_bars"
WRITE_ROWS = 50_000
"""Rows in one write: about 6 MB on the wire, a fraction of a second."""
PIECE_NS = NS_PER_DAY // 4
"""The time whose trades are fetched at once: some 15 pages of a thousand trades, a quarter of a minute."""
OLDER_BARS_BUDGET_S = 900.0
"""How long one run fetches: about two weeks of trades at one page a second. The next run continues."""


class FetchResult(msgspec.Struct, frozen=True):
    """How many bars of one market were fetched and written, and which are stored now."""

    fetched_rows: int
    written_rows: int
    stored: tuple[int, int, int]
    """As `stored_range` returns it."""
    source: str


def store(db: QuestDB, symbol: str, bars: np.ndarray, source: str) -> int:
    """Write `bars`, except over those of a file, and wait until they can be read; returns the number of rows written."""
    if not len(bars):
        return 0
    imported = db.query(f"SELECT ts FROM {TABLE} WHERE {of_symbol(symbol)} AND source = 'file'")  # noqa: S608 - names of the catalogue
    from_file = column_ns(imported["ts"]) if len(imported) else np.empty(0, np.int64)
    fresh = bars[~np.isin(bars["ts_ns"], from_file)]
    for start in range(0, len(fresh), WRITE_ROWS):
        part = fresh[start : start + WRITE_ROWS]
        append(db, MINUTE_BARS, table_rows.minute_bars(part, symbol, source))
    wait_until_applied(db, TABLE)
    return len(fresh)


def stored_range(db: QuestDB, symbol: str) -> tuple[int, int, int]:
    """How many bars of a market are stored, and the opens of the first and last in ns; zeros if there are none."""
    sql = f"SELECT count(), cast(min(ts) AS LONG), cast(max(ts) AS LONG) FROM {TABLE} WHERE {of_symbol(symbol)}"  # noqa: S608 - names of the catalogue
    rows, first, last = db.execute(sql)[0]
    return (int(rows), int(first), int(last)) if rows else (0, 0, 0)


def missing_days(stored: tuple[int, int, int], wanted_days: int, now: int) -> int:
    """How many days back to fetch: the whole window unless its start is stored, otherwise from a day before the newest bar."""
    rows, first, last = stored
    if not rows or first > now - (wanted_days - 1) * NS_PER_DAY:
        return wanted_days
    return min(wanted_days, (now - last) // NS_PER_DAY + 2)


def _fetch_newest(db: QuestDB, chosen: Settings, symbol: str) -> FetchResult:
    days = missing_days(stored_range(db, symbol), chosen.model.history_days + 1, now_ns())
    bars, source = exchange_for(chosen.exchange, symbol).minute_bars(symbol, days)
    written = store(db, symbol, bars, source)
    return FetchResult(len(bars), written, stored_range(db, symbol), source)


def _fetch_all(db: QuestDB, chosen: Settings) -> tuple[list[FetchResult], dict[str, str]]:
    """Fetch the newest bars of every market; returns the results, and the problems of exchanges that did not answer."""
    markets: list[FetchResult] = []
    problems: dict[str, str] = {}
    followed = [name for name in chosen.exchange.names if chosen.exchange.only(name).symbols]
    for name in followed:
        try:
            markets += [_fetch_newest(db, chosen, symbol) for symbol in chosen.exchange.only(name).symbols]
        except ExchangeError as error:
            if len(problems) == len(followed) - 1:
                raise
            problems[name] = str(error)
            dg.get_dagster_logger().error("the bars of %s are not fetched: %s", name, error)
    return markets, problems


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
    """Fetch the bars of the training window that are missing, for each market.

    While one exchange does not answer, the bars of the others are fetched. Raises the error if no exchange answers.
    """
    chosen = environment.get()
    with database.connect() as db:
        ensure_tables(db)
        markets, problems = _fetch_all(db, chosen)
    metadata: dict[str, Any] = {
        "rows_fetched": sum(market.fetched_rows for market in markets),
        "rows_written": sum(market.written_rows for market in markets),
        "dagster/row_count": sum(market.stored[0] for market in markets),
    } | {f"problem of {name}": problem for name, problem in problems.items()}
    ranges = [market.stored for market in markets if market.stored[0]]
    if ranges:
        metadata |= {
            "first": from_ns(min(first for _, first, _ in ranges)).isoformat(),
            "last": from_ns(max(last for _, _, last in ranges)).isoformat(),
            "rows_missing": sum((last - first) // NS_PER_MIN + 1 - rows for rows, first, last in ranges),
            "lag_s": (now_ns() - min(last for _, _, last in ranges)) / NS_PER_S,
            "source": ", ".join(sorted({market.source for market in markets})),
        }
    return dg.MaterializeResult(metadata=metadata)


@dg.asset(
    deps=[minute_bars],
    kinds={"questdb", "bronze"},
    group_name="bronze",
    owners=OWNERS,
    description="Minute bars that are older than the exchange's candles, made from its trades, from the oldest stored bar "
    "backwards.",
)
def older_bars(environment: Environment, database: Database) -> dg.MaterializeResult[None]:
    """Fetch the exchange's trades six hours at a time, until `history_days` are stored or the time of the run is over.

    The next piece is always of the market with the shortest history, so that no market waits until another is complete.
    Each piece is stored before the next is fetched, so an interrupted run continues where it was.
    """
    chosen = environment.get()
    wanted_ns = now_ns() - chosen.model.history_days * NS_PER_DAY
    deadline_s = SYSTEM_CLOCK.monotonic_s() + OLDER_BARS_BUDGET_S
    written = 0
    with database.connect() as db:
        first_ns = {symbol: stored_range(db, symbol)[1] for symbol in chosen.exchange.symbols}
        open_symbols = {symbol for symbol in first_ns if lacks_bar_file(chosen, symbol)}
        while SYSTEM_CLOCK.monotonic_s() < deadline_s:
            symbol = next_market({each: first for each, first in first_ns.items() if each in open_symbols}, wanted_ns)
            if symbol is None:
                break
            rows, first_ns[symbol], is_end = _fetch_piece(db, chosen, symbol, first_ns[symbol], wanted_ns)
            written += rows
            if is_end:
                open_symbols.discard(symbol)
    days_left = {symbol: max(0.0, (first - wanted_ns) / NS_PER_DAY) for symbol, first in first_ns.items()}
    metadata: dict[str, Any] = {"rows_written": written, "days_left": sum(days_left.values())}
    metadata |= {
        f"days_left{market_suffix(symbol)}": days for symbol, days in days_left.items() if market_suffix(symbol)
    }
    return dg.MaterializeResult(metadata=metadata)


def lacks_bar_file(chosen: Settings, symbol: str) -> bool:
    """Whether older bars of a market are made from trades: only the home exchange may publish a file of bars."""
    return bool(exchange_in(symbol)) or not chosen.exchange.history_url


def next_market(first_ns: Mapping[str, int], wanted_ns: int) -> str | None:
    """The market whose oldest bar (open, ns) is the newest, None if all begin at `wanted_ns` or before.

    >>> next_market({"BTC/USD": 50, "ETH/USD": 90}, 10), next_market({"BTC/USD": 5}, 10)
    ('ETH/USD', None)
    """
    short = {symbol: first for symbol, first in first_ns.items() if first > wanted_ns}
    return max(short, key=lambda symbol: short[symbol], default=None)


def _fetch_piece(db: QuestDB, chosen: Settings, symbol: str, first: int, wanted_ns: int) -> tuple[int, int, bool]:
    """Store one piece before the bar that opens at `first`: the rows written, the new oldest open, and whether it is the last."""
    log = dg.get_dagster_logger()
    begin = max(wanted_ns, first - PIECE_NS) // NS_PER_MIN * NS_PER_MIN
    try:
        pages = list(history.trades_between(chosen.exchange, symbol, begin, first))
    except NotOffered as error:
        log.info("%s", error)
        return 0, first, True
    if not pages:
        log.info("the exchange has no trades of %s before %s", symbol, from_ns(first).isoformat())
        return 0, first, True
    bars = history.bars_of_trades(np.concatenate(pages))
    written = store(db, symbol, bars, "trades")
    oldest = min(begin, int(bars["ts_ns"][0]))
    log.info("bars of %s are stored back to %s", symbol, from_ns(oldest).isoformat())
    return written, oldest, False


def missing_history(db: QuestDB, chosen: Settings) -> bool:
    """Whether bars of `history_days` are not stored yet for a market whose older bars are made from trades."""
    oldest_ns = now_ns() - (chosen.model.history_days - 1) * NS_PER_DAY
    ranges = [stored_range(db, symbol) for symbol in chosen.exchange.symbols if lacks_bar_file(chosen, symbol)]
    return any(not rows or first > oldest_ns for rows, first, _ in ranges)
