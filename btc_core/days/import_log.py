"""The record of imports: what each one read and wrote, by the id that its rows carry.

What does not belong here: writing the rows (`bar_import`, `trade_import`) and removing them (`undo_import`).
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from btc_core.clock import from_ns, now_ns
from btc_core.errors import InvalidInput
from btc_core.stores.questdb import write_rows
from btc_core.tables.form import Column, Table
from btc_core.tables.rows import from_records

if TYPE_CHECKING:
    import numpy as np

    from btc_core.stores.questdb import QuestDB

State = Literal["importing", "imported", "undoing", "undone"]
Kind = Literal["bars", "trades"]

IMPORTS = Table(
    "imports",
    "bronze",
    "Files that were imported. Rows of minute_bars and bronze_trades carry the id of the import that wrote them.",
    (
        Column("ts", "TIMESTAMP_NS", "UTC", "when the import began"),
        Column("import_id", "SYMBOL", "", "id of the import"),
        Column("kind", "SYMBOL", "", "bars or trades"),
        Column("symbol", "SYMBOL", "", "market, as BTC/USD"),
        Column("state", "SYMBOL", "", "importing, imported, undoing or undone"),
        Column("file", "VARCHAR", "", "the file"),
        Column("row_count", "LONG", "", "number of rows that the import wrote"),
        Column("first_ts", "TIMESTAMP_NS", "UTC", "time of the first of these rows"),
        Column("last_ts", "TIMESTAMP_NS", "UTC", "time of the last of these rows"),
    ),
    ("ts", "import_id"),
)
"""This table is no part of the catalogue. It describes this database and no market, so no copy of it is kept."""


class Import(msgspec.Struct, frozen=True):
    """One import."""

    id: str
    kind: Kind
    symbol: str
    state: State
    file: str
    rows: int
    begun_ns: int
    first_ns: int
    last_ns: int


def begin_import(db: QuestDB, kind: Kind, symbol: str, file: str, ts_ns: np.ndarray) -> Import:
    """Record that an import begins to write rows with these times."""
    begun_ns = now_ns()
    # Two imports may begin within the same second.
    import_id = f"{from_ns(begun_ns):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    span = int(ts_ns.min()), int(ts_ns.max())
    found = Import(import_id, kind, symbol, "importing", file, len(ts_ns), begun_ns, *span)
    db.execute(IMPORTS.ddl(db.settings))
    _write(db, found)
    return found


def set_state(db: QuestDB, found: Import, state: State) -> None:
    """Record the state of an import."""
    _write(db, msgspec.structs.replace(found, state=state))


def all_imports(db: QuestDB) -> list[Import]:
    """All imports, oldest first."""
    db.execute(IMPORTS.ddl(db.settings))
    times = ", ".join(f"cast({name} AS LONG)" for name in ("ts", "first_ts", "last_ts"))
    rows = db.execute(f"SELECT import_id, kind, symbol, state, file, row_count, {times} FROM imports ORDER BY ts")  # noqa: S608 - names of the table above
    return [Import(*row) for row in rows]


def import_of(db: QuestDB, import_id: str) -> Import:
    """The import with an id; raises `InvalidInput` if there is none."""
    for found in all_imports(db):
        if found.id == import_id:
            return found
    msg = f"there is no import {import_id!r}; `btc imports` lists them"
    raise InvalidInput(msg)


def _write(db: QuestDB, found: Import) -> None:
    record: dict[str, Any] = {
        "ts": found.begun_ns, "import_id": found.id, "kind": found.kind, "symbol": found.symbol, "state": found.state,
        "file": found.file, "row_count": found.rows, "first_ts": found.first_ns, "last_ts": found.last_ns,
    }  # fmt: skip
    write_rows(db, IMPORTS, from_records(IMPORTS, [record]))
