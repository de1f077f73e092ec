"""The tables and views of the catalogue in QuestDB: made where they are missing, put right where they went wrong.

What does not belong here: what the tables are (`btc_core.tables`), their rows (`btc_core.days`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from btc_core.clock import SYSTEM_CLOCK
from btc_core.errors import QuestDBError
from btc_core.tables import STORED, TABLES

if TYPE_CHECKING:
    from btc_core.questdb_client import QuestDB

REFRESH_TIMEOUT_S = 300.0


def ensure_tables(db: QuestDB) -> None:
    """Create what is missing and end what would lose rows or bars; tables that are there keep their rows.

    A TTL left on a table would drop days that have no copy. A view that QuestDB holds invalid (a day of its table was
    dropped by hand) stands still, so it is computed again from the rows that are left. Raises `QuestDBError`.
    """
    for table in TABLES.values():
        db.execute(table.ddl(db.settings))
    limited = {name for (name,) in db.execute("SELECT table_name FROM tables() WHERE ttlValue > 0")}
    for table in STORED:
        if table.name in limited:
            db.execute(f"ALTER TABLE {table.name} SET TTL 0 DAYS")
    for name in invalid_views(db):  # one after the other: the refresh of a view of an invalid view fails
        _refresh(db, name)


def invalid_views(db: QuestDB) -> dict[str, str]:
    """Views that no longer follow their table, each with QuestDB's reason, in the order of the catalogue."""
    rows = db.execute("SELECT view_name, invalidation_reason FROM materialized_views() WHERE view_status = 'invalid'")
    found = dict(rows)
    return {name: found[name] for name in TABLES if name in found}


def _refresh(db: QuestDB, view: str) -> None:
    db.execute(f"REFRESH MATERIALIZED VIEW {view} FULL")
    deadline_s = SYSTEM_CLOCK.monotonic_s() + REFRESH_TIMEOUT_S
    while view in (standing := invalid_views(db)):
        if SYSTEM_CLOCK.monotonic_s() > deadline_s:
            msg = f"QuestDB has not computed the view {view} again in {REFRESH_TIMEOUT_S:g} s: {standing[view]}"
            raise QuestDBError(msg)
        time.sleep(0.1)
