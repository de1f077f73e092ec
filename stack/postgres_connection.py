"""A connection to the PostgreSQL server that holds the metadata of Dagster and MLflow.

What does not belong here: starting that server (`stack/servers/postgres.py`), and statements.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import psycopg2

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812 - the driver names its class in lower case

    from btc_core.service_settings import PostgresSettings

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
            sslmode=settings.sslmode,
            sslrootcert=settings.ca_file or None,
        )
    )


def explain(settings: PostgresSettings, error: psycopg2.Error) -> str:
    """What went wrong, for people."""
    where, text = f"PostgreSQL at {settings.host}:{settings.port}", " ".join(str(error).split())
    if "password authentication failed" in text or "no password supplied" in text:
        return f"{where} refuses the user {settings.user!r} or the password (BTC_POSTGRES_USER, BTC_POSTGRES_PASSWORD): {text}"
    if "certificate" in text or "SSL" in text:
        return (
            f"the encryption of the connection to {where} failed (BTC_POSTGRES_SSLMODE, BTC_POSTGRES_CA_FILE): {text}"
        )
    if "permission denied" in text:
        return f"{where} gives the user {settings.user!r} no right: {text}"
    return f"{where} does not answer: {text}"
