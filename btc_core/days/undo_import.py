"""Undoing an import: removing the rows that it wrote and everything that was computed from them.

What does not belong here: how rows are removed (`row_removal`), and the record of imports (`import_log`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from btc_core.clock import NS_PER_MIN, column_ns
from btc_core.days.bar_import import REPLACED_BARS, stored_bars
from btc_core.days.import_log import all_imports, set_state
from btc_core.days.kept_copies import check_in_questdb, delete_copies
from btc_core.days.row_removal import days_with, finish_removals, remove_rows
from btc_core.days.trade_bars import FROM_STORED_TRADES, minutes_of, remake_bars
from btc_core.errors import InvalidInput
from btc_core.stores.questdb import write_rows
from btc_core.tables.arrow import arrow_schema
from btc_core.tables.bar_tables import GOLD_1MIN_SEALED, GOLD_5MIN_SEALED
from btc_core.tables.catalogue import BRONZE_TRADES, MINUTE_BARS, SILVER_FEATURES
from btc_core.tables.schema import ensure_tables
from btc_core.tables.sql import of_symbol
from btc_core.utc_day import day_of, days_between

if TYPE_CHECKING:
    from btc_core.days.import_log import Import
    from btc_core.stores.questdb import QuestDB
    from btc_core.stores.s3 import ObjectStore
    from btc_core.tables.form import Table


class Undone(msgspec.Struct, frozen=True):
    """What undoing an import did."""

    removed: int
    """The number of rows of the import that were removed."""
    restored: int
    """The number of bars that the import had replaced and that are back."""
    days_to_backfill: tuple[str, ...]
    """Days whose features and bars were computed from removed trades and are removed as well, oldest first."""


def undo_import(db: QuestDB, store: ObjectStore, found: Import) -> Undone:
    """Remove what an import wrote; a run that was interrupted may be repeated.

    Copies of the changed days are deleted from the object store, because a copy is never replaced by fewer rows. Raises
    `InvalidInput` if the import is undone already, or if days of it have left QuestDB.
    """
    if found.state == "undone":
        msg = f"the import {found.id} is undone already"
        raise InvalidInput(msg)
    finish_removals(db)
    return _undo_bars(db, store, found) if found.kind == "bars" else _undo_trades(db, store, found)


def _undo_bars(db: QuestDB, store: ObjectStore, found: Import) -> Undone:
    first, last = day_of(found.first_ns), day_of(found.last_ns)
    check_in_questdb(db, store, [MINUTE_BARS], first, last)
    set_state(db, found, "undoing")
    is_imported = f"import_id = '{found.id}'"
    days = days_with(db, MINUTE_BARS, first, last, is_imported)
    delete_copies(store, MINUTE_BARS, days)
    restored = _restore_replaced(db, found)
    removed = remove_rows(db, MINUTE_BARS, days_with(db, MINUTE_BARS, first, last, is_imported), is_imported)
    set_state(db, found, "undone")
    return Undone(removed, restored, ())


def _undo_trades(db: QuestDB, store: ObjectStore, found: Import) -> Undone:
    """Remove computed rows before the trades, so that a repeated run still finds the days of the import.

    Bars made from removed trades get the id of the import first, so that a repeated run still finds them.
    """
    first, last = day_of(found.first_ns), day_of(found.last_ns)
    of_market = of_symbol(found.symbol)
    is_imported = f"import_id = '{found.id}'"
    steps: tuple[tuple[Table, str], ...] = (
        (SILVER_FEATURES, f"{of_market} AND kafka_partition < 0"),
        (GOLD_1MIN_SEALED, of_market),
        (GOLD_5MIN_SEALED, of_market),
        (BRONZE_TRADES, is_imported),
    )
    check_in_questdb(db, store, [MINUTE_BARS, *(table for table, _ in steps)], first, last)
    is_repeated = found.state == "undoing"
    days = days_between(first, last) if is_repeated else days_with(db, BRONZE_TRADES, first, last, is_imported)
    set_state(db, found, "undoing")
    _mark_bars(db, found)
    removed, computed = 0, set[str]()
    for table, condition in steps:
        affected = [day for day in days_with(db, table, first, last, condition) if day in days]
        delete_copies(store, table, affected)
        removed = remove_rows(db, table, affected, condition)
        computed |= set(affected) if table is not BRONZE_TRADES else set()
    _settle_marked_bars(db, store, found)
    ensure_tables(db)  # The views over a table whose days were dropped are not refreshed until this is done.
    set_state(db, found, "undone")
    return Undone(removed, 0, tuple(sorted(computed)))


def _mark_bars(db: QuestDB, found: Import) -> None:
    """Give the bars that were made from trades of the import its id."""
    rows = db.query(f"SELECT ts_event FROM {BRONZE_TRADES.name} WHERE import_id = '{found.id}'")  # noqa: S608 - names of the catalogue
    minutes = minutes_of(column_ns(rows["ts_event"]))
    if len(minutes):
        bars = stored_bars(db, found.symbol, int(minutes[0]), int(minutes[-1]) + NS_PER_MIN)
        is_made = pc.is_in(bars["source"], pa.array(FROM_STORED_TRADES))
        bars = bars.filter(pc.and_(is_made, pa.array(np.isin(column_ns(bars["ts"]), minutes))))
        place = bars.schema.names.index("import_id")
        write_rows(db, MINUTE_BARS, bars.set_column(place, "import_id", pa.array([found.id] * len(bars), pa.string())))


def _settle_marked_bars(db: QuestDB, store: ObjectStore, found: Import) -> None:
    """Make the marked bars again where other trades cover their minutes, and remove the rest."""
    first, last = day_of(found.first_ns), day_of(found.last_ns)
    is_marked = f"import_id = '{found.id}'"
    delete_copies(store, MINUTE_BARS, days_with(db, MINUTE_BARS, first, last, is_marked))
    rows = db.query(f"SELECT ts FROM {MINUTE_BARS.name} WHERE {is_marked}")  # noqa: S608 - names of the catalogue
    remake_bars(db, found.symbol, np.sort(column_ns(rows["ts"])))
    remove_rows(db, MINUTE_BARS, days_with(db, MINUTE_BARS, first, last, is_marked), is_marked)


def _restore_replaced(db: QuestDB, found: Import) -> int:
    """Write the bars back that the import replaced, where its own bars are still stored; returns their number."""
    db.execute(REPLACED_BARS.ddl(db.settings))
    undone = {each.id for each in all_imports(db) if each.state == "undone"}
    begin_ns, end_ns = found.first_ns, found.last_ns + NS_PER_MIN
    replaced = db.query(
        f"SELECT * FROM {REPLACED_BARS.name} WHERE {of_symbol(found.symbol)} "  # noqa: S608 - names of the catalogue
        f"AND ts >= cast({begin_ns} AS TIMESTAMP_NS) AND ts < cast({end_ns} AS TIMESTAMP_NS)"
    )
    times, by = column_ns(replaced["ts"]).tolist(), replaced["replaced_by"].to_pylist()
    origins = replaced["import_id"].to_pylist()
    places = {key: place for place, key in enumerate(zip(times, by, strict=True))}
    current = stored_bars(db, found.symbol, begin_ns, end_ns)
    wanted: list[int] = []
    for ts_ns, import_id in zip(column_ns(current["ts"]).tolist(), current["import_id"].to_pylist(), strict=True):
        place = places.get((ts_ns, import_id)) if import_id == found.id else None
        while place is not None and origins[place] in undone:  # what that import had replaced, if anything
            place = places.get((ts_ns, origins[place]))
        if place is not None:
            wanted.append(place)
    schema = arrow_schema(MINUTE_BARS)
    rows = replaced.take(pa.array(wanted, pa.int64()))
    write_rows(db, MINUTE_BARS, pa.table([rows[field.name].cast(field.type) for field in schema], schema=schema))
    return len(wanted)
