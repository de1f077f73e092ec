"""The loop of every worker on a real Kafka: tables that are away, members that come, messages that Kafka refuses."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from btc_core.clock import NS_PER_S, now_ns
from btc_core.errors import ServiceError
from btc_core.names import EVENTS_TOPIC, GAPS_TOPIC
from btc_core.stores.kafka import kept_since, read_topic
from streaming import worker
from streaming.publish import Publisher
from streaming.worker import Role, Stateless, Worker
from tests.service.workers import Running
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.settings import Settings
    from streaming.worker import Record

MESSAGES = 1_000
DAY_NS = 86_400 * NS_PER_S


@pytest.fixture(scope="module")
def kafka(servers: Callable[..., Settings]) -> Settings:
    return servers("kafka")


class Hoarder(Stateless):
    """Takes messages and cannot write them while its tables are `away`."""

    def __init__(self) -> None:
        self.away = threading.Event()
        self.handled: list[bytes] = []
        self.written: list[bytes] = []
        self._kept: list[bytes] = []

    def reset(self) -> None:
        self._kept = []

    def handle(self, messages: list[Record]) -> int:
        self.handled += [message.value for message in messages]
        self._kept += [message.value for message in messages]
        return len(self._kept)

    def drain(self) -> Callable[[], None]:
        kept, self._kept = self._kept, []

        def write() -> None:
            if self.away.is_set():
                raise ServiceError("the tables are away")
            self.written += kept

        return write


def new_topic(settings: Settings, name: str, partitions: int = 1, config: dict[str, str] | None = None) -> str:
    topic = f"{name}-{now_ns()}"
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap})
    admin.create_topics([NewTopic(topic, partitions, 1, config=config or {})])[topic].result(30)
    return topic


def settings_of(settings: Settings, member: str) -> Settings:
    """Small batches, written at once."""
    stream = settings.stream.model_copy(update={"batch_rows": 10, "table_flush_ms": 20, "instance": member})
    return settings.model_copy(update={"stream": stream})


def fill(settings: Settings, topic: str, numbers: range) -> None:
    publisher = Publisher(settings.kafka, "test")
    for number in numbers:
        publisher.publish(topic, str(number), b"%d" % number, now_ns())
    publisher.flush()


def test_who_waits_for_forecasts_does_not_wait_for_tables(kafka: Settings) -> None:
    topic, hoarder = new_topic(kafka, "hoard"), Hoarder()
    hoarder.away.set()
    assert worker.AHEAD_BATCHES * 10 < MESSAGES < kafka.stream.max_unwritten_rows
    with Running(Worker(settings_of(kafka, "0"), Role(topic, topic), hoarder)):
        fill(kafka, topic, range(100))
        wait_for(lambda: len(hoarder.handled) == 100, "the first messages handled")
        fill(kafka, topic, range(100, MESSAGES))
        wait_for(lambda: len(hoarder.handled) == MESSAGES, "all messages handled without tables")
        assert not hoarder.written
        hoarder.away.clear()
        wait_for(lambda: len(hoarder.written) == MESSAGES, "all written")
    assert sorted(map(int, hoarder.written)) == list(range(MESSAGES))


def test_a_member_whose_tables_are_away_does_not_hold_up_the_group(
    kafka: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "LET_GO_S", 1.0)
    topic = new_topic(kafka, "let-go", partitions=2)
    first, second = Hoarder(), Hoarder()
    first.away.set()
    with Running(Worker(settings_of(kafka, "first"), Role(topic, topic), first)):
        fill(kafka, topic, range(100))
        wait_for(lambda: len(first.handled) == 100, "all handled by the first")
        with Running(Worker(settings_of(kafka, "second"), Role(topic, topic), second)):
            wait_for(lambda: second.written, "something written by the second")
            assert not first.written
            first.away.clear()
            wait_for(lambda: len(first.written) + len(second.written) >= 100, "all written")
    assert sorted({*map(int, first.written), *map(int, second.written)}) == list(range(100))


def test_a_message_that_kafka_refused_is_sent_again_before_anything_is_committed(kafka: Settings) -> None:
    topic = new_topic(kafka, "narrow", config={"max.message.bytes": "200"})
    publisher, value = Publisher(kafka.kafka, "test"), os.urandom(1_000)  # compresses to nothing smaller
    publisher.publish(topic, "BTC/USD", value, now_ns())
    for _ in range(2):
        with pytest.raises(ServiceError, match=topic):
            publisher.flush()
    wider = ConfigEntry("max.message.bytes", "10000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[wider])
    admin = AdminClient({"bootstrap.servers": kafka.kafka.bootstrap})
    admin.incremental_alter_configs([resource])[resource].result(30)

    def taken() -> bool:
        try:
            publisher.flush()
        except ServiceError:
            return False
        return True

    wait_for(taken, "the refused message taken")
    one = kafka.kafka.model_copy(update={"partitions": 1})
    assert [value for value, *_ in read_topic(one, topic)] == [value]


def test_a_partition_that_lost_old_messages_has_lost_no_younger_ones(own_servers: Callable[..., Settings]) -> None:
    kafka = own_servers("kafka").kafka
    publisher = Publisher(kafka, "test")
    publisher.publish(EVENTS_TOPIC, "BTC/USD", b"old", now_ns())
    publisher.publish(GAPS_TOPIC, "BTC/USD", b"old", now_ns())
    publisher.flush()
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    ends = [TopicPartition(EVENTS_TOPIC, number, -1) for number in range(kafka.partitions)]
    for deleted in admin.delete_records(ends).values():
        deleted.result(30)
    retention_ns = kafka.retention_hours * 3_600 * NS_PER_S
    assert kept_since(kafka, now_ns() - retention_ns + DAY_NS)
    assert not kept_since(kafka, now_ns() - retention_ns - DAY_NS)
