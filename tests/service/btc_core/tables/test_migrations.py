"""Tables of an older catalogue in the real QuestDB, brought up to this one: nothing is lost, and what cannot be is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from typer.testing import CliRunner

from btc_cli.app import app
from btc_core.days import lake
from btc_core.days.stored_days import count_rows, read_day
from btc_core.errors import SchemaError
from btc_core.stores.questdb import QuestDB, wait_until_applied, write_rows
from btc_core.stores.s3 import ObjectStore
from btc_core.tables import schema
from btc_core.tables.arrow import digest
from btc_core.tables.bar_tables import GOLD_1MIN, GOLD_5MIN
from btc_core.tables.catalogue import BRONZE_STATUS, BRONZE_TICKS, SILVER_FEATURES, STORED
from btc_core.tables.schema import CATALOGUE_VERSION, ensure_tables, invalid_views
from tests.service.made_up import ROWS, made_up
from tests.service.past_day import lose_day
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from btc_core.settings import Settings
    from btc_core.tables.form import Column, Table
    from stack.runtime import Stack

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore")]

DAY, NEXT_DAY = "2026-03-04", "2026-03-05"
NOTHING = schema.Plan((), (), ())


@pytest.fixture(scope="module")
def db(own_servers: Callable[..., Settings]) -> Iterator[QuestDB]:
    with QuestDB(own_servers("questdb", "store").questdb) as client:
        yield client


def without(table: Table, *names: str) -> Table:
    """The table before these columns were added."""
    return msgspec.structs.replace(table, columns=tuple(c for c in table.columns if c.name not in names))


def made_as(db: QuestDB, table: Table) -> None:
    """In place of the one there is."""
    db.execute(f"DROP TABLE {table.name}")
    db.execute(table.ddl(db.settings))


def test_new_tables_are_those_of_the_catalogue_and_it_is_kept_when_they_were_made(db: QuestDB) -> None:
    assert schema.plan(db) == NOTHING
    wait_until_applied(db, "schema_changes")
    kept = db.execute("SELECT catalogue, statement FROM schema_changes")
    assert kept == [[CATALOGUE_VERSION, table.ddl(db.settings)] for table in (*STORED, GOLD_1MIN, GOLD_5MIN)]
    ensure_tables(db)
    assert db.execute("SELECT count() FROM schema_changes") == [[len(kept)]], "nothing has changed since"


def test_columns_that_came_later_are_added_and_copies_of_before_still_restore(
    db: QuestDB, own_servers: Callable[..., Settings]
) -> None:
    older = without(BRONZE_TICKS, "ask_qty", "vwap")
    made_as(db, older)
    write_rows(db, older, made_up(older, DAY))
    kept = read_day(db, older, DAY)
    with ObjectStore(own_servers("questdb", "store").store) as store:
        lake.back_up(db, store, older, DAY)

        ensure_tables(db)
        assert schema.plan(db) == NOTHING
        rows = read_day(db, BRONZE_TICKS, DAY)
        assert digest(rows.select(kept.column_names)) == digest(kept)
        assert rows["vwap"].null_count == ROWS
        write_rows(db, BRONZE_TICKS, made_up(BRONZE_TICKS, NEXT_DAY))
        assert read_day(db, BRONZE_TICKS, NEXT_DAY)["vwap"].null_count < ROWS

        lose_day(db, BRONZE_TICKS, DAY)
        assert lake.restore(db, store, BRONZE_TICKS, DAY) == ROWS
        assert read_day(db, BRONZE_TICKS, DAY).equals(rows)
        assert lake.drill(db, store, BRONZE_TICKS, DAY) == ROWS


def test_a_new_feature_is_a_new_column_and_the_views_go_on(db: QuestDB) -> None:
    newest = SILVER_FEATURES.columns[-6].name
    older = without(SILVER_FEATURES, newest)
    for view in (GOLD_5MIN, GOLD_1MIN):
        db.execute(f"DROP MATERIALIZED VIEW {view.name}")
    made_as(db, older)
    for view in (GOLD_1MIN, GOLD_5MIN):
        db.execute(view.ddl(db.settings))
    write_rows(db, older, made_up(older, DAY))
    wait_for(lambda: count_rows(db, GOLD_5MIN, DAY), "bars")
    bars = read_day(db, GOLD_1MIN, DAY)

    assert schema.plan(db) == schema.Plan(
        (f"ALTER TABLE silver_features ADD COLUMN IF NOT EXISTS {newest} DOUBLE",), (), ()
    )
    ensure_tables(db)
    write_rows(db, SILVER_FEATURES, made_up(SILVER_FEATURES, NEXT_DAY))
    wait_for(lambda: count_rows(db, GOLD_5MIN, NEXT_DAY), "bars after the change")
    assert invalid_views(db) == {}
    assert read_day(db, GOLD_1MIN, DAY).equals(bars)


def test_a_view_with_another_definition_is_computed_again_only_when_asked(db: QuestDB, own_stack: Stack) -> None:
    write_rows(db, SILVER_FEATURES, made_up(SILVER_FEATURES, DAY))
    for view in (GOLD_5MIN, GOLD_1MIN):
        db.execute(f"DROP MATERIALIZED VIEW {view.name}")
    older = GOLD_1MIN.view.replace("avg(spread_bps)", "max(spread_bps)")
    for view in (msgspec.structs.replace(GOLD_1MIN, view=older), GOLD_5MIN):
        db.execute(view.ddl(db.settings))
    with pytest.raises(SchemaError, match="btc migrate"):
        ensure_tables(db)
    data_dir = str(own_stack.layout.data_dir)
    shown = CliRunner().invoke(app, ["migrate", "--dry-run", "--data-dir", data_dir])
    assert shown.output.count("MATERIALIZED VIEW") == 4
    assert schema.plan(db).rebuilds, "a dry run runs nothing"

    done = CliRunner().invoke(app, ["migrate", "--data-dir", data_dir])
    assert f"catalogue {CATALOGUE_VERSION}: 4 statements run" in done.output
    assert schema.plan(db) == NOTHING
    wait_for(lambda: count_rows(db, GOLD_5MIN, DAY), "bars under the new definition")


def retyped(column: Column) -> Column:
    return msgspec.structs.replace(column, type="SYMBOL") if column.name == "version" else column


RETYPED = msgspec.structs.replace(BRONZE_STATUS, columns=tuple(map(retyped, BRONZE_STATUS.columns)))
REKEYED = msgspec.structs.replace(BRONZE_STATUS, keys=("ts_event", "kafka_offset"))


@pytest.mark.parametrize(
    ("older", "why"),
    [
        (RETYPED, "bronze_status.version is SYMBOL and should be VARCHAR"),
        (REKEYED, "bronze_status has the keys kafka_offset, ts_event and should have frame_item"),
    ],
    ids=["type", "keys"],
)
def test_what_a_person_should_decide_is_refused_and_the_statement_it_names_does_it(
    db: QuestDB, own_stack: Stack, older: Table, why: str
) -> None:
    made_as(db, older)
    write_rows(db, older, made_up(older, DAY))
    rows = read_day(db, older, DAY)
    with pytest.raises(SchemaError, match=why):
        ensure_tables(db)
    refused = CliRunner().invoke(app, ["migrate", "--data-dir", str(own_stack.layout.data_dir)])
    assert isinstance(refused.exception, SchemaError)

    [(*_, statement, _)] = [text.split("`") for text in schema.plan(db).refused]
    db.execute(statement)
    wait_until_applied(db, "bronze_status")
    assert schema.plan(db) == NOTHING
    assert digest(read_day(db, BRONZE_STATUS, DAY)) == digest(rows)
