"""Importing past trades, from a file or from the exchange's REST API, into the bronze tables.

A trade with an id is written unless that id is stored already. A file without ids does not tell which of its trades the
stream has stored, so its trades are left out for the time that the stream covers.
What does not belong here: repairing gaps of the live stream (`streaming.repair`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from btc_core.clock import NS_PER_DAY, NS_PER_MS, NS_PER_S, NS_PER_US, now_ns, to_ns
from btc_core.errors import InvalidInput
from btc_core.exchanges.adapters import exchange_of
from btc_core.exchanges.history import bars_of_trades
from btc_core.exchanges.rest import next_page_ns, retry_when_rate_limited
from btc_core.market.events import TradeEvent
from btc_core.stores.questdb import append, wait_until_applied, write_rows
from btc_core.tables.catalogue import BRONZE_TRADES, MINUTE_BARS
from btc_core.tables.rows import NOT_FROM_THE_LOG, Logged, bronze_trades, minute_bars
from btc_core.tables.sql import of_symbol, within
from btc_core.utc_day import day_ns

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from btc_core.settings import ExchangeSettings
    from btc_core.stores.questdb import QuestDB

PAST = np.dtype([("ts_ns", "i8"), ("trade_id", "i8"), ("price", "f8"), ("qty", "f8"), ("buy", "?")], align=True)
"""A past trade; its `trade_id` is negative when the source has none."""
NAMES = {
    "ts_ns": ("ts_event", "ts", "time_ms", "time", "timestamp"),
    "price": ("price",),
    "qty": ("qty", "volume", "size", "amount"),
    "side": ("side",),
    "trade_id": ("trade_id", "id"),
}
"""The names that files use for each column, in order of preference."""
BUYS, SELLS = ("b", "buy"), ("s", "sell")
"""The words that files use for the side of a trade, in upper or lower case."""
EARLIEST_DAY = "2009-01-01"
"""Times before this day are refused: Bitcoin began in 2009."""
WRITE_TRADES = 100_000
"""The number of trades that are converted and written at a time: about 60 MB."""
MOST_NS = float(2**63)
_UNITS = ((1e11, NS_PER_S), (1e14, NS_PER_MS), (1e17, NS_PER_US))
_ORDER_TYPE_NOT_KNOWN = ""


def read_trades(file: Path) -> np.ndarray:
    """The trades of a Parquet or CSV file, dtype `PAST`, oldest first.

    A CSV file without a header has Kraken's published form: time in s, price, volume. Times are timestamps, or numbers
    since 1970 in s, ms, µs or ns. A file without sides gets them by the tick rule: a trade above the previous price was
    bought, a trade below it was sold. Raises `InvalidInput` that names the file and the problem.
    """
    table = _read(file)
    columns = {ours: next((n for n in theirs if n in table.column_names), "") for ours, theirs in NAMES.items()}
    missing = [ours for ours in ("ts_ns", "price", "qty") if not columns[ours]]
    if missing:
        msg = f"{file}: no column for {', '.join(missing)}; it has {', '.join(table.column_names)}"
        raise InvalidInput(msg)
    trades = np.zeros(len(table), PAST)
    try:
        _fill(trades, table, columns)
    except (pa.ArrowInvalid, InvalidInput) as error:
        msg = f"{file}: {error}"
        raise InvalidInput(msg) from error
    order = np.argsort(trades["ts_ns"], kind="stable")
    trades = trades[order]
    if not columns["side"]:
        trades["buy"] = _tick_rule(trades["price"])
    if not columns["trade_id"]:
        trades["trade_id"] = -(trades["ts_ns"] // NS_PER_US * NS_PER_US + _rank(trades["ts_ns"] // NS_PER_US))
    return trades


def _fill(trades: np.ndarray, table: pa.Table, columns: dict[str, str]) -> None:
    """Fill in the columns of the file in its order; raises `InvalidInput` that names the first impossible trade."""
    for name in ("price", "qty"):
        trades[name] = table[columns[name]].cast(pa.float64()).to_numpy()
    _refuse(~((trades["price"] > 0) & (trades["qty"] > 0)), "has a price or quantity that is not above zero")
    trades["ts_ns"] = _times(table[columns["ts_ns"]], columns["ts_ns"])
    early, late = day_ns(EARLIEST_DAY), now_ns() + NS_PER_DAY
    wrong = (trades["ts_ns"] < early) | (trades["ts_ns"] > late)
    _refuse(wrong, f"has a time before {EARLIEST_DAY} or in the future; numbers are s, ms, µs or ns since 1970")
    if columns["side"]:
        sides = np.char.lower(table[columns["side"]].cast(pa.string()).to_numpy(zero_copy_only=False).astype(str))
        _refuse(~np.isin(sides, BUYS + SELLS), f"has a side that is none of {', '.join(BUYS + SELLS)}")
        trades["buy"] = np.isin(sides, BUYS)
    if columns["trade_id"]:
        trades["trade_id"] = table[columns["trade_id"]].cast(pa.int64()).to_numpy()


def _refuse(wrong: np.ndarray, what: str) -> None:
    if wrong.any():
        msg = f"trade {int(wrong.argmax()) + 1} {what}"
        raise InvalidInput(msg)


def _read(file: Path) -> pa.Table:
    if not file.is_file():
        msg = f"{file} is not a file"
        raise InvalidInput(msg)
    try:
        if file.suffix == ".parquet":
            return pq.read_table(file)
        with file.open() as lines:
            headless = lines.readline()[:1].isdigit()
        names = ["time", "price", "volume"] if headless else None
        return pa_csv.read_csv(file, pa_csv.ReadOptions(column_names=names))
    except pa.ArrowInvalid as error:
        msg = f"{file}: {error}"
        raise InvalidInput(msg) from error


def _times(column: pa.ChunkedArray, name: str) -> np.ndarray:
    """Times in ns, truncated to microseconds as on the socket.

    The size of a number tells its unit: seconds of this century have ten digits, milliseconds thirteen, and so on.
    """
    if pa.types.is_timestamp(column.type):
        ns = column.cast(pa.timestamp("ns")).cast(pa.int64()).to_numpy()
        return np.asarray(ns // NS_PER_US * NS_PER_US)
    numbers = column.cast(pa.float64(), safe=False).to_numpy()
    largest = float(np.max(numbers, initial=0.0))
    unit_ns = next((unit for most, unit in _UNITS if largest < most), 1)
    if name == "time_ms":
        unit_ns = NS_PER_MS
    _refuse(~(np.abs(numbers) < MOST_NS / unit_ns), "has a time that is not a number or outside every calendar")
    if pa.types.is_integer(column.type):
        return np.asarray(column.to_numpy().astype(np.int64) * unit_ns // NS_PER_US * NS_PER_US)
    return np.asarray(np.rint(numbers * (unit_ns / NS_PER_US)).astype(np.int64) * NS_PER_US)


def _tick_rule(price: np.ndarray) -> np.ndarray:
    moves = np.sign(np.diff(price, prepend=price[:1]))
    last_move = np.maximum.accumulate(np.where(moves != 0, np.arange(len(moves)), 0))
    return np.asarray(moves[last_move] >= 0)


def _rank(groups: np.ndarray) -> np.ndarray:
    """The position of each number within its run of equal numbers."""
    first = np.concatenate([[True], np.diff(groups) != 0]) if len(groups) else np.empty(0, bool)
    begin = np.maximum.accumulate(np.where(first, np.arange(len(groups)), 0))
    return np.asarray(np.arange(len(groups)) - begin)


def put(db: QuestDB, symbol: str, trades: np.ndarray, origin: str) -> int:
    """Write the trades (dtype `PAST`, oldest first) that bronze does not have, and return their number."""
    if not len(trades):
        return 0
    fresh = trades[~_present(db, symbol, trades)]
    for start in range(0, len(fresh), WRITE_TRADES):
        append(db, BRONZE_TRADES, _rows(symbol, fresh[start : start + WRITE_TRADES], origin))
    if len(fresh):
        wait_until_applied(db, BRONZE_TRADES.name)
    return len(fresh)


def _present(db: QuestDB, symbol: str, trades: np.ndarray) -> np.ndarray:
    begin_ns, end_ns = int(trades["ts_ns"][0]), int(trades["ts_ns"][-1]) + 1
    stored = db.query(
        f"SELECT trade_id FROM bronze_trades WHERE {of_symbol(symbol)} "  # noqa: S608 - names of the catalogue
        f"AND {within('ts_event', begin_ns - NS_PER_S, end_ns + NS_PER_S)}"
    )
    known = np.isin(trades["trade_id"], stored["trade_id"].to_numpy())
    streamed = db.execute(
        "SELECT cast(min(ts_event) AS LONG), cast(max(ts_event) AS LONG) FROM bronze_trades "  # noqa: S608 - names of the catalogue
        f"WHERE {of_symbol(symbol)} AND kafka_partition >= 0"
    )
    if streamed and streamed[0][0] is not None:
        first, last = map(int, streamed[0])
        known |= (trades["trade_id"] < 0) & (trades["ts_ns"] >= first) & (trades["ts_ns"] <= last)
    return np.asarray(known)


def _rows(symbol: str, trades: np.ndarray, origin: str) -> pa.Table:
    """Rows of bronze. Instead of a log offset they carry the microsecond of the day, and their rank within it."""
    micros = trades["ts_ns"] // NS_PER_US
    columns = (trades["ts_ns"], _rank(micros), trades["trade_id"], trades["price"], trades["qty"], trades["buy"])
    places = (micros % (NS_PER_DAY // NS_PER_US)).tolist()
    logged = [
        Logged(
            TradeEvent(symbol, ts_ns, rank, trade_id, price, qty, "buy" if buy else "sell", _ORDER_TYPE_NOT_KNOWN),
            ts_ns, origin, NOT_FROM_THE_LOG, place,
        )
        for place, (ts_ns, rank, trade_id, price, qty, buy) in zip(
            places, zip(*(column.tolist() for column in columns), strict=True), strict=True
        )
    ]  # fmt: skip
    return bronze_trades(logged)


def put_bars(db: QuestDB, symbol: str, trades: np.ndarray) -> int:
    """Write the minute bars of these trades where `minute_bars` has none, and return their number."""
    bars = bars_of_trades(trades)
    if not len(bars):
        return 0
    span = within("ts", int(bars["ts_ns"][0]), int(bars["ts_ns"][-1]) + 1)
    stored = db.query(f"SELECT ts FROM minute_bars WHERE {of_symbol(symbol)} AND {span}")  # noqa: S608 - names of the catalogue
    known = stored["ts"].cast(pa.timestamp("ns")).cast(pa.int64()).to_numpy()
    fresh = bars[~np.isin(bars["ts_ns"], known)]
    write_rows(db, MINUTE_BARS, minute_bars(fresh, symbol, "trades"))
    return len(fresh)


def fetch_day(
    db: QuestDB,
    settings: ExchangeSettings,
    symbol: str,
    day: str,
    report: Callable[[int, int], None] = lambda _ns, _written: None,
) -> int:
    """Fetch the trades of a day from REST page by page, store each page, and return the number of rows written.

    A fetch that was interrupted continues behind the last stored page. The function calls `report(time reached in ns,
    rows written)` after each page. Raises `ExchangeError`.
    """
    exchange = exchange_of(settings)
    begin_ns = day_ns(day)
    end_ns = begin_ns + NS_PER_DAY
    since_ns = _fetched_until(db, symbol, begin_ns, end_ns) or begin_ns - 1
    written = 0
    while True:
        page, cursor_ns = retry_when_rate_limited(
            partial(exchange.trades_since, symbol, since_ns), exchange.rest_pause_s
        )
        rows = [(to_ns(row.timestamp), row.trade_id, row.price, row.qty, row.side == "buy") for row in page]
        trades = np.array(rows, PAST)
        inside = trades[(trades["ts_ns"] >= begin_ns) & (trades["ts_ns"] < end_ns)]
        written += put(db, symbol, inside[np.argsort(inside["ts_ns"], kind="stable")], "rest")
        report(min(cursor_ns, end_ns), written)
        next_ns = next_page_ns(since_ns, cursor_ns)
        if not page or next_ns is None or cursor_ns >= min(end_ns, now_ns()):
            return written
        since_ns = next_ns


def _fetched_until(db: QuestDB, symbol: str, begin_ns: int, end_ns: int) -> int:
    """One microsecond before the newest trade of the range that an earlier call fetched; 0 when there is none."""
    newest = db.execute(
        f"SELECT cast(max(ts_event) AS LONG) FROM bronze_trades WHERE {of_symbol(symbol)} "  # noqa: S608 - names of the catalogue
        f"AND origin = 'rest' AND kafka_partition < 0 AND {within('ts_event', begin_ns, end_ns)}"
    )
    return int(newest[0][0]) - NS_PER_US if newest and newest[0][0] is not None else 0
