"""A Valkey that encrypts and has users: ours may do what the project does and nothing else."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from btc_core.clock import now_ns
from btc_core.errors import ServiceError
from btc_core.league.states import EntryState, read_states, write_states
from btc_core.service_settings import RedisSettings
from btc_core.stores import origin
from btc_core.stores.redis_connection import connect, explain
from btc_core.stores.redis_rows import columns_key, feature_key, forecast_key, replace, update_channel
from stack.ports import free_ports
from stack.runtime import Stack
from stack.servers import valkey
from tests.certificates import Authority
from tests.tls_proxy import TlsProxy
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.settings import Settings

pytestmark = pytest.mark.service

PASSWORD = "not-in-any-message"
RIGHTS = (
    "~feature:*", "~forecast:*", "~columns:*", "~league:entries", "~origin", "~stack:probe",
    "&feature_update:*", "&forecast_update:*", "&columns_update:*",
    "+@read", "+@write", "+@connection", "+@transaction", "+@pubsub", "-@dangerous",
)  # fmt: skip
"""The rights in docs/how-to/managed-services.md."""


@pytest.fixture(scope="module")
def authority() -> Iterator[Authority]:
    folder = Path(tempfile.mkdtemp(prefix="btc-test-"))
    yield Authority(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def guarded(authority: Authority) -> Iterator[Settings]:
    """The Valkey of the native stack with a user of limited rights, behind a TLS endpoint that asks for certificates."""
    folder = Path(tempfile.mkdtemp(prefix="btc-test-"))
    client = authority.certificate("client")
    stack = Stack(folder)
    ports = free_ports()
    stack.create("sim", ports)
    user = {"user": f"btc on >{PASSWORD} {' '.join(RIGHTS)}"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(valkey, "SERVER_SETTINGS", valkey.SERVER_SETTINGS | user)
        try:
            stack.up(only=("valkey",))
            # The packaged Valkey is built without TLS, so a proxy encrypts.
            with TlsProxy(authority, ports["redis"], asks_for_certificate=True) as proxy:
                values = {"url": f"rediss://localhost:{proxy.port}/0", "user": "btc", "password": PASSWORD,
                          "ca_file": str(authority.file), "cert_file": str(client.cert), "key_file": str(client.key)}  # fmt: skip
                yield stack.settings.model_copy(update={"redis": RedisSettings.model_validate(values)})
        finally:
            stack.down()
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(stack.layout.run_dir, ignore_errors=True)


def test_the_user_can_do_what_the_project_does(guarded: Settings) -> None:
    origin.claim(guarded, origin.NEWEST_ROWS)
    assert origin.check(guarded, origin.NEWEST_ROWS) == []
    with connect(guarded.redis) as client, closing(client.pubsub(ignore_subscribe_messages=True)) as listener:
        for key in (feature_key("BTC/USD"), forecast_key("BTC/USD"), columns_key("BTC/USD")):
            listener.subscribe(update_channel(key))
            replace(client, {key: {"ts_event_ns": now_ns(), "bid": 1.5}}, ttl_s=60)
            assert client.hget(key, "bid") == b"1.5"
        write_states(client, [EntryState("mine", "1", "running")])
        assert [state.name for state in read_states(client) or []] == ["mine"]
        assert client.set(valkey.PROBE_KEY, "", ex=valkey.PROBE_TTL_S)
        wait_for(lambda: listener.get_message(timeout=1), "the announcement of a row")


def test_the_user_can_do_nothing_else(guarded: Settings) -> None:
    with connect(guarded.redis) as client:
        with pytest.raises(redis.exceptions.NoPermissionError) as caught:
            client.set("something-else", "1")
        assert "gives the user 'btc' no right" in explain(guarded.redis, caught.value)
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.config_get("*")
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.flushall()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"password": "wrong"}, r"refuses the user 'btc' or the password"),
        ({"user": "nobody"}, r"refuses the user 'nobody' or the password"),
        ({"ca_file": ""}, r"encrypted connection .* an authority that this machine knows .BTC_REDIS_CA_FILE"),
        ({"cert_file": "", "key_file": ""}, r"Redis at rediss://localhost"),
    ],
)
def test_what_is_wrong_is_named_without_the_secret(guarded: Settings, changes: dict[str, str], words: str) -> None:
    values = guarded.redis.model_dump() | changes
    changed = guarded.model_copy(update={"redis": RedisSettings.model_validate(values)})
    with pytest.raises(ServiceError, match=words) as caught:
        origin.claim(changed, origin.NEWEST_ROWS)
    assert PASSWORD not in str(caught.value) + repr(changed)
