"""Daily checks of every stored table: those that follow from the catalogue, and those that a person thought of.

A check is one statement that selects the rows of the newest complete day that break a rule. A check that finds some fails,
and shows the statement and the first ten of them. What does not belong here: proofs against the log or a replay (`sealed`).
"""

# no `from __future__ import annotations`: Dagster wants the type of `context`, not its name
import itertools
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import msgspec

from btc_assets.partitions import TABLE_ROWS, markdown
from btc_assets.resources import Database
from btc_assets.timetable import scheduled
from btc_core.clock import NS_PER_DAY, now_ns
from btc_core.days.stored_days import stored_days
from btc_core.features.catalogue import BASE_UNITS
from btc_core.names import CHECK_TABLES_JOB
from btc_core.stores.questdb import QuestDB
from btc_core.tables.catalogue import STORED, TABLES
from btc_core.tables.form import Table
from btc_core.tables.schema import compare
from btc_core.tables.sql import of_symbol, on_day, within
from btc_core.utc_day import day_ns, day_of

COUNTED = ("bronze_ticks", "bronze_trades", "silver_features")
"""Tables that have about as many rows each day."""
USUAL_DAYS, USUAL_MIN_DAYS, USUAL_FACTOR = 7, 3, 10.0
"""A day is unusual if its rows differ from the median of the days before by more than this factor; fewer days than this
decide nothing. The busiest day of a year has about eight times the trades of the median day."""
MAX_AHEAD_S = 600
"""Equals `MAX_AHEAD_S` of `btc_core.market.events`, which takes half a second to import; a test compares them."""
_MAY_BE_EMPTY = {"version", "ord_type", "import_id"}


class Rule(msgspec.Struct, frozen=True):
    """A condition that every row of a table must meet."""

    name: str
    table: str
    meaning: str
    offending: str
    """SELECT of the rows that break it. `{day}` stands for the condition on the day, `{day_and_before}` for the condition
    on it and the day before."""
    is_error: bool = True
    """Whether breaking it is an error, not a warning."""
    is_excused: Callable[[QuestDB, dict[str, Any]], bool] | None = None
    """Whether such a row is right after all, by what other tables say."""


def rules_of(table: Table) -> Iterator[Rule]:
    """The rules that follow from the columns of a table."""
    name, stamp = table.name, table.timestamp
    present = [c.name for c in table.columns if _never_null(table, c.name) and c.name not in _MAY_BE_EMPTY]
    if present:
        any_null = " OR ".join(f"{column} IS NULL" for column in present)
        yield _rule(table, "nulls", f"{', '.join(present)} are never null.", any_null)
    bounded = [
        f"{c.name} {'<=' if c.unit == 'USD' else '<'} 0" for c in table.columns if _is_price_or_quantity(table, c.name)
    ]
    if bounded:
        yield _rule(table, "ranges", "Prices are above zero, and quantities are not below zero.", " OR ".join(bounded))
    names = {column.name for column in table.columns}
    if {"ts_event", "ts_recv"} <= names:
        future_ns = MAX_AHEAD_S * 1_000_000_000
        ahead = f"cast(ts_event AS LONG) > cast(ts_recv AS LONG) + {future_ns}"
        yield _rule(table, "times", f"No event time is more than {MAX_AHEAD_S} s after the receipt.", ahead)
    keys = ", ".join(table.keys)
    yield Rule(
        f"{name}_keys",
        name,
        f"No two rows have the same ({keys}).",
        f"SELECT * FROM (SELECT {keys}, count() AS times FROM {name} WHERE {{day}} GROUP BY {keys}) WHERE times > 1",  # noqa: S608 - names of the catalogue
    )
    if stamp == "ts":
        yield _rule(table, "minutes", "Every bar opens at a full minute.", "cast(ts AS LONG) % 60000000000 != 0")


def _rule(table: Table, kind: str, meaning: str, condition: str) -> Rule:
    statement = f"SELECT * FROM {table.name} WHERE {{day}} AND ({condition})"  # noqa: S608 - names of the catalogue
    return Rule(f"{table.name}_{kind}", table.name, meaning, statement)


def _never_null(table: Table, column: str) -> bool:
    """Keys of every table; in bronze every number and name, too."""
    kinds = {c.name: c.type for c in table.columns}
    return column in table.keys or (table.layer == "bronze" and kinds[column] in ("DOUBLE", "TIMESTAMP_NS", "SYMBOL"))


def _is_price_or_quantity(table: Table, column: str) -> bool:
    """Prices and quantities as the exchange sends them. Other features in USD or base units are differences, and may be negative."""
    units = {c.name: c.unit for c in table.columns}
    if table.layer == "silver":
        return column in {"bid", "ask", "mid", "bid_qty", "ask_qty", "trade_price", "trade_qty"}
    return units[column] in ("USD", BASE_UNITS)


def _is_absent(db: QuestDB, row: dict[str, Any]) -> bool:
    """Whether the exchange confirmed that the ids missing before this trade do not exist."""
    marks = db.execute(
        f"SELECT count() FROM gap_marks WHERE {of_symbol(row['symbol'])} AND state = 'absent' "  # noqa: S608 - names of the catalogue
        f"AND first_id <= {row['id_before'] + 1} AND last_id >= {row['trade_id'] - 1}"
    )
    return bool(marks[0][0])


