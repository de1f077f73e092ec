"""The tables and views of the catalogue in QuestDB: creating, upgrading and repairing them.

What does not belong here: what the tables are (`catalogue`), or their rows (`rows`).
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa

from btc_core import horizons
from btc_core.clock import now_ns
from btc_core.errors import QuestDBError, SchemaError
from btc_core.names import HORIZONS_MIN, STORED_HEADLINES_MIN, STORED_HORIZONS_MIN
from btc_core.tables.catalogue import PREDICTION_OUTCOMES, STORED, TABLES
from btc_core.tables.form import Column, Table
from btc_core.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Collection

    from btc_core.stores.questdb import QuestDB

REFRESH_TIMEOUT_S = 300.0

CATALOGUE_VERSION = hashlib.sha256(
    repr([(t.name, [(c.name, c.type) for c in t.columns], t.keys, t.view) for t in TABLES.values()]).encode()
).hexdigest()[:12]
"""A hash of everything in the catalogue that QuestDB knows of."""

SCHEMA_CHANGES = Table(
    "schema_changes",
    "bronze",
    "Statements that changed QuestDB's tables, and the catalogue that they brought the tables to.",
    (
        Column("ts", "TIMESTAMP_NS", "UTC", "when the statement ran"),
        Column("catalogue", "SYMBOL", "", "`CATALOGUE_VERSION` of the program that ran it"),
        Column("statement", "VARCHAR", "", "the statement"),
    ),
    ("ts",),
)
"""This table is no part of the catalogue. It describes this database and no market, so no copy of it is kept."""


class Plan(msgspec.Struct, frozen=True):
    """The differences between the tables in QuestDB and the catalogue."""

    additions: tuple[str, ...]
    """Statements that create what is missing. They lose nothing."""
    rebuilds: tuple[str, ...]
    """Statements that drop and re-create the views, when the definition of one has changed."""
    refused: tuple[str, ...]
    """Differences that a person has to resolve, each with the statement that does it and what it costs."""


def ensure_tables(db: QuestDB) -> None:
    """Create missing tables, columns and views, remove TTLs from tables, and recompute invalid views.

    Existing tables keep their rows. A TTL on a table would drop days that have no copy. QuestDB marks a view as invalid
    when a day of its table is dropped by hand, and no longer refreshes it.
    Raises `SchemaError` when the tables differ from the catalogue by more than what is missing, and `QuestDBError`.
    """
    planned = plan(db)
    if planned.refused:
        raise SchemaError("\n".join(planned.refused))
    if planned.rebuilds:
        msg = (
            "the definition of the views has changed. `btc migrate` computes them again from the rows that silver_features "
            "still has; the bars of older sealed days stay in gold_1min_sealed and gold_5min_sealed"
        )
        raise SchemaError(msg)
    carry_out(db, planned.additions)
    limited = {name for (name,) in db.execute("SELECT table_name FROM tables() WHERE ttlValue > 0")}
    for table in STORED:
        if table.name in limited:
            db.execute(f"ALTER TABLE {table.name} SET TTL 0 DAYS")
    for name in invalid_views(db):  # in order: a view over an invalid view cannot be refreshed
        _refresh(db, name)


def plan(db: QuestDB) -> Plan:
    """Compare QuestDB's tables and views with the catalogue."""
    present = {name for (name,) in db.execute("SELECT table_name FROM tables()")}
    additions: list[str] = []
    refused: list[str] = []
    for table in STORED:
        if table.name not in present:
            additions.append(table.ddl(db.settings))
            continue
        missing, differences = compare(db, table)
        additions += missing
        refused += differences
    views = [table for table in TABLES.values() if table.view]
    standing = dict(db.execute("SELECT view_name, view_sql FROM materialized_views()"))
    if all(standing.get(view.name, view.view) == view.view for view in views):
        additions += [view.ddl(db.settings) for view in views if view.name not in standing]
        return Plan(tuple(additions), (), tuple(refused))
    drops = [f"DROP MATERIALIZED VIEW {view.name}" for view in reversed(views) if view.name in standing]
    return Plan(tuple(additions), (*drops, *(view.ddl(db.settings) for view in views)), tuple(refused))


