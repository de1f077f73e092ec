"""`btc up` with external servers: it starts none of them, waits for them, says so, and leaves them running."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
from typer.testing import CliRunner

from btc_cli.app import app
from btc_cli.restore_all import restore_all
from btc_core.errors import InvalidInput, StackError
from btc_core.stores.redis_connection import connect
from btc_core.stores.s3 import ObjectStore
from stack import given_servers

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.settings import Settings
    from stack.runtime import Stack

pytestmark = pytest.mark.service


@pytest.fixture
def outside(servers: Callable[..., Settings]) -> Settings:
    """Servers of another stack, which stand for managed services."""
    return servers("valkey", "store")


@pytest.fixture
def stack(own_stack: Stack, outside: Settings) -> Stack:
    """A stack that gets its Redis and its object store from outside."""
    values = own_stack.layout.values() | {
        "BTC_REDIS_URL": outside.redis.url.replace("127.0.0.1", "localhost"),
        "BTC_REDIS_PASSWORD": outside.redis.password.get_secret_value(),
        "BTC_STORE_ENDPOINT_URL": outside.store.endpoint_url.replace("127.0.0.1", "localhost"),
        "BTC_STORE_SECRET_KEY": outside.store.secret_key.get_secret_value(),
    }
    own_stack.layout._write(values)
    return own_stack


def btc(stack: Stack, *arguments: str) -> str:
    done = CliRunner().invoke(app, [*arguments, "--data-dir", str(stack.layout.data_dir)], env={"COLUMNS": "120"})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return done.output


def test_a_lost_system_is_looked_for_in_the_store_that_was_given(stack: Stack) -> None:
    with pytest.raises(InvalidInput, match=r"the object store at http://localhost:\d+ has no backup of a system"):
        restore_all(stack.layout.data_dir, None, "", None)


def test_the_stack_comes_up_on_servers_that_it_has_not_started(stack: Stack, outside: Settings) -> None:
    said = btc(stack, "up", "--only", "mlflow,api")
    settings = stack.settings
    assert (
        f"valkey          is an external server at {settings.redis.url} and is not started; waiting for its answer"
        in said
    )
    assert "The settings name external servers" in said
    of = {status.name: status for status in stack.status(("valkey", "store", "postgres", "mlflow", "api"))}
    assert {name: (status.state, status.given) for name, status in of.items()} == {
        "valkey": ("healthy", True),
        "store": ("healthy", True),
        "postgres": ("healthy", False),
        "mlflow": ("healthy", False),
        "api": ("healthy", False),
    }
    assert not of["valkey"].pid
    assert not (stack.layout.data_dir / "store").exists()
    assert httpx.get(f"http://{settings.api.host}:{settings.api.port}/healthz").status_code == httpx.codes.OK
    assert "ok  valkey" in btc(stack, "doctor")
    with ObjectStore(settings.store) as store:
        assert ".stack/probe" in store.keys(".stack/")

    btc(stack, "down")
    with connect(outside.redis) as client:
        assert client.ping(), "the server that was given still runs"
    assert stack.status(("valkey",))[0].state == "healthy"


def test_a_stack_may_have_none_of_the_servers_of_its_own(stack: Stack, servers: Callable[..., Settings]) -> None:
    outside = servers("kafka", "questdb", "postgres", "valkey", "store")
    before = stack.layout.values()
    given = {
        "BTC_KAFKA_SECURITY": outside.kafka.security,
        "BTC_KAFKA_MECHANISM": outside.kafka.mechanism,
        "BTC_KAFKA_USER": outside.kafka.user,
        "BTC_KAFKA_PASSWORD": outside.kafka.password.get_secret_value(),
        "BTC_KAFKA_BOOTSTRAP": outside.kafka.bootstrap.replace("127.0.0.1", "localhost"),
        "BTC_QUESTDB_HTTP_URL": outside.questdb.http_url.replace("127.0.0.1", "localhost"),
        "BTC_QUESTDB_PASSWORD": outside.questdb.password.get_secret_value(),
        "BTC_POSTGRES_HOST": "localhost",
        "BTC_POSTGRES_PORT": str(outside.postgres.port),
        "BTC_POSTGRES_PASSWORD": outside.postgres.password.get_secret_value(),
    }
    stack.layout._write(before | given)
    try:
        stack.up(only=tuple(given_servers.SERVERS))
        found = stack.status(tuple(given_servers.SERVERS))
        assert [(each.state, each.given, each.pid, each.reason) for each in found] == [("healthy", True, 0, "")] * 5
    finally:
        stack.layout._write(before)


def test_a_given_server_that_does_not_answer_is_named_with_its_setting(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(given_servers, "WAIT_S", 1.0)
    monkeypatch.setenv("BTC_REDIS_URL", "redis://localhost:1/0")
    with pytest.raises(
        StackError,
        match=r"valkey .*not usable after 1 s: Redis at redis://localhost:1/0 does not answer.*BTC_REDIS_URL",
    ):
        stack.up(only=("valkey",))
    monkeypatch.undo()
    monkeypatch.setattr(given_servers, "WAIT_S", 1.0)
    monkeypatch.setenv("BTC_REDIS_PASSWORD", "not this one")
    with pytest.raises(StackError, match=r"refuses the user 'default' or the password .BTC_REDIS_USER"):
        stack.up(only=("valkey",))
