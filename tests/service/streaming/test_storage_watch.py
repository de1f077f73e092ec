"""A table that QuestDB has suspended: it takes rows and shows none, is noticed within a minute, and loses nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from prometheus_client import REGISTRY

import streaming.storage_watch
from btc_core.clock import NS_PER_S, now_ns
from btc_core.errors import QuestDBError
from btc_core.stores.questdb import QuestDB, append, applied
from btc_core.stores.questdb_wal import WalState, wal_states
from btc_core.tables.catalogue import BRONZE_STATUS
from serving.storage_problems import StorageProblems
from streaming.storage_watch import StorageWatch
from tests.real_alerts import Looks
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from btc_core.settings import Settings
    from stack.runtime import Stack

TABLE = BRONZE_STATUS.name
HELD = 301
"""Transactions that a suspended table holds back, more than the alert WalBehind allows."""


@pytest.fixture(scope="module")
def settings(own_servers: Callable[..., Settings]) -> Iterator[Settings]:
    """A QuestDB that lets tables be suspended by hand, which it allows only to its developers."""
    patch = pytest.MonkeyPatch()
    patch.setenv("QDB_DEV_MODE_ENABLED", "true")
    yield own_servers("questdb")
    patch.undo()


@pytest.fixture
def db(settings: Settings) -> Iterator[QuestDB]:
    with QuestDB(settings.questdb) as client:
        yield client
        for state in wal_states(client.execute):
            if state.suspended:
                kind = "MATERIALIZED VIEW" if state.is_view else "TABLE"
                client.execute(f"ALTER {kind} {state.table} RESUME WAL")


@pytest.fixture
def watch(settings: Settings) -> Iterator[StorageWatch]:
    watching = StorageWatch(settings)
    with watching._db:
        yield watching


def write_row(db: QuestDB) -> int:
    """Write a row that no other test has; returns its time."""
    at_ns = now_ns()
    kinds: dict[str, pa.DataType] = {"TIMESTAMP_NS": pa.timestamp("ns", "UTC"), "SYMBOL": pa.string(),
                                     "VARCHAR": pa.string()}  # fmt: skip
    values = {
        column.name: pa.array([at_ns if column.type == "TIMESTAMP_NS" else 0]).cast(kinds.get(column.type, pa.int64()))
        for column in BRONZE_STATUS.columns
    }
    append(db, BRONZE_STATUS, pa.table(values))
    return at_ns


def stored(db: QuestDB, at_ns: int) -> int:
    return int(db.execute(f"SELECT count() FROM {TABLE} WHERE ts_event = cast({at_ns} AS TIMESTAMP_NS)")[0][0])


def state_of(db: QuestDB) -> WalState:
    return next(state for state in wal_states(db.execute) if state.table == TABLE)


def gauge(name: str) -> float | None:
    return REGISTRY.get_sample_value(name, {"table": TABLE})


@pytest.mark.causes("TableSuspended", "WalBehind")
def test_a_suspended_table_is_noticed_and_resumed_without_losing_a_row(
    db: QuestDB, watch: StorageWatch, settings: Settings, own_stack: Stack
) -> None:
    first_ns = write_row(db)
    wait_for(lambda: stored(db, first_ns), "the first row")
    db.execute(f"ALTER TABLE {TABLE} SUSPEND WAL")
    held_ns = [write_row(db) for _ in range(HELD)]
    assert not any(stored(db, at_ns) for at_ns in held_ns[:3]), "QuestDB has acknowledged them and shows none"
    assert state_of(db).suspended
    with pytest.raises(QuestDBError, match=f"QuestDB has suspended {TABLE}"):
        applied(db, TABLE)

    (status,) = own_stack.status(("questdb",))
    assert status.state == "degraded"
    assert status.reason.startswith(
        f"QuestDB has suspended {TABLE}: it acknowledges rows and does not show them, {HELD} transactions wait"
    )

    told = StorageProblems(settings)
    with told._db:
        told.look()
        assert [problem.partition(":")[0] for problem in told()] == [f"QuestDB has suspended {TABLE}"]

    resumes = gauge("btc_questdb_resumes_total") or 0.0
    watch.look(time.monotonic())
    assert gauge("btc_questdb_suspended") == 1.0
    assert gauge("btc_questdb_wal_lag_transactions") == HELD
    assert gauge("btc_questdb_resumes_total") == resumes + 1
    looks = Looks()
    assert looks.find("TableSuspended", TABLE)
    assert looks.find("WalBehind", f"{HELD} transactions of {TABLE}")

    wait_for(lambda: all(stored(db, at_ns) for at_ns in held_ns), "every row that was held back")
    watch.look(time.monotonic())
    assert gauge("btc_questdb_suspended") == 0.0
    assert gauge("btc_questdb_wal_lag_transactions") == 0.0
    assert own_stack.status(("questdb",))[0].state == "healthy"


def test_a_suspended_view_is_resumed(db: QuestDB, watch: StorageWatch) -> None:
    db.execute("ALTER MATERIALIZED VIEW gold_1min SUSPEND WAL")
    assert [state.table for state in wal_states(db.execute) if state.suspended] == ["gold_1min"]
    watch.look(time.monotonic())
    wait_for(lambda: not any(state.suspended for state in wal_states(db.execute)), "no suspended view")


def test_the_watch_of_the_bronze_worker_sees_it_within_a_minute(
    db: QuestDB, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming.storage_watch, "PERIOD_S", 1.0)
    before_s = now_ns() / NS_PER_S
    with StorageWatch(settings):
        db.execute(f"ALTER TABLE {TABLE} SUSPEND WAL")
        at_ns = write_row(db)
        wait_for(lambda: stored(db, at_ns), "the row, without anybody's help", patience_s=60.0)
    last_s = REGISTRY.get_sample_value("btc_loop_timestamp_seconds", {"worker": "bronze_storage"})
    assert last_s is not None
    assert before_s <= last_s <= now_ns() / NS_PER_S


def test_without_questdb_the_gauges_say_nothing(watch: StorageWatch, settings: Settings) -> None:
    watch.look(time.monotonic())
    assert gauge("btc_questdb_suspended") == 0.0
    away = settings.questdb.model_copy(update={"http_url": "http://127.0.0.1:1"})
    with QuestDB(away) as watch._db:
        watch.look(time.monotonic())
    assert gauge("btc_questdb_suspended") is None
