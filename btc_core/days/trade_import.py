"""Importing past trades, from a file or from the exchange's REST API, into `bronze_trades`.

A trade that is stored already, from wherever it came, is not written again (`trade_matching`).
What does not belong here: reading files (`trade_files`), the minute bars of imported trades (`trade_bars`), or
repairing gaps of the live stream (`streaming.repair`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from btc_core.clock import NS_PER_DAY, NS_PER_US, column_ns, now_ns, to_ns
from btc_core.days.trade_bars import minutes_of, update_bars
from btc_core.days.trade_files import NO_ID, PAST, rank_in_groups
from btc_core.days.trade_matching import MAX_TOLERANCE_NS, STORED, Matcher, pairs_of_ids, tolerances_ns
from btc_core.errors import InvalidInput
from btc_core.exchanges.adapters import exchange_for
from btc_core.exchanges.rest import next_page_ns, retry_when_rate_limited
from btc_core.market.checked_bars import describe_time
from btc_core.market.events import TradeEvent
from btc_core.stores.questdb import append, wait_until_applied
from btc_core.tables.catalogue import BRONZE_TRADE_CORRECTIONS, BRONZE_TRADES
from btc_core.tables.rows import NOT_FROM_THE_LOG, Logged, bronze_trades
from btc_core.tables.sql import of_symbol, within
from btc_core.utc_day import day_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa

    from btc_core.exchange_settings import ExchangeSettings
    from btc_core.stores.questdb import QuestDB

FILE, REST = "file", "rest"
"""Values of the column `origin` of imported trades."""
BLOCK_TRADES = 200_000
"""Trades that are compared with the stored ones at a time: about 100 MB."""
WRITE_TRADES = 100_000
"""Trades that are converted and written at a time: about 60 MB."""
SETTLED_AFTER_NS = NS_PER_DAY
"""A trade without an id that is younger than this is left out if the market is streamed: the stream, its repair or the
seal of the day may still store the same trade with its id, and nothing would connect the two."""
FIRST_ID = -(2**63) + 1
"""Ids of trades without one begin here, and increase with the time. They are negative for the next centuries."""
FEW_TRADES, MOST_DIFFER = 10, 0.5
"""From this number of common ids on, a file is of another market if more than this share of them differs."""
PLANNED = np.dtype([*((name, PAST[name]) for name in PAST.names or ()), ("item", "i4")], align=True)
"""A trade with its final id; `item` is its position among the imported trades of its microsecond."""
_ORDER_TYPE_NOT_KNOWN = ""


class TradePlan(msgspec.Struct, frozen=True):
    """What importing trades would do."""

    new: np.ndarray
    """Trades (dtype `PLANNED`) that are not stored, sorted by time."""
    stored: int
    """The number of trades that are stored already."""
    different: int
    """The number of trades whose id is stored with another time, price or quantity. The stored ones stay."""
    example: str
    """The first of these, in words."""
    unsettled_ns: np.ndarray
    """The times of trades without an id that are left out because the stream may still store them with an id."""


def plan_trades(db: QuestDB, symbol: str, trades: np.ndarray, *, has_sides: bool) -> TradePlan:
    """Compare trades (dtype `PAST`, sorted by time) with the stored ones; `has_sides` is false if the tick rule made them."""
    tolerance_ns = tolerances_ns(trades["ts_ns"])
    unsettled = _unsettled(db, symbol, trades)
    matcher = Matcher(has_sides=has_sides)
    new: list[np.ndarray] = [np.empty(0, PLANNED)]
    is_unsettled = np.zeros(len(trades), bool)
    different, example = 0, ""
    for start, end in _blocks(trades["ts_ns"]):
        block = trades[start:end]
        stored = _stored(db, symbol, int(block["ts_ns"][0]), int(block["ts_ns"][-1]))
        known = matcher.known(block, tolerance_ns[start:end], stored)
        is_stored_id, is_different, first = _compare_ids(db, symbol, block)
        known |= is_stored_id
        different += int(is_different.sum())
        example = example or first
        is_unsettled[start:end] = unsettled[start:end] & ~known
        new.append(_with_ids(block[~known & ~unsettled[start:end]], stored))
    plan = TradePlan(np.concatenate(new), 0, different, example, trades["ts_ns"][is_unsettled])
    return msgspec.structs.replace(plan, stored=len(trades) - len(plan.new) - len(plan.unsettled_ns) - different)


def check_same_market(plan: TradePlan, label: str, symbol: str) -> None:
    """Raise `InvalidInput` if most of the ids that are stored and in the file belong to different trades."""
    common = plan.stored + plan.different
    if common >= FEW_TRADES and plan.different > MOST_DIFFER * common:
        msg = (
            f"{label}: {plan.different} of {common} trades have the id of a stored trade with another time, price or "
            f"quantity, so this is probably not a file of {symbol} on this exchange. Nothing was imported. The first is "
            f"{plan.example}"
        )
        raise InvalidInput(msg)


def write_trades(
    db: QuestDB,
    symbol: str,
    planned: np.ndarray,
    import_id: str | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Write planned trades and return when queries can read them.

    Without the id of an import, the trades come from REST. `advance` is called with the number of trades of each write.
    """
    for start in range(0, len(planned), WRITE_TRADES):
        block = planned[start : start + WRITE_TRADES]
        append(db, BRONZE_TRADES, _rows(symbol, block, import_id))
        advance(len(block))
    if len(planned):
        wait_until_applied(db, BRONZE_TRADES.name)


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
    exchange = exchange_for(settings, symbol)
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
        written += _store_page(db, symbol, inside[np.argsort(inside["ts_ns"], kind="stable")])
        report(min(cursor_ns, end_ns), written)
        next_ns = next_page_ns(since_ns, cursor_ns)
        if not page or next_ns is None or cursor_ns >= min(end_ns, now_ns()):
            return written
        since_ns = next_ns


