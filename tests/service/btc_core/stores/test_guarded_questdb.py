"""QuestDB behind a TLS endpoint: reads and writes over it, what is wrong is named, and the reader only reads."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2
import pyarrow as pa
import pytest

from btc_core.clock import now_ns
from btc_core.errors import QuestDBError, ServiceError
from btc_core.service_settings import QuestdbSettings
from btc_core.stores.questdb import QuestDB, wait_until_applied
from tests.certificates import Authority
from tests.tls_proxy import TlsProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from btc_core.settings import Settings

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def authority() -> Iterator[Authority]:
    folder = Path(tempfile.mkdtemp(prefix="btc-test-"))
    yield Authority(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def plain(servers: Callable[..., Settings]) -> QuestdbSettings:
    return servers("questdb").questdb


@pytest.fixture(scope="module")
def guarded(plain: QuestdbSettings, authority: Authority) -> Iterator[QuestdbSettings]:
    port = int(plain.http_url.rpartition(":")[2])
    with TlsProxy(authority, port) as proxy:
        yield changed(plain, http_url=f"https://localhost:{proxy.port}", ca_file=str(authority.file))


def changed(settings: QuestdbSettings, **changes: Any) -> QuestdbSettings:
    return QuestdbSettings.model_validate(settings.model_dump() | changes)


def test_rows_are_written_and_read_over_tls(guarded: QuestdbSettings) -> None:
    name = f"guarded_{now_ns()}"
    with QuestDB(guarded) as db:
        db.execute(f"CREATE TABLE {name} (price DOUBLE, ts_event TIMESTAMP) TIMESTAMP(ts_event) PARTITION BY DAY WAL")
        db.write(name, pa.table({"price": [1.5], "ts_event": pa.array([now_ns()], pa.timestamp("ns"))}))
        wait_until_applied(db, name)
        assert db.query(f"SELECT price FROM {name}")["price"].to_pylist() == [1.5]
        db.execute(f"DROP TABLE {name}")


def test_a_wrong_password_and_an_unknown_authority_are_named(guarded: QuestdbSettings, tmp_path: Path) -> None:
    wrong = changed(guarded, password="not this one")
    with QuestDB(wrong) as db, pytest.raises(QuestDBError, match=r"refuses the user 'btc' or the password") as caught:
        db.execute("select 1")
    assert "not this one" not in str(caught.value) + repr(wrong)
    other = changed(guarded, ca_file=str(Authority(tmp_path, "another authority").file))
    rows = pa.table({"price": [1.5], "ts_event": pa.array([now_ns()], pa.timestamp("ns"))})
    with QuestDB(other) as db:
        with pytest.raises(ServiceError, match=r"encrypted connection .*failed.*BTC_QUESTDB_CA_FILE"):
            db.execute("select 1")
        with pytest.raises(QuestDBError, match="did not take 1 rows"):
            db.write("guarded_rows", rows)


def test_a_token_is_sent_in_place_of_user_and_password(plain: QuestdbSettings, authority: Authority) -> None:
    """The packaged QuestDB knows no tokens, so what is sent is read at the TLS endpoint."""
    with TlsProxy(authority, int(plain.http_url.rpartition(":")[2])) as proxy:
        by_token = changed(
            plain, ca_file=str(authority.file), http_url=f"https://localhost:{proxy.port}", token="a;token"
        )
        rows = pa.table({"price": [1.5], "ts_event": pa.array([now_ns()], pa.timestamp("ns"))})
        with QuestDB(by_token) as db:
            with pytest.raises(QuestDBError, match=r"refuses the token .BTC_QUESTDB_TOKEN"):
                db.execute("select 1")
            with pytest.raises(QuestDBError, match="did not take 1 rows"):
                db.write("guarded_rows", rows)
        sent = bytes(proxy.received).lower()
        assert sent.count(b"authorization: bearer a;token") == 2
        assert b"authorization: basic" not in sent


def test_the_reader_reads_and_changes_nothing(plain: QuestdbSettings) -> None:
    name = f"guarded_{now_ns()}"
    with QuestDB(plain) as db:
        db.execute(f"CREATE TABLE {name} (price DOUBLE, ts_event TIMESTAMP) TIMESTAMP(ts_event) PARTITION BY DAY WAL")
    connection = psycopg2.connect(
        host="127.0.0.1",
        port=plain.pg_port,
        user=plain.reader_user,
        password=plain.reader_password.get_secret_value(),
        dbname="qdb",
    )
    with closing(connection) as reader:
        reader.autocommit = True
        with reader.cursor() as cursor:
            cursor.execute(f"SELECT count() FROM {name}")
            assert cursor.fetchone() == (0,)
            for statement in (f"INSERT INTO {name} VALUES (1.5, now())", f"DROP TABLE {name}"):
                with pytest.raises(psycopg2.Error, match=r"(?i)permission|read.only|denied|forbidden"):
                    cursor.execute(statement)
