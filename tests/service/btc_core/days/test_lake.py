"""Backups against the real QuestDB and object store: what is written comes back, and nothing worse replaces it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from btc_core.clock import NS_PER_DAY, now_ns
from btc_core.days import lake
from btc_core.days.stored_days import count_rows, read_day
from btc_core.errors import StoreError
from btc_core.stores.questdb import QuestDB, write_rows
from btc_core.stores.s3 import ObjectStore
from btc_core.tables.arrow import digest, in_form
from btc_core.tables.catalogue import BRONZE_TRADES, STORED, TABLES
from btc_core.tables.schema import ensure_tables, invalid_views
from btc_core.utc_day import day_of
from tests.service.made_up import ROWS, made_up
from tests.service.past_day import lose_day
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from btc_core.settings import Settings
    from btc_core.tables.form import Table

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore")]

EVERY_TABLE = pytest.mark.parametrize("table", STORED, ids=[table.name for table in STORED])


@pytest.fixture(scope="module")
def db(own_servers: Callable[..., Settings]) -> Iterator[QuestDB]:
    with QuestDB(own_servers("questdb", "store").questdb) as client:
        yield client


@pytest.fixture(scope="module")
def store(own_servers: Callable[..., Settings]) -> Iterator[ObjectStore]:
    with ObjectStore(own_servers("questdb", "store").store) as client:
        yield client


@EVERY_TABLE
def test_a_day_of_every_table_survives_losing_the_table(db: QuestDB, store: ObjectStore, table: Table) -> None:
    day = "2021-03-04"
    write_rows(db, table, made_up(table, day))
    before = read_day(db, table, day)
    assert digest(before) == digest(in_form(made_up(table, day), table)), "short texts once came out of QuestDB as null"
    manifest = lake.back_up(db, store, table, day, "seal")
    assert manifest is not None
    assert (manifest.rows, manifest.content_sha256) == (ROWS, digest(before))
    assert lake.back_up(db, store, table, day) == manifest, "the same rows are not copied twice"
    assert lake.back_up(db, store, table, day, "later seal") == manifest, "the first seal of these rows stays"
    assert lake.drill(db, store, table, day) == ROWS
    lose_day(db, table, day)
    assert count_rows(db, table, day) == 0
    assert lake.restore(db, store, table, day) == ROWS
    assert read_day(db, table, day).equals(before)


def test_a_copy_that_was_made_before_the_seal_gets_the_seal(db: QuestDB, store: ObjectStore) -> None:
    day = "2026-03-09"
    write_rows(db, BRONZE_TRADES, made_up(BRONZE_TRADES, day))
    unsealed = lake.back_up(db, store, BRONZE_TRADES, day)
    assert unsealed is not None
    assert unsealed.seal == ""
    sealed = lake.back_up(db, store, BRONZE_TRADES, day, "seal")
    assert (
        sealed == msgspec.structs.replace(unsealed, seal="seal") == lake.read_manifest(store, BRONZE_TRADES.name, day)
    )


def test_fewer_rows_never_replace_a_sound_copy_but_a_damaged_one_is_replaced(db: QuestDB, store: ObjectStore) -> None:
    table, day = TABLES["bronze_trades"], "2021-03-05"
    write_rows(db, table, made_up(table, day))
    manifest = lake.back_up(db, store, table, day)
    assert manifest is not None
    lose_day(db, table, day)
    write_rows(db, table, made_up(table, day, ROWS - 1))
    with pytest.raises(StoreError, match="the copy stays"):
        lake.back_up(db, store, table, day)
    assert lake.read_manifest(store, table.name, day) == manifest
    store.put(manifest.key, b"flipped bits")
    with pytest.raises(StoreError, match="is damaged"):
        lake.restore(db, store, table, day)
    worse = lake.back_up(db, store, table, day)
    assert worse is not None
    assert worse.rows == ROWS - 1
    write_rows(db, table, made_up(table, day))
    better = lake.back_up(db, store, table, day)
    assert better is not None
    assert better.rows == ROWS
    assert sorted(store.keys(f"{table.name}/{day}/")) == sorted([better.key, lake.manifest_key(table.name, day)])


def test_a_day_past_its_time_stays_while_the_store_is_away_and_goes_when_it_is_copied(
    db: QuestDB, store: ObjectStore, own_servers: Callable[..., Settings]
) -> None:
    table = TABLES["bronze_ticks"]
    now = now_ns()
    old = day_of(now - (table.ttl_days(db.settings) + 3) * NS_PER_DAY)
    recent = day_of(now - NS_PER_DAY)
    for day in (old, recent):
        write_rows(db, table, made_up(table, day))
    away = own_servers("questdb").store.model_copy(update={"endpoint_url": "http://127.0.0.1:9"})
    with ObjectStore(away) as gone:
        kept = lake.drop_old(db, gone, now)
    assert {entry[:2] for entry in kept.blocked} >= {(table.name, old)}
    assert kept.dropped == ()
    lake.back_up(db, store, table, old)
    write_rows(db, table, made_up(table, old, ROWS + 1))
    assert (table.name, old) not in lake.drop_old(db, store, now).dropped, "a row came after the copy"
    lake.back_up(db, store, table, old)
    assert (table.name, old) in lake.drop_old(db, store, now).dropped
    assert (count_rows(db, table, old), count_rows(db, table, recent)) == (0, ROWS)
    assert lake.restore(db, store, table, old) == ROWS + 1


def test_a_copy_from_before_a_column_was_added_frees_its_day_unless_the_column_has_values(
    db: QuestDB, store: ObjectStore
) -> None:
    table = TABLES["bronze_trades"]
    older = msgspec.structs.replace(table, columns=tuple(each for each in table.columns if each.name != "mark"))
    for day, marks, blocker in (
        ("2021-03-08", [None] * ROWS, ""),
        ("2021-03-09", ["late"] * ROWS, "its copy was made before the columns mark had values"),
    ):
        write_rows(db, table, made_up(table, day, mark=marks))
        assert lake.back_up(db, store, older, day) is not None
        assert lake.deletion_blocker(db, store, table, day) == blocker


def test_views_keep_their_bars_when_days_are_dropped_and_are_computed_again_when_one_is_lost(
    db: QuestDB, store: ObjectStore
) -> None:
    table, now = TABLES["silver_features"], now_ns()
    ensure_tables(db)  # the tests before have lost days
    old, older = (day_of(now - (table.ttl_days(db.settings) + days) * NS_PER_DAY) for days in (3, 5))
    for day in (older, old, day_of(now - NS_PER_DAY)):
        write_rows(db, table, made_up(table, day))
    lake.back_up(db, store, table, older)
    wait_for(lambda: bars_of(db, older) and bars_of(db, old), "bars")
    expected = bars_of(db, older)

    kept = lake.drop_old(db, store, now)
    assert (table.name, older) in kept.dropped
    assert (table.name, old, "it has no copy") in kept.blocked
    assert (count_rows(db, table, older), count_rows(db, table, old)) == (0, ROWS)
    assert bars_of(db, older) == expected
    assert invalid_views(db) == {}

    lose_day(db, table, old)
    wait_for(lambda: set(invalid_views(db)) == {"gold_1min", "gold_5min"}, "views that stand still")
    ensure_tables(db)
    wait_for(lambda: not invalid_views(db), "valid views")
    lake.restore(db, store, table, older)
    wait_for(lambda: bars_of(db, older) == expected, "bars of restored rows")
    assert bars_of(db, old) == 0


def bars_of(db: QuestDB, day: str) -> int:
    return sum(
        int(db.execute(f"SELECT count() FROM {view} WHERE ts IN '{day}'")[0][0]) for view in ("gold_1min", "gold_5min")
    )


def test_copies_beyond_their_own_time_are_removed(db: QuestDB, store: ObjectStore) -> None:
    table, day = TABLES["bronze_status"], "2001-01-02"
    write_rows(db, table, made_up(table, day))
    lake.back_up(db, store, table, day)
    removed = lake.expire(store, 24 * 365, now_ns())
    assert {key.split("/")[1] for key in removed} == {day}
    assert lake.read_manifest(store, table.name, day) is None