def _store_page(db: QuestDB, symbol: str, trades: np.ndarray) -> int:
    """Write the trades of a page that are not stored; bars that were made without them are made again."""
    new = plan_trades(db, symbol, trades, has_sides=True).new
    if len(new):
        write_trades(db, symbol, new)
        minutes = minutes_of(new["ts_ns"])
        update_bars(db, symbol, minutes, may_create=np.zeros(len(minutes), bool))
    return len(new)


def _blocks(ts_ns: np.ndarray) -> Iterator[tuple[int, int]]:
    """The borders of blocks of about `BLOCK_TRADES` trades that keep the trades of one time together."""
    start = 0
    while start < len(ts_ns):
        last_ns = ts_ns[min(start + BLOCK_TRADES, len(ts_ns)) - 1]
        end = int(np.searchsorted(ts_ns, last_ns, side="right"))
        yield start, end
        start = end


def _stored(db: QuestDB, symbol: str, first_ns: int, last_ns: int) -> np.ndarray:
    """The stored trades (dtype `STORED`) around a range of times, sorted by time."""
    span = within("ts_event", first_ns - 2 * MAX_TOLERANCE_NS, last_ns + 2 * MAX_TOLERANCE_NS)
    rows = db.query(
        "SELECT ts_event, trade_id, price, qty, side = 'buy' AS buy, origin = 'file' AS is_file, kafka_partition, "  # noqa: S608 - names of the catalogue
        f"frame_item AS item FROM {BRONZE_TRADES.name} WHERE {of_symbol(symbol)} AND {span} ORDER BY ts_event"
    )
    stored = np.zeros(len(rows), STORED)
    stored["ts_ns"] = column_ns(rows["ts_event"])
    for name in ("trade_id", "price", "qty", "buy", "item"):
        stored[name] = rows[name].to_numpy()
    stored["is_logged"] = rows["kafka_partition"].to_numpy() >= 0
    is_file = rows["is_file"].to_numpy().astype(bool)
    stored["tolerance_ns"] = NS_PER_US
    stored["tolerance_ns"][is_file] = tolerances_ns(stored["ts_ns"][is_file])
    return stored


