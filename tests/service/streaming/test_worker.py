"""The worker loop with a real Kafka: unavailable tables, members that join a group, and messages that Kafka refuses."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import KafkaError, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)
from prometheus_client import REGISTRY

from btc_core import metrics
from btc_core.clock import NS_PER_S, now_ns
from btc_core.errors import ServiceError
from btc_core.names import EVENTS_TOPIC, GAPS_TOPIC
from btc_core.stores.kafka import kept_since, read_topic
from btc_core.stores.kafka_connection import connection
from streaming import worker
from streaming.assignment import LogStart, PartitionStart
from streaming.handler import StatelessHandler, WorkerSpec
from streaming.publisher import Publisher
from streaming.worker import Worker
from tests.real_alerts import Looks
from tests.service.workers import Running
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import Gauge

    from btc_core.settings import Settings
    from streaming.handler import Record

MESSAGES = 1_000
DAY_NS = 86_400 * NS_PER_S


@pytest.fixture(scope="module")
def kafka(servers: Callable[..., Settings]) -> Settings:
    return servers("kafka")


class BufferingHandler(StatelessHandler):
    """Takes messages, and cannot write them while its tables are `unavailable`."""

    def __init__(self) -> None:
        self.unavailable = threading.Event()
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
            if self.unavailable.is_set():
                raise ServiceError("the tables are unavailable")
            self.written += kept

        return write


def new_topic(settings: Settings, name: str, partitions: int = 1, config: dict[str, str] | None = None) -> str:
    topic = f"{name}-{now_ns()}"
    admin = AdminClient(connection(settings.kafka, "test"))
    admin.create_topics([NewTopic(topic, partitions, 1, config=config or {})])[topic].result(30)
    return topic


def settings_of(settings: Settings, member: str) -> Settings:
    """Small batches that are written at once, for one member of the group."""
    stream = settings.stream.model_copy(update={"batch_rows": 10, "table_flush_ms": 20, "instance": member})
    return settings.model_copy(update={"stream": stream})


def fill(settings: Settings, topic: str, numbers: range) -> None:
    publisher = Publisher(settings.kafka, "test")
    for number in numbers:
        publisher.publish(topic, str(number), b"%d" % number, now_ns())
    publisher.flush()


def test_messages_are_handled_while_the_tables_are_unavailable(kafka: Settings) -> None:
    topic, handler = new_topic(kafka, "buffering"), BufferingHandler()
    handler.unavailable.set()
    assert worker.MAX_BATCHES_AHEAD * 10 < MESSAGES < kafka.stream.max_unwritten_rows
    with Running(Worker(settings_of(kafka, "0"), WorkerSpec(topic, topic), handler)):
        fill(kafka, topic, range(100))
        wait_for(lambda: len(handler.handled) == 100, "the first messages handled")
        fill(kafka, topic, range(100, MESSAGES))
        wait_for(lambda: len(handler.handled) == MESSAGES, "all messages handled without tables")
        assert not handler.written
        handler.unavailable.clear()
        wait_for(lambda: len(handler.written) == MESSAGES, "all written")
    assert sorted(map(int, handler.written)) == list(range(MESSAGES))


def test_a_member_whose_tables_are_unavailable_does_not_hold_up_the_group(
    kafka: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "REVOKE_WAIT_S", 1.0)
    topic = new_topic(kafka, "rebalance", partitions=2)
    first, second = BufferingHandler(), BufferingHandler()
    first.unavailable.set()
    with Running(Worker(settings_of(kafka, "first"), WorkerSpec(topic, topic), first)):
        fill(kafka, topic, range(100))
        wait_for(lambda: len(first.handled) == 100, "all handled by the first")
        with Running(Worker(settings_of(kafka, "second"), WorkerSpec(topic, topic), second)):
            wait_for(lambda: second.written, "something written by the second")
            assert not first.written
            first.unavailable.clear()
            wait_for(lambda: len(first.written) + len(second.written) >= 100, "all written")
    assert sorted({*map(int, first.written), *map(int, second.written)}) == list(range(100))


def test_a_message_that_kafka_refused_is_sent_again_before_anything_is_committed(kafka: Settings) -> None:
    topic = new_topic(kafka, "narrow", config={"max.message.bytes": "200"})
    publisher, value = Publisher(kafka.kafka, "test"), os.urandom(1_000)  # random bytes do not compress
    publisher.publish(topic, "BTC/USD", value, now_ns())
    for _ in range(2):
        with pytest.raises(ServiceError, match=topic):
            publisher.flush()
    larger = ConfigEntry("max.message.bytes", "10000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[larger])
    admin = AdminClient(connection(kafka.kafka, "test"))
    admin.incremental_alter_configs([resource])[resource].result(30)

    def accepted() -> bool:
        try:
            publisher.flush()
        except ServiceError:
            return False
        return True

    wait_for(accepted, "the refused message is accepted")
    one = kafka.kafka.model_copy(update={"partitions": 1})
    assert [value for value, *_ in read_topic(one, topic)] == [value]


def test_a_partition_that_lost_old_messages_still_holds_everything_younger(
    own_servers: Callable[..., Settings],
) -> None:
    kafka = own_servers("kafka").kafka
    publisher = Publisher(kafka, "test")
    publisher.publish(EVENTS_TOPIC, "BTC/USD", b"old", now_ns())
    publisher.publish(GAPS_TOPIC, "BTC/USD", b"old", now_ns())
    publisher.flush()
    admin = AdminClient(connection(kafka, "test"))
    ends = [TopicPartition(EVENTS_TOPIC, number, -1) for number in range(kafka.partitions)]
    for deleted in admin.delete_records(ends).values():
        deleted.result(30)
    retention_ns = kafka.retention_hours * 3_600 * NS_PER_S
    assert kept_since(kafka, now_ns() - retention_ns + DAY_NS)
    assert not kept_since(kafka, now_ns() - retention_ns - DAY_NS)


def gauge(metric: Gauge, *labels: str) -> float:
    return metric.labels(*labels)._value.get()


@pytest.mark.causes("LagGrowing", "RetriesRepeated", "RowsUnwritten")
def test_a_worker_that_cannot_write_shows_its_lag_the_age_of_its_rows_and_its_retries(kafka: Settings) -> None:
    topic, handler = new_topic(kafka, "stuck"), BufferingHandler()
    handler.unavailable.set()
    settings = settings_of(kafka, "1")
    settings = settings.model_copy(update={"stream": settings.stream.model_copy(update={"max_unwritten_rows": 50})})
    began_s = time.monotonic()
    with Running(Worker(settings, WorkerSpec(topic, topic), handler)):
        for name in ("btc_retries", "btc_consumer_rejoins", "btc_checkpoint_failures"):
            found = REGISTRY.get_sample_value(f"{name}_total", {"worker": topic})
            assert found == 0, f"an alert does not see the first event of {name} unless it is exported before"
        looks = Looks()
        fill(kafka, topic, range(30))
        wait_for(lambda: len(handler.handled) == 30, "the first messages handled")
        fill(kafka, topic, range(30, 5_030))
        wait_for(lambda: gauge(metrics.LAG, topic, "0") == 5_030, "the lag counts what is not committed")
        assert len(handler.handled) < 200, "the worker stopped reading"
        wait_for(lambda: gauge(metrics.UNWRITTEN_AGE, topic) > 3, "the oldest row gets older")
        assert gauge(metrics.UNWRITTEN_AGE, topic) < time.monotonic() - began_s
        wait_for(lambda: metrics.RETRIES.labels(topic)._value.get() >= 2, "retries")
        wait_for(lambda: time.time() - gauge(metrics.LOOP_AT, topic) < 2, "the loop is running")
        # The lowest lag of a minute counts, and the first looks may have found the lag of an empty topic.
        assert Looks().find("LagGrowing", f"{topic} has not written 5,030 messages")
        wait_for(lambda: looks.find("RowsUnwritten", topic), "rows of half a minute ago")
        wait_for(lambda: looks.find("RetriesRepeated", topic), "retries again and again")
        handler.unavailable.clear()
        wait_for(lambda: len(handler.written) == 5_030, "all written")
        wait_for(lambda: gauge(metrics.LAG, topic, "0") == 0, "no lag is left")
        wait_for(lambda: gauge(metrics.UNWRITTEN_AGE, topic) == 0, "no row waits")


def test_a_commit_that_fails_is_repeated_and_counts_as_lag(kafka: Settings) -> None:
    topic, handler = new_topic(kafka, "uncommitted"), BufferingHandler()
    made = Worker(settings_of(kafka, "1"), WorkerSpec(topic, topic), handler)
    confirm, failures = made._confirm_commit, [KafkaError(KafkaError.REQUEST_TIMED_OUT)] * 3
    made._confirm_commit = lambda error, offsets: confirm(failures.pop() if failures else error, offsets)  # type: ignore[method-assign]
    made._consumer = made._new_consumer()
    with Running(made):
        fill(kafka, topic, range(10))
        wait_for(lambda: not failures, "the commit is repeated until it succeeds")
        wait_for(lambda: gauge(metrics.LAG, topic, "0") == 0, "no lag is left")


def test_an_error_of_kafka_while_partitions_are_assigned_makes_a_new_consumer(
    kafka: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that has just started may not lead a partition yet, which the client says within a callback of its own."""
    topic, handler = new_topic(kafka, "not-led"), BufferingHandler()
    find, failures = LogStart.find, []

    def fails_once(self: LogStart, partitions: list[TopicPartition]) -> list[PartitionStart]:
        if not failures:
            failures.append(partitions)
            self._consumer.get_watermark_offsets(TopicPartition("no-such-topic", 99), timeout=30.0)
        return find(self, partitions)

    monkeypatch.setattr(LogStart, "find", fails_once)
    rejoins = metrics.REJOINS.labels(topic)
    with Running(Worker(settings_of(kafka, "1"), WorkerSpec(topic, topic), handler)):
        fill(kafka, topic, range(10))
        wait_for(lambda: len(handler.written) == 10, "the messages are written by the second consumer")
    assert len(failures) == 1
    assert rejoins._value.get() == 1


