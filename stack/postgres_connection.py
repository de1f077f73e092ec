"""A connection to the PostgreSQL server that holds the metadata of Dagster and MLflow.

What does not belong here: starting that server (`stack/servers/postgres.py`), and statements.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import psycopg2

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812 - the driver names its class in lower case

    from btc_core.settings import PostgresSettings

CONNECT_TIMEOUT_S = 3


def connect(settings: PostgresSettings, database: str) -> closing[Connection]:
    """Connect to a database for the length of a `with` block."""
    return closing(
        psycopg2.connect(
            host=settings.host,
            port=settings.port,
            user=settings.user,
            password=settings.password.get_secret_value(),
            dbname=database,
            connect_timeout=CONNECT_TIMEOUT_S,
        )
    )
