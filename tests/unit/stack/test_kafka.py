"""Kafka's configuration, and what its checks say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from btc_core.errors import StackError
from btc_core.service_settings import KafkaSettings
from btc_core.settings import DiskSettings
from stack.health_checks import problem_of
from stack.servers import kafka
from stack.servers.kafka import _check_partitions, _held_back, _properties

if TYPE_CHECKING:
    from pathlib import Path

    from stack.layout import Durability


@pytest.mark.parametrize(("mode", "flushes"), [("page-cache", False), ("fsync", True)])
def test_an_append_waits_for_the_disk_only_with_fsync(tmp_path: Path, mode: Durability, *, flushes: bool) -> None:
    lines = _properties(tmp_path, 9092, 9093, KafkaSettings(), mode).splitlines()
    assert ("log.flush.interval.messages=1" in lines) == flushes


def test_partitions_that_were_set_aside_are_named(tmp_path: Path) -> None:
    (tmp_path / "market.events-0").mkdir()
    _check_partitions(tmp_path)
    (tmp_path / "market.events-1.0f3a-stray").mkdir()
    assert problem_of(lambda: _check_partitions(tmp_path)).startswith("Kafka has set aside 1 partitions")


def test_a_kafka_that_waits_for_room_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = DiskSettings(path="/data")
    monkeypatch.setattr(kafka, "free_bytes", lambda _path: 599_999_999)
    assert _held_back(disk) == (
        "Kafka is held back because only 0.60 GB are free at /data: it starts by itself once 0.60 GB are free"
    )
    monkeypatch.setattr(kafka, "free_bytes", lambda _path: 600_000_000)
    assert not _held_back(disk)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"security": "sasl_ssl"}, "has no TLS, no SCRAM"),
        ({"mechanism": "SCRAM-SHA-256"}, "has no TLS, no SCRAM"),
        ({"password": 'a"b'}, "letters and digits"),
        ({"user": "a b"}, "letters and digits"),
    ],
)
def test_a_broker_that_the_stack_cannot_start_is_refused(tmp_path: Path, changes: dict[str, str], words: str) -> None:
    values = {"security": "sasl_plaintext", "mechanism": "PLAIN", "user": "btc", "password": "word"}
    with pytest.raises(StackError, match=words):
        _properties(tmp_path, 9092, 9093, KafkaSettings.model_validate(values | changes), "page-cache")
