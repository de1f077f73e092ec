"""A new native broker has a password: the stack starts as ever, and no other account of the machine gets in."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from btc_core.clock import now_ns
from btc_core.errors import ServiceError
from btc_core.names import EVENTS_TOPIC, TOPICS
from btc_core.service_settings import KafkaSettings
from btc_core.stores.kafka import read_topic
from btc_core.stores.kafka_topics import missing_topics
from streaming.publisher import Publisher

if TYPE_CHECKING:
    from btc_core.settings import Settings
    from stack.runtime import Stack

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def settings(own_stack: Stack) -> Settings:
    own_stack.up(only=("kafka",))
    return own_stack.settings


def test_the_stack_writes_and_reads_with_the_password(settings: Settings) -> None:
    publisher = Publisher(settings.kafka, "test")
    publisher.publish(EVENTS_TOPIC, "BTC/USD", b"kept", now_ns())
    publisher.flush()
    assert b"kept" in {value for value, _, _ in read_topic(settings.kafka, EVENTS_TOPIC)}


def test_neither_port_accepts_a_client_without_the_password(settings: Settings, own_stack: Stack) -> None:
    controller = f"127.0.0.1:{own_stack.layout.internal_ports().kafka_controller}"
    for bootstrap in (settings.kafka.bootstrap, controller):
        with pytest.raises(ServiceError):
            missing_topics(KafkaSettings(bootstrap=bootstrap), TOPICS, 3)
    wrong = settings.kafka.model_dump() | {"password": "another"}
    with pytest.raises(ServiceError, match=r"refuses the user 'btc' or the password"):
        missing_topics(KafkaSettings.model_validate(wrong), TOPICS, 10)


def test_the_password_is_in_no_process_list_no_log_and_no_file_for_others(settings: Settings, own_stack: Stack) -> None:
    password = settings.kafka.password.get_secret_value()
    assert len(password) == 40
    commands = [path for path in Path("/proc").glob("[0-9]*/cmdline") if password.encode() in _bytes(path)]
    assert commands == []
    assert password not in own_stack.layout.log("kafka").read_text()
    holding = [path for path in own_stack.layout.data_dir.rglob("*") if password.encode() in _bytes(path)]
    assert {path.name for path in holding} == {"stack.env", "server.properties"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in holding} == {0o600}


def _bytes(path: Path) -> bytes:
    """The content of a file; b"" for a process that has ended and for what is no file."""
    try:
        return path.read_bytes() if path.suffix != ".sock" else b""
    except OSError:
        return b""
