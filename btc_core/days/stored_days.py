"""The days of a table in QuestDB: reading one, counting their rows, dropping old ones.

What does not belong here: copies outside QuestDB (`lake`), or whether a day is complete (`seals`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from btc_core.clock import NS_PER_DAY, now_ns
from btc_core.stores.questdb import wait_until_applied
from btc_core.tables.arrow import in_form
from btc_core.tables.sql import on_day
from btc_core.utc_day import day_ns, day_of

if TYPE_CHECKING:
    import pyarrow as pa

    from btc_core.stores.questdb import QuestDB
    from btc_core.tables.form import Table


def read_day(db: QuestDB, table: Table, day: str, name: str = "") -> pa.Table:
    """Every row of a day in the order of its keys; `name` is that of a scratch table of the same form."""
    # As it is, a VARCHAR of up to nine bytes comes out of QuestDB 9.3.4's Parquet as null.
    names = ", ".join(f"{c.name}::STRING {c.name}" if c.type == "VARCHAR" else c.name for c in table.columns)
    return in_form(db.query(f"SELECT {names} FROM {name or table.name} WHERE {on_day(table, day)}"), table)  # noqa: S608 - names of the catalogue


def count_rows(db: QuestDB, table: Table, day: str, name: str = "") -> int:
    """Rows of a day."""
    return int(db.execute(f"SELECT count() FROM {name or table.name} WHERE {on_day(table, day)}")[0][0])  # noqa: S608 - the same


def stored_days(db: QuestDB, table: Table) -> dict[str, int]:
    """Rows per day that QuestDB holds, oldest first."""
    sql = f"SELECT cast({table.timestamp} AS LONG), count() FROM {table.name} SAMPLE BY 1d"  # noqa: S608 - the same
    return {day_of(int(begin)): int(rows) for begin, rows in db.execute(sql) if rows}


def drop_days_through(db: QuestDB, table: Table, day: str) -> list[str]:
    """Remove a day and all before it from QuestDB; returns the days that are gone.

    By a TTL that is taken back at once: QuestDB drops at the first statement. `DROP PARTITION` would make the views
    of the table invalid for good; a TTL leaves them and their bars as they are. A day stays while the table has no
    row a whole day after its end.
    """
    before = stored_days(db, table)
    newest_ns = int(db.execute(f"SELECT cast(max({table.timestamp}) AS LONG) FROM {table.name}")[0][0])  # noqa: S608 - the same
    age_days = (min(newest_ns, now_ns()) - day_ns(day)) // NS_PER_DAY - 1  # from the end of the day, as QuestDB counts
    if age_days < 1:
        return []
    db.execute(f"ALTER TABLE {table.name} SET TTL {age_days} DAYS")
    db.execute(f"ALTER TABLE {table.name} SET TTL 0 DAYS")
    wait_until_applied(db, table.name)
    return sorted(before.keys() - stored_days(db, table).keys())