class FlakyHandler(BufferingHandler):
    """Cannot handle anything while its service is `down`; counts how often it was reset."""

    def __init__(self) -> None:
        super().__init__()
        self.down = threading.Event()
        self.resets = 0

    def reset(self) -> None:
        super().reset()
        self.resets += 1

    def handle(self, messages: list[Record]) -> int:
        if self.down.is_set():
            raise ServiceError("the service is down")
        return super().handle(messages)


class StuckHandler(BufferingHandler):
    """Never comes back from a message until it is `freed`."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.freed = threading.Event(), threading.Event()

    def handle(self, messages: list[Record]) -> int:
        self.entered.set()
        assert self.freed.wait(60)
        return super().handle(messages)


@pytest.mark.causes("LoopStuck")
def test_a_loop_that_does_not_come_back_is_reported(kafka: Settings) -> None:
    topic, handler = new_topic(kafka, "looping"), StuckHandler()
    with Running(Worker(settings_of(kafka, "1"), WorkerSpec(topic, topic), handler)):
        fill(kafka, topic, range(10))
        assert handler.entered.wait(60)
        last_s = gauge(metrics.LOOP_AT, topic)
        wait_for(
            lambda: time.time() - last_s > 3, "three seconds, each with many iterations of a loop that is not stuck"
        )
        assert gauge(metrics.LOOP_AT, topic) == last_s
        assert Looks().find("LoopStuck", topic, later_s=60)
        handler.freed.set()
        wait_for(lambda: len(handler.written) == 10, "all written")
        assert not Looks().find("LoopStuck", topic)


def test_a_batch_that_waits_is_not_handled_after_its_partition_was_assigned_again(kafka: Settings) -> None:
    topic, handler = new_topic(kafka, "stale", partitions=2), FlakyHandler()
    handler.down.set()
    with Running(Worker(settings_of(kafka, "first"), WorkerSpec(topic, topic), handler)):
        wait_for(lambda: handler.resets == 1, "the first assignment")
        fill(kafka, topic, range(40))
        wait_for(lambda: metrics.RETRIES.labels(topic)._value.get() >= 2, "a batch waits")
        other = BufferingHandler()
        with Running(Worker(settings_of(kafka, "second"), WorkerSpec(topic, topic), other)):
            wait_for(lambda: handler.resets >= 2, "assigned again")
            handler.down.clear()
            wait_for(lambda: len(handler.written) + len(other.written) >= 40, "all written")
            assert sorted(map(int, handler.written + other.written)) == list(range(40)), "nothing is written twice"
