"""A server is the stack's own while its address is 127.0.0.1, and given by the user otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from btc_core.errors import StackError
from btc_core.settings import load_settings, variables
from stack.all_components import all_components
from stack.component import Context
from stack.ports import ports_from
from stack.runtime import Stack
from stack.server_addresses import CONNECTION_VARIABLES, given_servers
from stack.supervisor_conf import conf_text

if TYPE_CHECKING:
    from stack.layout import Layout


@pytest.mark.parametrize(
    ("variable", "address", "given"),
    [
        ("BTC_KAFKA_BOOTSTRAP", "broker.example:9096", ["kafka"]),
        ("BTC_KAFKA_BOOTSTRAP", "127.0.0.1:9092,127.0.0.1:9093", ["kafka"]),
        ("BTC_KAFKA_BOOTSTRAP", "127.0.0.1:19092", []),
        ("BTC_QUESTDB_HTTP_URL", "https://questdb.example", ["questdb"]),
        ("BTC_REDIS_URL", "redis://localhost:6379/0", ["valkey"]),
        ("BTC_REDIS_URL", "unix:///run/redis.sock?db=0", []),
        ("BTC_POSTGRES_HOST", "postgres.example", ["postgres"]),
        ("BTC_STORE_ENDPOINT_URL", "", ["store"]),
    ],
)
def test_an_address_decides_whose_a_server_is(
    variable: str, address: str, given: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, address)
    assert given_servers(load_settings()) == given


def test_encryption_on_the_address_of_the_own_servers_is_refused_with_what_to_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BTC_REDIS_URL", "rediss://127.0.0.1:6379/0")
    with pytest.raises(StackError, match=r"BTC_REDIS_URL is .*does not encrypt: write localhost"):
        given_servers(load_settings())


def test_a_given_server_has_no_process_and_no_port_of_the_stack_and_is_waited_for(layout: Layout) -> None:
    set_values(layout, BTC_KAFKA_BOOTSTRAP="a.example:9096,b.example:9096", BTC_STORE_ENDPOINT_URL="")
    known = all_components(Context(layout, layout.settings(), layout.internal_ports()))
    assert {name: each.given_by for name, each in known.items() if each.given_by} == {
        "kafka": "BTC_KAFKA_BOOTSTRAP",
        "store": "BTC_STORE_ENDPOINT_URL",
    }
    assert (known["kafka"].url, known["store"].url) == ("a.example:9096,b.example:9096", "Amazon S3 in us-east-1")
    assert known["kafka"].ports == known["store"].ports == ()
    assert "kafka" in known["bronze"].waits_for
    text = conf_text(layout, known.values())
    assert "[program:kafka]" not in text
    assert "[program:questdb]" in text


def test_other_ports_leave_given_servers_where_they_are(layout: Layout) -> None:
    given = {
        "BTC_QUESTDB_HTTP_URL": "https://questdb.example",
        "BTC_QUESTDB_PG_PORT": "8812",
        "BTC_QUESTDB_USER": "writer",
        "BTC_POSTGRES_HOST": "postgres.example",
        "BTC_POSTGRES_USER": "admin",
        "BTC_POSTGRES_DAGSTER_DB": "dagster_of_ours",
        "BTC_POSTGRES_MLFLOW_DB": "mlflow_of_ours",
        "BTC_STORE_ENDPOINT_URL": "https://store.example",
        "BTC_STORE_LAKE_BUCKET": "lake-of-ours",
    }
    set_values(layout, **given)
    layout.change_ports(ports_from(30_000))
    assert given.items() <= layout.values().items()
    assert layout.settings().kafka.bootstrap == "127.0.0.1:30002"
    saved = {
        "BTC_QUESTDB_HTTP_URL": "http://questdb:9000",
        "BTC_API_THREADS": "7",
        "BTC_STORE_LAKE_BUCKET": "data-lake",
    }
    layout.adopt({**saved, "BTC_ALERT_RULES": "/home/lost/alerts.toml"})
    assert given.items() <= layout.values().items()
    assert "BTC_ALERT_RULES" not in layout.values(), "a file of the lost machine"
    assert layout.settings().api.threads == 7


def test_a_backup_brings_its_data_settings_and_not_how_its_servers_were_reached(layout: Layout) -> None:
    saved = {
        "BTC_KAFKA_BOOTSTRAP": "broker.example:9096",
        "BTC_KAFKA_SECURITY": "sasl_ssl",
        "BTC_KAFKA_USER": "client",
        "BTC_KAFKA_PARTITIONS": "8",
        "BTC_REDIS_URL": "redis://mymaster/0",
        "BTC_REDIS_SENTINELS": "sentinel.example:26379",
        "BTC_STORE_ACCESS_KEY": "",
        "BTC_POSTGRES_SSLMODE": "verify-full",
    }
    layout.adopt(saved)
    settings = layout.settings()
    assert given_servers(settings) == []
    assert (settings.kafka.security, settings.kafka.partitions, settings.store.access_key) == ("plaintext", 8, "btc")


def test_the_settings_of_connections_exist_and_hold_no_secret() -> None:
    known = {name.upper(): is_secret for name, is_secret in variables().items()}
    assert {known[name] for name in CONNECTION_VARIABLES} == {False}


def test_a_given_server_is_neither_restarted_nor_stopped(layout: Layout) -> None:
    set_values(layout, BTC_REDIS_URL="redis://redis.example:6379/0")
    stack = Stack(layout.data_dir)
    for action in (stack.restart, stack.stop_component):
        with pytest.raises(
            StackError, match=r"valkey is an external server at redis://redis.example:6379/0 .BTC_REDIS_URL"
        ):
            action("valkey")


def set_values(layout: Layout, **values: str) -> None:
    """Change the settings of a stack as a person would, in its env file."""
    layout._write(layout.values() | values)
