"""Reads that begin long before the first stored row."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pytest

from btc_core.clock import NS_PER_DAY
from btc_core.days.history import History
from btc_core.days.series import SERIES
from btc_core.settings import Settings
from btc_core.tables.arrow import arrow_schema
from btc_core.tables.bar_tables import GOLD_1MIN
from btc_core.tables.catalogue import MINUTE_BARS
from btc_core.utc_day import day_ns
from tests.unit.btc_core.days.test_closing_rows import MemoryStore

if TYPE_CHECKING:
    from btc_core.stores.questdb import QuestDB

YEARS_AGO, FIRST, END = day_ns("2000-01-01"), day_ns("2026-01-01"), day_ns("2027-12-02")
DAYS = (END - FIRST) // NS_PER_DAY


class Database:
    """QuestDB with one bar a day from `FIRST` on, which counts the queries about rows."""

    settings = Settings().questdb

    def __init__(self) -> None:
        self.asked: list[str] = []

    def execute(self, sql: str) -> list[list[Any]]:
        if sql.startswith("SELECT cast(min("):
            return [[FIRST]] if MINUTE_BARS.name in sql else []
        self.asked.append(sql)
        if MINUTE_BARS.name not in sql:
            return []
        days = range(FIRST, END, NS_PER_DAY)
        return [[at_ns, 1] for at_ns in days if _is_inside(at_ns, sql)]

    def query(self, sql: str) -> pa.Table:
        self.asked.append(sql)
        schema = arrow_schema(MINUTE_BARS if MINUTE_BARS.name in sql else GOLD_1MIN)
        days = [at_ns for at_ns in range(FIRST, END, NS_PER_DAY) if MINUTE_BARS.name in sql and _is_inside(at_ns, sql)]
        values = {"ts": days, "symbol": ["BTC/USD"] * len(days), "source": ["file"] * len(days)}
        columns = [pa.array(values.get(field.name, [1] * len(days))).cast(field.type) for field in schema]
        return pa.table(columns, schema=schema)


def _is_inside(at_ns: int, sql: str) -> bool:
    begin_ns, end_ns = map(int, re.findall(r"cast\((\d+) AS TIMESTAMP_NS\)", sql))
    return begin_ns <= at_ns < end_ns


@pytest.fixture
def history() -> History:
    return History(cast("QuestDB", Database()), MemoryStore)


def test_seven_hundred_days_are_one_answer_from_whatever_year_it_is_asked(history: History) -> None:
    asked = cast("Database", history.db).asked
    bars = SERIES["bars"]
    rows = pa.concat_tables(bars.chunks(history, "BTC/USD", YEARS_AGO, END, bars.columns(())))
    from_years_ago = len(asked)
    asked.clear()
    same = pa.concat_tables(bars.chunks(history, "BTC/USD", FIRST, END, bars.columns(())))
    assert len(rows) == DAYS == 700
    assert rows.equals(same)
    assert from_years_ago == len(asked), "no question about a month before the first row"


def test_the_days_of_a_table_without_any_row_are_none(history: History) -> None:
    assert history.days(GOLD_1MIN, "BTC/USD", YEARS_AGO, END) == []
    assert cast("Database", history.db).asked == []