_OTHER_RULES = (
    Rule(
        "quotes_uncrossed",
        "bronze_ticks",
        "The best bid is never above the best ask.",
        "SELECT * FROM bronze_ticks WHERE {day} AND bid > ask",
    ),
    Rule(
        "books_match",
        "bronze_book_checks",
        "Our order book has the exchange's checksum. If it has not, ingest takes a new snapshot.",
        "SELECT * FROM bronze_book_checks WHERE {day} AND matches = false",
        is_error=False,
    ),
    Rule(
        "trade_ids_gapless",
        "bronze_trades",
        "No trade_id is missing, except those that the exchange confirmed as absent.",
        "SELECT * FROM (SELECT ts_event, symbol, trade_id, lag(trade_id) OVER (PARTITION BY symbol, epoch ORDER BY trade_id) "
        "AS id_before FROM (SELECT ts_event, symbol, trade_id, sum(CASE WHEN mark = 'epoch' THEN 1 ELSE 0 END) "
        "OVER (PARTITION BY symbol ORDER BY ts_event) AS epoch FROM bronze_trades "
        "WHERE {day_and_before} AND trade_id > 0 AND (mark IS NULL OR mark != 'outlier'))) "
        "WHERE {day} AND trade_id > id_before + 1",
        is_excused=_is_absent,
    ),
    Rule(
        "no_open_gaps",
        "gap_marks",
        "Every gap was repaired or confirmed as absent by the exchange.",
        "SELECT * FROM gap_marks WHERE {day} AND state = 'open'",
        is_error=False,
    ),
    *(
        Rule(
            f"{name}_no_look_ahead",
            name,
            "No forecast was made before its input was received.",
            f"SELECT * FROM {name} WHERE {{day}} AND made_at < ts_recv",  # noqa: S608 - names of the catalogue
        )
        for name in ("gold_bid_price_prediction", "gold_volatility_prediction")
    ),
)

RULES: tuple[Rule, ...] = (*(rule for table in STORED for rule in rules_of(table)), *_OTHER_RULES)


def evaluate(db: QuestDB, rule: Rule, day: str) -> dg.AssetCheckResult:
    """The result of a rule on one day, with the statement and the first offending rows."""
    table = TABLES[rule.table]
    both = within(table.timestamp, day_ns(day) - NS_PER_DAY, day_ns(day) + NS_PER_DAY)
    statement = rule.offending.replace("{day}", on_day(table, day)).replace("{day_and_before}", both)
    is_excused = rule.is_excused
    if is_excused is None:
        found = db.query(f"{statement} LIMIT {TABLE_ROWS + 1}").to_pylist()
    else:  # no LIMIT, because any number of the first rows may be excused
        rows = (row for row in db.query(statement).to_pylist() if not is_excused(db, row))
        found = list(itertools.islice(rows, TABLE_ROWS + 1))
    metadata: dict[str, Any] = {"day": day, "query": dg.MetadataValue.md(f"```sql\n{statement}\n```")}
    if found:
        metadata["rows"] = markdown([{name: str(value) for name, value in row.items()} for row in found])
    severity = dg.AssetCheckSeverity.ERROR if rule.is_error else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(
        check_name=rule.name, asset_key=rule.table, passed=not found, severity=severity, metadata=metadata
    )


def rows_check(db: QuestDB, table: Table, day: str) -> dg.AssetCheckResult:
    """Whether a day has about as many rows as the days before it; a day without rows is checked, too."""
    counts = stored_days(db, table)
    before = [rows for other, rows in counts.items() if other < day][-USUAL_DAYS:]
    rows = counts.get(day, 0)
    metadata: dict[str, Any] = {"day": day, "rows": rows, "days_before": len(before)}
    passed = True
    if len(before) >= USUAL_MIN_DAYS:
        usual = statistics.median(before)
        metadata |= {"at_least": usual / USUAL_FACTOR, "at_most": usual * USUAL_FACTOR}
        passed = usual / USUAL_FACTOR <= rows <= usual * USUAL_FACTOR
    return dg.AssetCheckResult(
        check_name=f"{table.name}_rows_usual",
        asset_key=table.name,
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        metadata=metadata,
    )


def schema_check(db: QuestDB, table: Table) -> dg.AssetCheckResult:
    """Whether the table in QuestDB has the columns, types and keys of the catalogue."""
    missing, other_differences = compare(db, table)
    differences = [{"difference": each} for each in (*missing, *other_differences)]
    return dg.AssetCheckResult(
        check_name=f"{table.name}_schema",
        asset_key=table.name,
        passed=not differences,
        metadata={"differences": markdown(differences)},
    )


SPECS = [
    *(
        dg.AssetCheckSpec(
            f"{table.name}_schema",
            asset=table.name,
            description="The table in QuestDB has the columns, types and keys of the catalogue.",
        )
        for table in STORED
    ),
    *(
        dg.AssetCheckSpec(
            f"{name}_rows_usual", asset=name, description="The day has about as many rows as the days before it."
        )
        for name in COUNTED
    ),
    *(dg.AssetCheckSpec(rule.name, asset=rule.table, description=rule.meaning) for rule in RULES),
]


@dg.multi_asset_check(specs=SPECS, can_subset=True)
def table_checks(context: dg.AssetCheckExecutionContext, database: Database) -> Iterator[dg.AssetCheckResult]:
    """Check the rows of yesterday."""
    selected = {key.name for key in context.selected_asset_check_keys}
    day = day_of(now_ns() - NS_PER_DAY)
    with database.connect() as db:
        for table in STORED:
            if f"{table.name}_schema" in selected:
                yield schema_check(db, table)
        for name in COUNTED:
            if f"{name}_rows_usual" in selected:
                yield rows_check(db, TABLES[name], day)
        for rule in RULES:
            if rule.name in selected:
                yield evaluate(db, rule, day)


check_tables = dg.define_asset_job(
    CHECK_TABLES_JOB,
    selection=dg.AssetSelection.checks(table_checks),
    description="Check yesterday's rows of every table.",
    tags={"btc/kind": "sealing"},
)
daily_checks = scheduled("daily_checks", check_tables, "30 0 * * *")
