"""The days of a table in QuestDB: reading one, counting their rows, dropping old ones.

What does not belong here: copies outside QuestDB (`lake`), or whether a day is complete (`seals`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from btc_core.clock import NS_PER_DAY, now_ns
from btc_core.stores.questdb import wait_until_applied
from btc_core.tables.arrow import in_form
from btc_core.tables.sql import on_day
from btc_core.utc_day import day_ns

if TYPE_CHECKING:
    import pyarrow as pa

    from btc_core.stores.questdb import QuestDB
    from btc_core.tables.form import Table


DAY_CHARACTERS = len("2026-01-31")


def read_day(db: QuestDB, table: Table, day: str, name: str = "") -> pa.Table:
    """Every row of a day, sorted by the table's keys; `name` reads a scratch table of the same form."""
    return read_rows(db, table, on_day(table, day), name)


def read_rows(db: QuestDB, table: Table, condition: str, name: str = "") -> pa.Table:
    """The rows that satisfy an SQL condition, in the form of `read_day`."""
    # Without the cast, QuestDB 9.3.4 exports a VARCHAR of up to nine bytes to Parquet as null.
    names = ", ".join(f"{c.name}::STRING {c.name}" if c.type == "VARCHAR" else c.name for c in table.columns)
    return in_form(db.query(f"SELECT {names} FROM {name or table.name} WHERE {condition}"), table)  # noqa: S608 - names of the catalogue


def count_rows(db: QuestDB, table: Table, day: str, name: str = "") -> int:
    """The number of rows of a day."""
    return int(db.execute(f"SELECT count() FROM {name or table.name} WHERE {on_day(table, day)}")[0][0])  # noqa: S608 - names of the catalogue


def stored_days(db: QuestDB, table: Table) -> dict[str, int]:
    """The number of rows of each day that QuestDB holds, oldest day first.

    They are read from the list of partitions. Counting rows would map every column of every day into memory, and with a year
    of all tables QuestDB meets the limit of memory maps. A day can have several partitions, which begin with its name.
    """
    days: dict[str, int] = {}
    listed = f"SELECT name, numRows FROM table_partitions('{table.name}') WHERE attached"  # noqa: S608 - names of the catalogue
    for name, rows in db.execute(listed):
        day = str(name)[:DAY_CHARACTERS]
        days[day] = days.get(day, 0) + int(rows)
    return {day: rows for day, rows in sorted(days.items()) if rows}


def drop_days_through(db: QuestDB, table: Table, day: str) -> list[str]:
    """Drop a day and all days before it from QuestDB, and return the days that are gone.

    The function sets a TTL and removes it again, because QuestDB drops expired days when the TTL is set. A
    `DROP PARTITION` would invalidate the views of the table permanently; a TTL leaves them and their bars intact. QuestDB
    keeps a day until the table has a row that is a whole day younger than the end of the day.
    """
    before = stored_days(db, table)
    newest_ns = int(db.execute(f"SELECT cast(max({table.timestamp}) AS LONG) FROM {table.name}")[0][0])  # noqa: S608 - names of the catalogue
    age_days = (min(newest_ns, now_ns()) - day_ns(day)) // NS_PER_DAY - 1  # from the end of the day, as QuestDB counts
    if age_days < 1:
        return []
    db.execute(f"ALTER TABLE {table.name} SET TTL {age_days} DAYS")
    db.execute(f"ALTER TABLE {table.name} SET TTL 0 DAYS")
    wait_until_applied(db, table.name)
    return sorted(before.keys() - stored_days(db, table).keys())
