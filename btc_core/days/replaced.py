"""The rows that sealing a day has replaced: kept on the object store by day and seal, listed, and written back.

`<table>/<day>/replaced/<seal>/<time>-<rows>-<digest>.parquet` holds the old rows. They are stored before the table is
changed, and they expire with the copies of their day.
What does not belong here: deciding which rows are replaced (`bronze_proof`, `silver_proof`), or copies of days (`lake`).
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import msgspec
import pyarrow.parquet as pq

from btc_core.clock import now_ns
from btc_core.errors import InvalidInput, StoreError
from btc_core.stores.questdb import write_rows
from btc_core.tables.arrow import digest, read_parquet
from btc_core.tables.catalogue import STORED

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

    from btc_core.stores.questdb import QuestDB
    from btc_core.stores.s3 import ObjectStore
    from btc_core.tables.form import Table

    Keep = Callable[[Table, pa.Table], None]
    """Stores rows of a table that are about to be replaced."""

COMPRESSION_LEVEL = 3
DIGEST_DIGITS = 16


class ReplacedRows(msgspec.Struct, frozen=True):
    """Rows of one table that one run of a seal replaced."""

    table: str
    day: str
    seal: str
    replaced_at_ns: int
    rows: int
    content: str
    """The first digits of the digest of the rows (`tables.arrow.digest`)."""
    key: str


def keeper(store: ObjectStore, day: str, seal: str) -> Keep:
    """A function that stores old rows of the day under the seal; it raises `StoreError`."""

    def keep(table: Table, rows: pa.Table) -> None:
        if not len(rows):
            return
        sink = io.BytesIO()
        pq.write_table(rows, sink, compression="zstd", compression_level=COMPRESSION_LEVEL)
        name = f"{now_ns()}-{len(rows)}-{digest(rows)[:DIGEST_DIGITS]}.parquet"
        store.put(f"{table.name}/{day}/replaced/{seal}/{name}", sink.getvalue())

    return keep


def replaced_rows(store: ObjectStore, day: str) -> list[ReplacedRows]:
    """What the seals of a day have replaced, newest first; raises `StoreError`."""
    found = []
    for table in STORED:
        for key in store.keys(f"{table.name}/{day}/replaced/"):
            *_, seal, name = key.split("/")
            at_ns, rows, content = name.removesuffix(".parquet").split("-")
            found.append(ReplacedRows(table.name, day, seal, int(at_ns), int(rows), content, key))
    return sorted(found, key=lambda each: each.replaced_at_ns, reverse=True)


def undo(db: QuestDB, store: ObjectStore, day: str, seal: str) -> int:
    """Write back the rows that a seal of a day replaced, and return their number.

    If the seal replaced a row more than once, its oldest values are written. Rows that the seal added stay, because
    QuestDB deletes no single rows. Raises `InvalidInput` if the seal replaced nothing, and `StoreError`.
    """
    chosen = [each for each in replaced_rows(store, day) if each.seal == seal]
    if not chosen:
        msg = f"the seal {seal} of {day} has replaced no row; `btc seals {day}` lists those that have"
        raise InvalidInput(msg)
    old_rows = [_load(store, each) for each in chosen]  # all are read before the first is written
    tables = {table.name: table for table in STORED}
    for each, rows in zip(chosen, old_rows, strict=True):
        table = tables[each.table]
        names = [column.name for column in table.columns if column.name in rows.column_names]
        write_rows(db, table, rows.select(names))
    return sum(each.rows for each in chosen)


def _load(store: ObjectStore, replaced: ReplacedRows) -> pa.Table:
    body = store.get(replaced.key)
    rows = read_parquet(body) if body is not None else None
    if rows is None or digest(rows)[:DIGEST_DIGITS] != replaced.content:
        what = "is missing" if rows is None else "is damaged"
        raise StoreError(f"{store.uri(replaced.key)} {what}; nothing was written back")
    return rows
