"""A UTC day of a table: its bounds, its rows in QuestDB, writing them back, and a digest of them.

What does not belong here: copies outside QuestDB (`lake`), or whether a day is complete (`seals`).
"""

from __future__ import annotations

import hashlib
import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from btc_core.clock import NS_PER_DAY, SYSTEM_CLOCK, from_ns, now_ns, to_ns
from btc_core.errors import InvalidInput, QuestDBError, SchemaError

if TYPE_CHECKING:
    from btc_core.stores.questdb import QuestDB
    from btc_core.tables.form import ColumnType, Table

APPLY_TIMEOUT_S = 120.0
"""How long written rows may take to become readable."""
WRITE_BYTES = 20_000_000
"""Of one write: large enough for 100,000 rows/s and more, small enough to bound QuestDB's memory."""
FORM = re.compile(r"\d{4}-\d{2}-\d{2}")

_ARROW: dict[ColumnType, pa.DataType] = {
    "TIMESTAMP_NS": pa.timestamp("ns"),
    "SYMBOL": pa.string(),
    "VARCHAR": pa.string(),
    "DOUBLE": pa.float64(),
    "LONG": pa.int64(),
    "INT": pa.int32(),
    "BOOLEAN": pa.bool_(),
}


def day_ns(day: str) -> int:
    """First nanosecond of a day; raises `InvalidInput` unless it reads as 2026-07-19.

    >>> day_ns("1970-01-02") == NS_PER_DAY
    True
    """
    try:
        moment = datetime.fromisoformat(day if FORM.fullmatch(day) else "")
    except ValueError:
        msg = f"{day!r} is not a day; write it as 2026-07-19"
        raise InvalidInput(msg) from None
    return to_ns(moment.replace(tzinfo=UTC))


def day_of(ts_ns: int) -> str:
    """The UTC day of a moment.

    >>> day_of(NS_PER_DAY - 1)
    '1970-01-01'
    """
    return from_ns(ts_ns).date().isoformat()


def days_between(first: str, last: str) -> list[str]:
    """Every day from `first` to `last`, both included; raises `InvalidInput` when they are the wrong way round."""
    begin, end = day_ns(first), day_ns(last)
    if end < begin:
        msg = f"{first} is after {last}"
        raise InvalidInput(msg)
    return [day_of(ns) for ns in range(begin, end + 1, NS_PER_DAY)]


def within(column: str, begin_ns: int, end_ns: int) -> str:
    """SQL for a timestamp from `begin_ns` up to before `end_ns`."""
    return f"{column} >= cast({begin_ns} AS TIMESTAMP_NS) AND {column} < cast({end_ns} AS TIMESTAMP_NS)"


def on_day(table: Table, day: str) -> str:
    """SQL for the rows of one day."""
    return within(table.timestamp, day_ns(day), day_ns(day) + NS_PER_DAY)


def arrow_schema(table: Table) -> pa.Schema:
    """The table's rows as Arrow, from the catalogue."""
    return pa.schema([(column.name, _ARROW[column.type]) for column in table.columns])


def read_day(db: QuestDB, table: Table, day: str, name: str = "") -> pa.Table:
    """Every row of a day in the order of its keys; `name` is that of a scratch table of the same form."""
    # As it is, a VARCHAR of up to nine bytes comes out of QuestDB 9.3.4's Parquet as null.
    names = ", ".join(f"{c.name}::STRING {c.name}" if c.type == "VARCHAR" else c.name for c in table.columns)
    return in_form(db.query(f"SELECT {names} FROM {name or table.name} WHERE {on_day(table, day)}"), table)  # noqa: S608 - names of the catalogue


def in_form(rows: pa.Table, table: Table) -> pa.Table:
    """Rows with the catalogue's columns and types, in the order of the keys; raises `SchemaError` if they are others."""
    schema = arrow_schema(table)
    missing = [name for name in schema.names if name not in rows.column_names]
    if missing:
        msg = f"rows of {table.name} lack {', '.join(missing)}; the catalogue has changed since they were written"
        raise SchemaError(msg)
    try:
        cast = pa.table([rows[field.name].cast(field.type) for field in schema], schema=schema)
    except pa.ArrowInvalid as error:
        msg = f"rows of {table.name} do not have the catalogue's types: {error}"
        raise SchemaError(msg) from error
    return cast.sort_by([(key, "ascending") for key in table.keys])


def count_rows(db: QuestDB, table: Table, day: str, name: str = "") -> int:
    """Rows of a day."""
    return int(db.execute(f"SELECT count() FROM {name or table.name} WHERE {on_day(table, day)}")[0][0])  # noqa: S608 - the same


def stored_days(db: QuestDB, table: Table) -> dict[str, int]:
    """Rows per day that QuestDB holds, oldest first."""
    sql = f"SELECT cast({table.timestamp} AS LONG), count() FROM {table.name} SAMPLE BY 1d"  # noqa: S608 - the same
    return {day_of(int(begin)): int(rows) for begin, rows in db.execute(sql) if rows}


def write_rows(db: QuestDB, table: Table, rows: pa.Table, name: str = "") -> None:
    """Upsert rows and return when they can be read; rows that are there already become the same row."""
    step = max(1_000, WRITE_BYTES // (8 * max(1, rows.num_columns)))
    symbols = {column.name for column in table.columns if column.type == "SYMBOL"}
    for start in range(0, len(rows), step):
        part = rows.slice(start, step)
        for place, column in enumerate(part.column_names):
            if column in symbols:
                part = part.set_column(place, column, part.column(column).combine_chunks().dictionary_encode())
        db.write(name or table.name, part, table.timestamp)
    if len(rows):
        wait_until_applied(db, name or table.name)


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


def applied(db: QuestDB, name: str) -> bool:
    """Whether everything written to the table can be read; raises `QuestDBError` when QuestDB has suspended it."""
    state = db.execute(f"SELECT sequencerTxn, writerTxn, suspended FROM wal_tables() WHERE name = '{name}'")  # noqa: S608 - the same
    if state and state[0][2]:
        msg = f"QuestDB has suspended {name}; ALTER TABLE {name} RESUME WAL after freeing disk"
        raise QuestDBError(msg)
    return bool(state) and state[0][0] == state[0][1]


def wait_until_applied(db: QuestDB, name: str) -> None:
    """Return when what was written to the table can be read; raises `QuestDBError` after `APPLY_TIMEOUT_S`."""
    deadline_s = SYSTEM_CLOCK.monotonic_s() + APPLY_TIMEOUT_S
    while not applied(db, name):
        if SYSTEM_CLOCK.monotonic_s() > deadline_s:
            msg = f"rows written to {name} were not readable after {APPLY_TIMEOUT_S:g} s"
            raise QuestDBError(msg)
        time.sleep(0.02)


def digest(rows: pa.Table) -> str:
    """SHA-256 of the values of rows `in_form`: the same rows give the same digest, however they were stored."""
    total = hashlib.sha256()
    for name in rows.column_names:
        column = rows[name].combine_chunks()
        total.update(name.encode())
        if pa.types.is_string(column.type):
            total.update("\0".join(pc.fill_null(column, "").to_pylist()).encode())
        elif pa.types.is_boolean(column.type):
            total.update(np.asarray(pc.fill_null(column, pa.scalar(False))).tobytes())
        elif pa.types.is_floating(column.type):
            values = column.to_numpy(zero_copy_only=False)  # a null reads as NaN
            total.update(np.where(np.isnan(values), np.nan, values).tobytes())
        else:
            plain = column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
            total.update(pc.fill_null(plain, 0).to_numpy().tobytes())
    return total.hexdigest()
