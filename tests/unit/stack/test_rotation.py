"""Which processes a rotation of secrets restarts, and which secrets it knows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from btc_core.errors import InvalidInput, StackError
from btc_core.service_settings import KafkaSettings
from btc_core.settings import secret_variables
from stack.all_components import all_components
from stack.component import Context
from stack.layout import Layout
from stack.ports import free_ports
from stack.rotation import CLIENTS, VARIABLES, _new_value, rotate
from stack.runtime import Stack
from stack.server_addresses import VARIABLES as SERVERS
from stack.servers import kafka, seaweedfs

if TYPE_CHECKING:
    from pathlib import Path

WITHOUT_SECRETS = {"exchange", "alerts"}
"""Components that use none of the secrets that are rotated."""
ELSEWHERE = ("key_password", "token_", "alert", "offsite", "sentinel", "questdb_token", "admin_tokens", "read_tokens")
"""Secrets of files, services and stores outside of the stack, and the named tokens that a person has chosen."""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    layout.create("sim", free_ports())
    return layout


def test_every_component_is_a_client_or_uses_no_secret(layout: Layout) -> None:
    known = all_components(Context(layout, layout.settings(), layout.internal_ports(), features_workers=2))
    assert {*CLIENTS, *SERVERS, *WITHOUT_SECRETS} == {*known, "league"}
    for name, uses in CLIENTS.items():
        if name in known:
            assert set(known[name].waits_for) & set(SERVERS) <= uses, name


def test_every_secret_of_the_stack_itself_is_rotated() -> None:
    rotated = {variable for variables in VARIABLES.values() for variable in variables}
    own = {name for name in secret_variables() if not any(part in name for part in ELSEWHERE)}
    assert {name.upper() for name in own} <= rotated


def test_second_credentials_stand_beside_the_present_ones_until_the_next_change(layout: Layout) -> None:
    before = layout.values()
    layout.change_secrets({"BTC_REDIS_PASSWORD": "new"}, {"BTC_REDIS_PASSWORD": "old"})
    assert layout.settings().redis.password.get_secret_value() == "new"
    assert layout.second_secrets() == {"BTC_REDIS_PASSWORD": "old"}
    layout.change_secrets({"BTC_REDIS_PASSWORD": before["BTC_REDIS_PASSWORD"]}, {})
    assert (layout.values(), layout.second_secrets()) == (before, {})


def test_a_stack_that_is_down_and_an_unknown_name_are_refused_before_anything_changes(layout: Layout) -> None:
    before = layout.values()
    stack = Stack(layout.data_dir)
    with pytest.raises(StackError, match="is down; start it with `btc up`"):
        rotate(stack, ())
    with pytest.raises(InvalidInput, match="there is no secret of redis; there are those of kafka, valkey"):
        rotate(stack, ("redis",))
    assert layout.values() == before


def test_kafka_and_the_object_store_know_both_credentials_while_they_are_rotated(tmp_path: Path) -> None:
    values = {"security": "sasl_plaintext", "mechanism": "PLAIN", "user": "new", "password": "fresh"}
    kafka_settings = KafkaSettings.model_validate(values)
    second = {"BTC_KAFKA_USER": "old", "BTC_KAFKA_PASSWORD": "stale"}
    both = kafka._properties(tmp_path, 9092, 9093, kafka_settings, "page-cache", second_secrets=second)
    logins = [line for line in both.splitlines() if "PlainLoginModule" in line]
    assert len(logins) == len(("clients", "controller"))
    for line in logins:
        assert 'username="new" password="fresh" user_new="fresh" user_old="stale";' in line
    assert "stale" not in kafka._properties(tmp_path, 9092, 9093, kafka_settings, "page-cache")
    (identity,) = json.loads(seaweedfs._identities({"new": "fresh", "old": "stale"}))["identities"]
    assert [(pair["accessKey"], pair["secretKey"]) for pair in identity["credentials"]] == [
        ("new", "fresh"),
        ("old", "stale"),
    ]


def test_new_names_and_secrets_need_no_quotes_in_any_configuration() -> None:
    for variables in VARIABLES.values():
        for variable in variables:
            made = {_new_value(variable) for _ in range(3)}
            assert len(made) == 3
            assert all(value.isalnum() for value in made)