def _compare_ids(db: QuestDB, symbol: str, trades: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """The masks of the trades whose id is stored, and of those that differ from every stored trade with their id.

    Also returns the first of these in words.
    """
    is_stored, is_different = np.zeros(len(trades), bool), np.zeros(len(trades), bool)
    places = np.flatnonzero(trades["trade_id"] != NO_ID)
    if not len(places):
        return is_stored, is_different, ""
    stored = _with_id_between(db, symbol, trades["trade_id"][places].min(), trades["trade_id"][places].max())
    here, there = pairs_of_ids(trades["trade_id"][places], stored["trade_id"])
    here = places[here]
    is_same = np.abs(stored["ts_ns"][there] - trades["ts_ns"][here]) <= MAX_TOLERANCE_NS
    for name in ("price", "qty"):
        is_same &= np.isclose(stored[name][there], trades[name][here], rtol=1e-12, atol=0.0)
    is_stored[here] = True
    is_different[here] = True
    is_different[here[is_same]] = False
    if not is_different.any():
        return is_stored, is_different, ""
    trade = trades[is_different.argmax()]
    other = stored[there[np.flatnonzero(trades["trade_id"][here] == trade["trade_id"])[0]]]
    example = (
        f"id {trade['trade_id']}, stored with {describe_time(int(other['ts_ns']))}, price {other['price']:.10g}, qty "
        f"{other['qty']:.10g}; in the file: {describe_time(int(trade['ts_ns']))}, price {trade['price']:.10g}, qty "
        f"{trade['qty']:.10g}"
    )
    return is_stored, is_different, example


def _with_id_between(db: QuestDB, symbol: str, first_id: int, last_id: int) -> np.ndarray:
    """The stored trades (dtype `STORED`, only the id, time, price and quantity) of a range of ids, corrections included."""
    columns = "trade_id, cast(ts_event AS LONG) AS ts_ns, price, qty"
    where = f"{of_symbol(symbol)} AND trade_id >= {first_id} AND trade_id <= {last_id}"
    rows = db.query(
        " UNION ALL ".join(
            f"SELECT {columns} FROM {table.name} WHERE {where}"  # noqa: S608 - names of the catalogue
            for table in (BRONZE_TRADES, BRONZE_TRADE_CORRECTIONS)
        )
    )
    stored = np.zeros(len(rows), STORED)
    for name in ("trade_id", "ts_ns", "price", "qty"):
        stored[name] = rows[name].to_numpy()
    return stored


def _unsettled(db: QuestDB, symbol: str, trades: np.ndarray) -> np.ndarray:
    """The mask of the trades without an id that the stream may still store with one: young ones, and those in gaps."""
    ts_ns, has_no_id = trades["ts_ns"], trades["trade_id"] == NO_ID
    unsettled = np.zeros(len(trades), bool)
    if not has_no_id.any():
        return unsettled
    now = now_ns()
    logged = f"SELECT count() FROM {BRONZE_TRADES.name} WHERE {of_symbol(symbol)} AND kafka_partition >= 0"  # noqa: S608 - names of the catalogue
    is_streamed = db.execute(f"{logged} AND {within('ts_event', now - 2 * SETTLED_AFTER_NS, now + NS_PER_DAY)}")[0][0]
    if is_streamed:
        unsettled |= ts_ns > now - SETTLED_AFTER_NS
    gaps = db.execute(
        f"SELECT first_id, cast(ts_event AS LONG) FROM gap_marks WHERE {of_symbol(symbol)} AND state = 'open' "  # noqa: S608 - names of the catalogue
        f"AND ts_event >= cast({int(ts_ns[0])} AS TIMESTAMP_NS)"
    )
    for first_id, end_ns in gaps:
        before = db.execute(
            f"SELECT cast(max(ts_event) AS LONG) FROM {BRONZE_TRADES.name} WHERE {of_symbol(symbol)} "  # noqa: S608 - names of the catalogue
            f"AND trade_id > 0 AND trade_id < {first_id} AND ts_event <= cast({end_ns} AS TIMESTAMP_NS)"
        )
        begin_ns = int(before[0][0]) if before and before[0][0] is not None else int(end_ns) - NS_PER_DAY
        unsettled |= (ts_ns >= begin_ns - MAX_TOLERANCE_NS) & (ts_ns <= int(end_ns) + MAX_TOLERANCE_NS)
    return np.asarray(unsettled & has_no_id)


def _with_ids(trades: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """New trades (dtype `PLANNED`): their positions follow those of the stored ones, and give ids to those without.

    The ids of trades without one increase with the time and, within a microsecond, with the position. A replay sorts
    by both.
    """
    planned = np.zeros(len(trades), PLANNED)
    for name in PAST.names or ():
        planned[name] = trades[name]
    imported = stored[~stored["is_logged"]]
    micros, starts = np.unique(imported["ts_ns"], return_index=True)
    taken = np.maximum.reduceat(imported["item"], starts) + 1 if len(imported) else np.empty(0, np.int64)
    places = np.searchsorted(micros, planned["ts_ns"])
    is_shared = np.isin(planned["ts_ns"], micros)
    first_item = np.zeros(len(planned), np.int64)
    first_item[is_shared] = taken[places[is_shared]]
    is_first = np.diff(planned["ts_ns"], prepend=-1) != 0
    planned["item"] = first_item + rank_in_groups(is_first)
    has_no_id = planned["trade_id"] == NO_ID
    planned["trade_id"][has_no_id] = (FIRST_ID + planned["ts_ns"] + planned["item"])[has_no_id]
    return np.asarray(planned)


def _rows(symbol: str, planned: np.ndarray, import_id: str | None) -> pa.Table:
    """Rows of bronze. Instead of a log offset they carry the microsecond of the day, and their position within it."""
    origin = FILE if import_id else REST
    places = planned["ts_ns"] // NS_PER_US % (NS_PER_DAY // NS_PER_US)
    columns = (planned[name].tolist() for name in ("ts_ns", "item", "trade_id", "price", "qty", "buy"))
    logged = [
        Logged(
            TradeEvent(symbol, ts_ns, item, trade_id, price, qty, "buy" if buy else "sell", _ORDER_TYPE_NOT_KNOWN),
            ts_ns, origin, NOT_FROM_THE_LOG, place,
        )
        for place, (ts_ns, item, trade_id, price, qty, buy) in zip(
            places.tolist(), zip(*columns, strict=True), strict=True
        )
    ]  # fmt: skip
    return bronze_trades(logged, import_id)


def _fetched_until(db: QuestDB, symbol: str, begin_ns: int, end_ns: int) -> int:
    """One microsecond before the newest trade of the range that an earlier call fetched; 0 when there is none."""
    newest = db.execute(
        f"SELECT cast(max(ts_event) AS LONG) FROM bronze_trades WHERE {of_symbol(symbol)} "  # noqa: S608 - names of the catalogue
        f"AND origin = 'rest' AND kafka_partition < 0 AND {within('ts_event', begin_ns, end_ns)}"
    )
    return int(newest[0][0]) - NS_PER_US if newest and newest[0][0] is not None else 0
