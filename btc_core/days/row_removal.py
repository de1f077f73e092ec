"""Removing rows from a table by rewriting the days that hold them, as QuestDB cannot delete rows.

The rows to keep are copied to a scratch table, the days are dropped, and the copied rows are written back. The scratch
table is only dropped when that is done, so a removal that is interrupted can be finished.
What does not belong here: which rows to remove (`undo_import`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from btc_core.clock import NS_PER_DAY, now_ns
from btc_core.errors import QuestDBError
from btc_core.stores.questdb import wait_until_applied
from btc_core.tables.catalogue import TABLES
from btc_core.tables.sql import on_day, within
from btc_core.utc_day import day_ns, day_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from btc_core.stores.questdb import QuestDB
    from btc_core.tables.form import Table

DRAFT, READY = "removal_draft_", "removal_ready_"
"""Names of scratch tables begin so: while rows are copied to them, and when all of them are there."""
DAYS_AT_A_TIME = 30
"""A statement that names more days becomes too long for a URL."""
TRIES = 5
"""How often the rows of the days are copied again because others were written meanwhile."""


def finish_removals(db: QuestDB) -> None:
    """Write the rows back that an interrupted removal had to keep, and drop its scratch tables."""
    for (name,) in db.execute(f"SELECT table_name FROM tables() WHERE table_name LIKE '{READY}%'"):  # noqa: S608 - names made here
        _write_back(db, name.removeprefix(READY).partition("_")[2], name)
    for (name,) in db.execute(f"SELECT table_name FROM tables() WHERE table_name LIKE '{DRAFT}%'"):  # noqa: S608 - names made here
        db.execute(f"DROP TABLE IF EXISTS {name}")


def days_with(db: QuestDB, table: Table, first: str, last: str, condition: str) -> list[str]:
    """The days from `first` to `last` that have rows for which the SQL condition is true, oldest first."""
    span = within(table.timestamp, day_ns(first), day_ns(last) + NS_PER_DAY)
    rows = db.execute(
        f"SELECT cast({table.timestamp} AS LONG), count() FROM {table.name} WHERE {span} AND {condition} SAMPLE BY 1d"  # noqa: S608 - names of the catalogue
    )
    return [day_of(int(begin_ns)) for begin_ns, count in rows if count]


def remove_rows(db: QuestDB, table: Table, days: Sequence[str], condition: str) -> int:
    """Remove the rows of some days for which the SQL condition is true, and return their number.

    Readers miss the other rows of these days for a moment. A row that another program writes to these days within the
    millisecond before they are dropped is lost; the sealing of a day compares its trades with the log and writes such a
    row again. Raises `QuestDBError` if other programs keep writing to these days.
    """
    return sum(
        _remove_rows(db, table, days[start : start + DAYS_AT_A_TIME], condition)
        for start in range(0, len(days), DAYS_AT_A_TIME)
    )


def _remove_rows(db: QuestDB, table: Table, days: Sequence[str], condition: str) -> int:
    of_days = f"({' OR '.join(f'({on_day(table, day)})' for day in days)})"
    listed = ", ".join(f"'{day}'" for day in days)
    for _ in range(TRIES):
        wait_until_applied(db, table.name)
        before = _count(db, table.name, of_days)
        removed = _count(db, table.name, f"{of_days} AND {condition}")
        ready = _copy(db, table, f"{of_days} AND NOT ({condition})", before - removed)
        wait_until_applied(db, table.name)
        if ready and _count(db, table.name, of_days) == before:
            db.execute(f"ALTER TABLE {table.name} DROP PARTITION LIST {listed}")
            wait_until_applied(db, table.name)
            _write_back(db, table.name, ready)
            return removed
        if ready:
            db.execute(f"DROP TABLE {ready}")
    msg = f"other programs keep writing to {table.name} of {days[0]} to {days[-1]}; try again when they are done"
    raise QuestDBError(msg)


def _copy(db: QuestDB, table: Table, condition: str, expected: int) -> str:
    """Copy rows to a scratch table and return its name; empty if their number is not the expected one."""
    number = now_ns()  # QuestDB lists a dropped table of the same name for a while
    draft, ready = f"{DRAFT}{number}_{table.name}", f"{READY}{number}_{table.name}"
    db.execute(f"CREATE TABLE {draft} (LIKE {table.name})")
    db.execute(f"INSERT INTO {draft} SELECT * FROM {table.name} WHERE {condition}")  # noqa: S608 - names of the catalogue
    wait_until_applied(db, draft)
    if _count(db, draft, "true") != expected:
        db.execute(f"DROP TABLE {draft}")
        return ""
    db.execute(f"RENAME TABLE {draft} TO {ready}")
    return ready


def _write_back(db: QuestDB, name: str, ready: str) -> None:
    """Write the rows of a scratch table back, and drop it when queries can read them."""
    timestamp = TABLES[name].timestamp
    before = _count(db, ready, "true")
    db.execute(f"INSERT INTO {name} SELECT * FROM {ready}")  # noqa: S608 - names of the catalogue
    wait_until_applied(db, name)
    if before:
        first, last = db.execute(f"SELECT min({timestamp}), max({timestamp}) FROM {ready}")[0]  # noqa: S608 - names of the catalogue
        if _count(db, name, f"{timestamp} BETWEEN '{first}' AND '{last}'") < before:
            msg = f"{name} lacks rows that were copied to {ready}; undo the import again, which writes them back"
            raise QuestDBError(msg)
    db.execute(f"DROP TABLE {ready}")


def _count(db: QuestDB, name: str, condition: str) -> int:
    return int(db.execute(f"SELECT count() FROM {name} WHERE {condition}")[0][0])  # noqa: S608 - names of the catalogue
