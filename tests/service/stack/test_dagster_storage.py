"""Dagster keeps its connections to PostgreSQL, and survives the end of one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from dagster import DagsterInstance
from dagster._core.storage.runs.sql_run_storage import SqlRunStorage

from btc_assets import pooled_storage
from stack.postgres_connection import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.service_settings import PostgresSettings
    from stack.runtime import Stack

pytestmark = pytest.mark.service

BACKENDS = "select pid from pg_stat_activity where datname = %s and pid <> pg_backend_pid()"
LOOKS = 20


@pytest.fixture
def instance(own_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[DagsterInstance]:
    own_stack.up(only=("postgres",))
    code_server = own_stack.components()["dagster-code"]
    code_server.before_start()
    for name, value in code_server.env.items():
        monkeypatch.setenv(name, value)
    with DagsterInstance.get() as instance:
        yield instance
    pooled_storage.engine.cache_clear()


def backends(settings: PostgresSettings) -> set[int]:
    with connect(settings, settings.dagster_db) as connection, connection.cursor() as cursor:
        cursor.execute(BACKENDS, (settings.dagster_db,))
        return {pid for (pid,) in cursor.fetchall()}


def look(instance: DagsterInstance) -> None:
    """Ask each of the three storages."""
    assert instance.get_runs() == []
    assert instance.event_log_storage.get_maximum_record_id() is None
    assert list(instance.all_instigator_state()) == []


def test_statements_of_all_instances_share_a_connection(instance: DagsterInstance, own_stack: Stack) -> None:
    look(instance)
    before = backends(own_stack.settings.postgres)
    assert len(before) == pooled_storage.OPEN_CONNECTIONS
    for _ in range(LOOKS):
        look(instance)
        with DagsterInstance.from_ref(instance.get_ref()) as another:
            look(another)
    assert backends(own_stack.settings.postgres) == before


def test_a_restart_of_postgres_is_survived(instance: DagsterInstance, own_stack: Stack) -> None:
    look(instance)
    before = backends(own_stack.settings.postgres)
    own_stack.restart("postgres")
    look(instance)
    assert backends(own_stack.settings.postgres).isdisjoint(before)


def test_the_webserver_gets_connections_that_end_long_statements(instance: DagsterInstance) -> None:
    timeout_ms = 1_234
    instance.optimize_for_webserver(statement_timeout=timeout_ms, pool_recycle=60, max_overflow=5)
    look(instance)
    assert isinstance(instance.run_storage, SqlRunStorage)
    with instance.run_storage.connect() as connection:
        assert connection.exec_driver_sql("show statement_timeout").scalar() == f"{timeout_ms}ms"


def test_a_process_that_was_forked_opens_connections_of_its_own() -> None:
    url = "postgresql://nobody@127.0.0.1:1/nothing"
    assert pooled_storage.engine(url, os.getpid()) is pooled_storage.engine(url, os.getpid())
    assert pooled_storage.engine(url, os.getpid()) is not pooled_storage.engine(url, os.getpid() + 1)
