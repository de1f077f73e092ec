"""Dagster's tables in PostgreSQL, reached over connections that stay open.

Dagster's own storages open a connection for each statement, and look for their tables each time an instance is made: about
eight connections a second while nothing runs, which take more processor time than the statements. Dagster itself
keeps the connections of its webserver open. What does not belong here: what is stored.
"""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any, Self

from dagster_postgres.storage import DagsterPostgresStorage
from dagster_postgres.utils import pg_url_from_config
from sqlalchemy import create_engine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dagster._serdes import ConfigurableClassData
    from sqlalchemy import Engine

MAX_AGE_S = 300
"""Age at which a connection is opened again: a proxy between may forget one that is idle for longer."""
KEEPALIVES = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
"""Seconds, and how many probes without an answer end a connection; without them, a dead server is noticed after hours."""
OPEN_CONNECTIONS = 1
"""Connections of a process that stay open. Its threads open more when they need them at the same time, and close them."""


class PooledStorage(DagsterPostgresStorage):
    """Dagster's storage in PostgreSQL; all instances of a process share their connections."""

    def __init__(
        self,
        postgres_url: str,
        should_autocreate_tables: bool = True,  # noqa: FBT001, FBT002 - the signature of Dagster
        inst_data: ConfigurableClassData | None = None,
    ) -> None:
        super().__init__(postgres_url, should_autocreate_tables and postgres_url not in _prepared, inst_data)
        _prepared.add(postgres_url)
        for storage in (self._run_storage, self._event_log_storage, self._schedule_storage):
            storage._engine = engine(postgres_url, os.getpid())  # noqa: SLF001 - Dagster has no setting for it

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """The storage that `dagster.yaml` describes."""
        return cls(
            postgres_url=pg_url_from_config(config_value),
            should_autocreate_tables=config_value.get("should_autocreate_tables", True),
            inst_data=inst_data,
        )


_prepared: set[str] = set()
"""The databases in which this process has found or created Dagster's tables."""


@cache
def engine(postgres_url: str, _process: int) -> Engine:
    """The connections of a process to a database. A connection that PostgreSQL has closed is replaced before it is used."""
    return create_engine(
        postgres_url,
        isolation_level="AUTOCOMMIT",
        pool_size=OPEN_CONNECTIONS,
        max_overflow=-1,
        pool_pre_ping=True,
        pool_recycle=MAX_AGE_S,
        connect_args=KEEPALIVES,
    )
