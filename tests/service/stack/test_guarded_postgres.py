"""PostgreSQL behind a TLS endpoint: our own connections, and those of Dagster and MLflow, which read libpq's variables."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

from btc_core.service_settings import PostgresSettings
from stack.postgres_connection import connect, explain
from tests.certificates import Authority
from tests.tls_proxy import TlsProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from btc_core.settings import Settings

pytestmark = pytest.mark.service

BY_SQLALCHEMY = """
import sys, sqlalchemy
with sqlalchemy.create_engine(sys.argv[1]).connect() as connection:
    print(connection.execute(sqlalchemy.text("select 7")).scalar())
"""


@pytest.fixture(scope="module")
def authority() -> Iterator[Authority]:
    folder = Path(tempfile.mkdtemp(prefix="btc-test-"))
    yield Authority(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def proxy(servers: Callable[..., Settings], authority: Authority) -> Iterator[TlsProxy]:
    """The packaged PostgreSQL is built without TLS, so a proxy encrypts."""
    with TlsProxy(authority, servers("postgres").postgres.port, postgres=True) as running:
        yield running


@pytest.fixture
def guarded(servers: Callable[..., Settings], authority: Authority, proxy: TlsProxy) -> PostgresSettings:
    plain = servers("postgres").postgres
    return changed(plain, host="localhost", port=proxy.port, sslmode="verify-full", ca_file=str(authority.file))


def changed(settings: PostgresSettings, **changes: Any) -> PostgresSettings:
    return PostgresSettings.model_validate(settings.model_dump() | changes)


def test_our_connections_are_encrypted_and_checked(guarded: PostgresSettings, proxy: TlsProxy) -> None:
    with connect(guarded, guarded.dagster_db) as connection, connection.cursor() as cursor:
        cursor.execute("select 7")
        assert cursor.fetchone() == (7,)
    assert b"select 7" in proxy.received, "it went through the TLS endpoint"


def test_programs_that_connect_by_themselves_are_encrypted_and_checked(
    guarded: PostgresSettings, proxy: TlsProxy, tmp_path: Path
) -> None:
    url = f"postgresql+psycopg2://{guarded.user}@{guarded.host}:{guarded.port}/{guarded.mlflow_db}"

    def run(settings: PostgresSettings) -> subprocess.CompletedProcess[str]:
        secret = {"PGPASSWORD": settings.password.get_secret_value()}
        environment = os.environ | secret | settings.tls_environment
        command = [sys.executable, "-c", BY_SQLALCHEMY, url]
        return subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=300)

    assert run(guarded).stdout.strip() == "7"
    assert b"select 7" in proxy.received
    other = changed(guarded, ca_file=str(Authority(tmp_path, "another authority").file))
    assert "certificate verify failed" in run(other).stderr


def test_what_is_wrong_is_named_without_the_secret(guarded: PostgresSettings, tmp_path: Path) -> None:
    other = Authority(tmp_path, "another authority")
    wrong: dict[str, dict[str, Any]] = {
        "refuses the user 'btc' or the password": {"password": "not this one"},
        "the encryption of the connection to PostgreSQL at localhost": {"ca_file": str(other.file)},
        "does not answer": {"port": 1},
    }
    for words, changes in wrong.items():
        settings = changed(guarded, **changes)
        with pytest.raises(psycopg2.OperationalError) as caught, connect(settings, "postgres"):
            pass
        assert words in explain(settings, caught.value)
        assert "not this one" not in explain(settings, caught.value) + repr(settings)
