"""The checks of tables against the real QuestDB: each rule finds the rows that break it, and only those."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from btc_assets import table_checks
from btc_core.clock import NS_PER_MIN, NS_PER_S
from btc_core.stores.questdb import QuestDB, write_rows
from btc_core.tables.catalogue import STORED, TABLES
from btc_core.utc_day import day_ns
from tests.service.made_up import made_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import dagster as dg

    from btc_core.settings import Settings

pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:dagster"),
]

DAY = "2020-02-02"
MIDNIGHT_NS = day_ns(DAY)
RULES = {rule.name: rule for rule in table_checks.RULES}
QUOTE: dict[str, Any] = {"bid": 100.0, "bid_qty": 1.0, "ask": 101.0, "ask_qty": 1.0, "last": 100.0, "volume": 5.0,
                         "vwap": 100.0, "low": 99.0, "high": 102.0, "change": 0.0, "change_pct": 0.0}  # fmt: skip


@pytest.fixture(scope="module")
def db(servers: Callable[..., Settings]) -> Iterator[QuestDB]:
    with QuestDB(servers("questdb").questdb) as client:
        yield client


def judged(db: QuestDB, rule: str, day: str = DAY) -> dg.AssetCheckResult:
    return table_checks.evaluate(db, RULES[rule], day)


@pytest.mark.parametrize("rule", RULES)
def test_questdb_understands_every_statement_and_a_day_without_rows_breaks_no_rule(db: QuestDB, rule: str) -> None:
    assert judged(db, rule, "2020-01-01").passed


@pytest.mark.parametrize("table", STORED, ids=lambda table: table.name)
def test_the_tables_of_a_new_questdb_are_those_of_the_catalogue(db: QuestDB, table: Any) -> None:
    assert table_checks.schema_check(db, table).passed


def quotes(db: QuestDB, day: str, **wrong: float) -> None:
    """Three valid quotes of a day, the second with the `wrong` values."""
    table = TABLES["bronze_ticks"]
    names = {column.name for column in table.columns}
    given = {name: [value] * 3 for name, value in QUOTE.items() if name in names}
    for name, value in wrong.items():
        given[name] = [given[name][0], value, given[name][2]]
    moments = [day_ns(day) + second * NS_PER_S for second in range(3)]
    write_rows(db, table, made_up(table, day, 3, ts_recv=moments, **given))


@pytest.mark.parametrize("name", ["bronze_trades", "minute_bars"])
def test_rows_that_no_import_wrote_have_no_import_and_break_no_rule(db: QuestDB, name: str) -> None:
    table, day = TABLES[name], "2020-02-08"
    numbers = {column.name: [100.0] * 3 for column in table.columns if column.type == "DOUBLE"}
    write_rows(db, table, made_up(table, day, 3, import_id=[None] * 3, **numbers))
    assert judged(db, f"{name}_nulls", day).passed


@pytest.mark.parametrize(
    ("day", "wrong", "broken"),
    [
        ("2020-02-03", {}, set()),
        ("2020-02-04", {"bid": 105.0}, {"quotes_uncrossed"}),
        ("2020-02-05", {"ask": -1.0}, {"quotes_uncrossed", "bronze_ticks_ranges"}),
        ("2020-02-06", {"bid": float("nan")}, {"bronze_ticks_nulls"}),
    ],
)
def test_a_wrong_quote_breaks_the_rules_that_name_it(
    db: QuestDB, day: str, wrong: dict[str, float], broken: set[str]
) -> None:
    quotes(db, day, **wrong)
    about = [name for name, rule in RULES.items() if rule.table == "bronze_ticks"]
    results = {name: judged(db, name, day) for name in about}
    assert {name for name, result in results.items() if not result.passed} == broken
    for name in broken:
        assert "bronze_ticks WHERE" in str(results[name].metadata["query"].value)
        assert str(results[name].metadata["rows"].value).count("\n") == 2, "a head, a line and the one row"


def test_a_missing_trade_is_found_unless_the_exchange_has_none(db: QuestDB) -> None:
    trades, marks, symbol = TABLES["bronze_trades"], TABLES["gap_marks"], "GAPS/USD"
    rows = made_up(trades, DAY, 3, trade_id=[7, 8, 11], symbol=[symbol] * 3)
    write_rows(db, trades, rows)
    result = judged(db, "trade_ids_gapless")
    assert not result.passed
    assert "11" in str(result.metadata["rows"].value)
    write_rows(
        db, marks, made_up(marks, DAY, 1, symbol=[symbol], first_id=[9], last_id=[10], state=["absent"])
    )  # fmt: skip
    assert judged(db, "trade_ids_gapless").passed


def test_outliers_and_another_numbering_leave_no_hole_but_a_hole_in_an_epoch_is_found(db: QuestDB) -> None:
    trades, symbol, day = TABLES["bronze_trades"], "EPOCHS/USD", "2020-03-08"
    ids, marks = [70, 71, 9 * 10**18, 72, 1, 2, 3], ["", "", "outlier", "", "epoch", "", ""]
    write_rows(db, trades, made_up(trades, day, 7, trade_id=ids, mark=marks, symbol=[symbol] * 7))
    assert judged(db, "trade_ids_gapless", day).passed
    ids, marks = [*ids, 5], [*marks, ""]
    write_rows(db, trades, made_up(trades, day, 8, trade_id=ids, mark=marks, symbol=[symbol] * 8))
    found = judged(db, "trade_ids_gapless", day)
    assert not found.passed
    assert str(found.metadata["rows"].value).count("\n") == 2, "a head, a line and the one row"


def test_a_missing_trade_is_found_behind_any_number_of_absent_ones_and_over_midnight(db: QuestDB) -> None:
    trades, marks, symbol = TABLES["bronze_trades"], TABLES["gap_marks"], "HOLES/USD"
    yesterday, today = "2020-03-02", "2020-03-03"
    write_rows(db, trades, made_up(trades, yesterday, 1, trade_id=[1], symbol=[symbol]))
    ids = list(range(2, 62, 2))  # every other one is absent, which are more than a check shows
    write_rows(db, trades, made_up(trades, today, 30, trade_id=ids, symbol=[symbol] * 30))
    absent = [number + 1 for number in ids[:-1]]
    given = {"symbol": [symbol] * 29, "first_id": absent, "last_id": absent, "state": ["absent"] * 29}
    write_rows(db, marks, made_up(marks, today, 29, **given))
    assert judged(db, "trade_ids_gapless", today).passed
    more = made_up(trades, today, 32, trade_id=[*ids, 61, 65], symbol=[symbol] * 32)
    write_rows(db, trades, more)
    found = judged(db, "trade_ids_gapless", today)
    assert not found.passed
    assert str(found.metadata["rows"].value).count("\n") == 2, "a head, a line and the one row"
    write_rows(db, trades, made_up(trades, "2020-03-04", 1, trade_id=[70], symbol=[symbol]))
    assert not judged(db, "trade_ids_gapless", "2020-03-04").passed, "66 to 69 are missing over midnight"


def test_a_bar_that_opens_within_a_minute_is_found(db: QuestDB) -> None:
    table = TABLES["minute_bars"]
    write_rows(db, table, made_up(table, DAY, 2, ts=[MIDNIGHT_NS, MIDNIGHT_NS + NS_PER_MIN]))
    assert judged(db, "minute_bars_minutes").passed
    write_rows(db, table, made_up(table, DAY, 1, ts=[MIDNIGHT_NS + 1]))
    assert not judged(db, "minute_bars_minutes").passed


def test_a_day_with_far_fewer_or_more_rows_than_usual_is_found(db: QuestDB) -> None:
    table = TABLES["bronze_ticks"]
    sizes = {"2019-05-01": 90, "2019-05-02": 100, "2019-05-03": 110, "2019-05-04": 9, "2019-05-05": 1_200}
    for day, rows in sizes.items():
        write_rows(db, table, made_up(table, day, rows))
    usual = {day: table_checks.rows_check(db, table, day).passed for day in (*sizes, "2019-05-06")}
    assert usual == {
        "2019-05-01": True,
        "2019-05-02": True,
        "2019-05-03": True,
        "2019-05-04": False,
        "2019-05-05": False,
        "2019-05-06": False,
    }
