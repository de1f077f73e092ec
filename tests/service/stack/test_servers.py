"""The native servers, each started by the stack itself."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import boto3
import httpx
import psutil
import psycopg2
import pytest
import redis
from confluent_kafka.admin import AdminClient

from btc_core.stores.kafka_connection import connection
from stack.prepare import name_console

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.settings import Settings
    from stack.runtime import Stack


def test_questdb_refuses_clients_without_a_password(servers: Callable[..., Settings]) -> None:
    settings = servers("questdb").questdb
    query = {"query": "select 1"}
    assert httpx.get(f"{settings.http_url}/exec", params=query).status_code == httpx.codes.UNAUTHORIZED
    with_password = (settings.user, settings.password.get_secret_value())
    assert httpx.get(f"{settings.http_url}/exec", params=query, auth=with_password).json()["dataset"] == [[1]]
    with pytest.raises(psycopg2.OperationalError):
        psycopg2.connect(host="127.0.0.1", port=settings.pg_port, user="admin", password="quest", dbname="qdb")


def test_the_console_of_questdb_has_a_name_which_a_person_may_change(servers: Callable[..., Settings]) -> None:
    settings = servers("questdb")
    password = (settings.questdb.user, settings.questdb.password.get_secret_value())
    with httpx.Client(base_url=settings.questdb.http_url, auth=password) as client:
        found = client.get("/settings").json()
        assert found["preferences"]["instance_name"] == "btc-forecast, SIMULATED"
        assert (found["preferences"]["instance_type"], found["preferences"]["instance_rgb"]) == ("testing", "b")
        theirs = found["preferences"] | {"instance_name": "mine"}
        client.put("/settings", params={"version": found["preferences.version"]}, json=theirs).raise_for_status()
        name_console(settings)
        assert client.get("/settings").json()["preferences"] == theirs


def test_valkey_refuses_clients_without_a_password_and_also_serves_its_socket(
    servers: Callable[..., Settings], stack_of_session: Stack
) -> None:
    settings = servers("valkey").redis
    with redis.Redis.from_url(settings.url) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    password = settings.password.get_secret_value()
    for url in (settings.url, f"unix://{stack_of_session.layout.redis_socket}?db=0"):
        with redis.Redis.from_url(url, password=password) as client:
            assert client.ping()


def test_kafka_creates_no_topic_for_a_misspelled_name(servers: Callable[..., Settings]) -> None:
    admin = AdminClient(connection(servers("kafka").kafka, "test"))
    found = admin.list_topics("a.misspelled.topic", timeout=10).topics["a.misspelled.topic"]
    assert found.error is not None
    assert "a.misspelled.topic" not in admin.list_topics(timeout=10).topics


def test_postgres_has_the_databases_and_asks_for_the_password(servers: Callable[..., Settings]) -> None:
    settings = servers("postgres").postgres
    for name in (settings.dagster_db, settings.mlflow_db):
        psycopg2.connect(
            host=settings.host,
            port=settings.port,
            user=settings.user,
            password=settings.password.get_secret_value(),
            dbname=name,
        ).close()
    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(host=settings.host, port=settings.port, user=settings.user, password="x", dbname="postgres")


def test_an_object_survives_a_kill_of_the_store(servers: Callable[..., Settings], stack_of_session: Stack) -> None:
    settings = servers("store").store
    client = boto3.client(
        "s3",
        endpoint_url=settings.endpoint_url,
        aws_access_key_id=settings.access_key,
        aws_secret_access_key=settings.secret_key.get_secret_value(),
        region_name="us-east-1",
    )
    names = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    assert names >= {settings.mlflow_bucket, settings.lake_bucket}
    client.put_object(Bucket=settings.lake_bucket, Key="a/b", Body=b"kept")
    assert httpx.get(f"{settings.endpoint_url}/{settings.lake_bucket}/a/b").status_code == httpx.codes.FORBIDDEN
    (store,) = [each for each in stack_of_session.status() if each.name == "store"]
    psutil.Process(store.pid).kill()
    stack_of_session.up(only=("store",))
    assert client.get_object(Bucket=settings.lake_bucket, Key="a/b")["Body"].read() == b"kept"
    client.close()


def test_no_secret_is_in_a_command_line_or_in_a_file_others_can_read(
    servers: Callable[..., Settings], stack_of_session: Stack
) -> None:
    servers("questdb", "valkey", "postgres", "store")
    values = stack_of_session.layout.values()
    secrets = [value for name, value in values.items() if name.endswith(("PASSWORD", "SECRET_KEY", "TOKEN"))]
    for each in stack_of_session.status():
        if each.pid:
            line = " ".join(psutil.Process(each.pid).cmdline())
            assert not any(secret in line for secret in secrets)
    layout = stack_of_session.layout
    for path in (layout.env_file, layout.supervisor_conf, layout.data_dir / "valkey" / "valkey.conf"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for log in layout.logs_dir.glob("*.log"):
        text = log.read_text(errors="replace")
        assert not any(secret in text for secret in secrets)