def compare(db: QuestDB, table: Table) -> tuple[list[str], list[str]]:
    """The statements that add missing columns, and descriptions of every other difference from the catalogue.

    A column that the catalogue no longer has keeps its values, and new rows have none.
    """
    rows = db.execute(f"""SELECT "column", type, upsertKey FROM table_columns('{table.name}')""")  # noqa: S608 - names of the catalogue
    types = {name: kind for name, kind, _ in rows}
    keys = {name for name, _, is_key in rows if is_key}
    alter = f"ALTER TABLE {table.name}"
    missing = [
        f"{alter} ADD COLUMN IF NOT EXISTS {column.name} {column.type}"
        for column in table.columns
        if column.name not in types
    ]
    differences = _lost_horizons(table, types.keys()) + [
        f"{table.name}.{column.name} is {types[column.name]} and should be {column.type}. `{alter} ALTER COLUMN "
        f"{column.name} TYPE {column.type}` in QuestDB makes it so; a value that does not fit becomes null"
        for column in table.columns
        if types.get(column.name, column.type) != column.type
    ]
    if keys != set(table.keys):
        differences.append(
            f"{table.name} has the keys {', '.join(sorted(keys))} and should have {', '.join(sorted(table.keys))}. "
            f"`{alter} DEDUP ENABLE UPSERT KEYS({', '.join(table.keys)})` in QuestDB makes it so, for rows written from "
            "then on"
        )
    return missing, differences


def _lost_horizons(table: Table, present: Collection[str]) -> list[str]:
    """A description of horizons that have columns in QuestDB and not in the catalogue: copies of days would lose them."""
    if table.name != PREDICTION_OUTCOMES.name:  # the other tables have the same horizons
        return []
    known, scored = (
        {int(each[1]) for each in (re.fullmatch(pattern, name) for name in present) if each}
        for pattern in (r"sigma_(\d+)m_bps", r"qlike_model_(\d+)m")
    )
    lost_headlines = sorted(scored.difference(STORED_HEADLINES_MIN))
    if known <= {*STORED_HORIZONS_MIN} and not lost_headlines:
        return []
    lasts = sorted({*lost_headlines, *([] if known <= {*STORED_HORIZONS_MIN} else [max(known)])})
    before = [tuple(sorted(each for each in known if each <= last)) for last in lasts]
    former = horizons.former_text((*horizons.FORMER_MIN, *before))
    msg = (
        f"the tables have forecasts for {', '.join(map(str, sorted(known)))} min, and {horizons.VARIABLE} is now "
        f"{horizons.text_of(HORIZONS_MIN)}. Name the horizons from before the change, so that the tables and the copies of days keep "
        f"their columns: set {horizons.FORMER_VARIABLE}={former} beside it"
    )
    return [msg]


def carry_out(db: QuestDB, statements: tuple[str, ...]) -> None:
    """Run the statements of a plan and record each in `schema_changes`; raises `QuestDBError` at the first that fails."""
    db.execute(SCHEMA_CHANGES.ddl(db.settings))
    for statement in statements:
        db.execute(statement)
        row = {"ts": pa.array([now_ns()], pa.timestamp("ns")), "catalogue": [CATALOGUE_VERSION]}
        db.write(SCHEMA_CHANGES.name, pa.table(row | {"statement": [statement]}), "ts")


def invalid_views(db: QuestDB) -> dict[str, str]:
    """Views that QuestDB no longer refreshes, each with QuestDB's reason, in the order of the catalogue."""
    rows = db.execute("SELECT view_name, invalidation_reason FROM materialized_views() WHERE view_status = 'invalid'")
    found = dict(rows)
    return {name: found[name] for name in TABLES if name in found}


def _refresh(db: QuestDB, view: str) -> None:
    db.execute(f"REFRESH MATERIALIZED VIEW {view} FULL")
    if not wait_until(lambda: view not in invalid_views(db), REFRESH_TIMEOUT_S, pause_s=0.1):
        reason = invalid_views(db).get(view, "")
        msg = f"QuestDB has not computed the view {view} again in {REFRESH_TIMEOUT_S:g} s: {reason}"
        raise QuestDBError(msg)
