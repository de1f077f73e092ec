"""A cluster of three brokers: a consumer reads from the copy in its rack, and no message is lost when one broker is killed."""

from __future__ import annotations

import json
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import TopicCollection, TopicPartition

from btc_core.clock import now_ns
from btc_core.errors import ServiceError
from btc_core.names import EVENTS_TOPIC, TOPICS
from btc_core.settings import Settings
from btc_core.stores.kafka import consumer, read_topic, topic_state
from btc_core.stores.kafka_connection import admin_client
from btc_core.stores.kafka_topics import create_empty_topic, ensure_topics, missing_topics
from streaming.handler import WorkerSpec
from streaming.publisher import Publisher
from streaming.worker import Worker
from tests.service.kafka_cluster import Cluster, cluster, rack_of
from tests.service.streaming.test_worker import BufferingHandler
from tests.service.workers import Running
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from confluent_kafka import TopicPartitionInfo

    from btc_core.service_settings import KafkaSettings

GROUP = "survivor"


@pytest.fixture(scope="module")
def brokers() -> Iterator[Cluster]:
    with cluster() as running:
        yield running


def partitions_of(kafka: KafkaSettings, topic: str) -> list[TopicPartitionInfo]:
    with admin_client(kafka) as admin:
        described = admin.describe_topics(TopicCollection([topic]))[topic].result(30)
    return list(described.partitions)


def test_a_consumer_reads_from_the_copy_in_its_own_rack(brokers: Cluster) -> None:
    topic = "of-one-partition"
    create_empty_topic(brokers.kafka, topic)

    def has_three_copies() -> bool:
        try:
            return [len(part.isr) for part in partitions_of(brokers.kafka, topic)] == [3]
        except ServiceError:  # a broker that does not know the topic yet
            return False

    wait_for(has_three_copies, "three copies")
    (first,) = partitions_of(brokers.kafka, topic)
    follower = next(node.id for node in first.replicas if node.id != first.leader.id)
    publisher = Publisher(brokers.kafka, "test")
    asked: list[int] = []

    def note(text: str) -> None:
        part = json.loads(text)["topics"].get(topic, {}).get("partitions", {}).get("0", {})
        asked.append(part.get("broker", -1))

    kafka = brokers.kafka.model_copy(update={"rack": rack_of(follower)})
    reader = consumer(kafka, "near", options={"stats_cb": note, "statistics.interval.ms": 100})
    reader.assign([TopicPartition(topic, 0, 0)])

    def reads(value: bytes) -> bool:
        return value in {message.value() for message in reader.consume(10, 0.5)}

    def asks_the_follower() -> bool:
        reader.consume(10, 0.1)
        return follower in asked[-1:]

    with closing(reader):
        publisher.publish(topic, "BTC/USD", b"first", now_ns())
        publisher.flush()
        wait_for(lambda: reads(b"first"), "the first message")
        wait_for(asks_the_follower, f"the follower {follower} is asked, and not the leader {first.leader.id}")
        publisher.publish(topic, "BTC/USD", b"second", now_ns())
        publisher.flush()
        wait_for(lambda: reads(b"second"), "a message of the follower")
        assert asked[-1] == follower


def test_no_message_is_lost_when_one_of_three_brokers_is_killed(brokers: Cluster, tmp_path: Path) -> None:
    kafka = brokers.kafka
    settings = Settings(kafka=kafka)
    settings = settings.model_copy(update={"stream": settings.stream.model_copy(update={"state_dir": tmp_path})})
    ensure_topics(settings)
    assert missing_topics(kafka, TOPICS, 10) == []
    assert [len(part.replicas) for part in partitions_of(kafka, EVENTS_TOPIC)] == [3, 3]

    publisher, handler = Publisher(kafka, "test"), BufferingHandler()
    published: dict[str, list[bytes]] = {"BTC/USD": [], "ETH/USD": [], "SOL/USD": []}

    def publish(messages: int) -> None:
        for _ in range(messages):
            for symbol, sent in published.items():
                sent.append(f"{symbol} {len(sent)}".encode())
                publisher.publish(EVENTS_TOPIC, symbol, sent[-1], now_ns())
            publisher.poll(0)
            time.sleep(0.001)

    def all_written() -> bool:
        return set(handler.written) == {value for sent in published.values() for value in sent}

    with Running(Worker(settings, WorkerSpec(GROUP, EVENTS_TOPIC), handler)):
        publish(300)
        wait_for(lambda: len(handler.written) > 300, "the worker writes what flows")
        publish(100)
        lost = partitions_of(kafka, EVENTS_TOPIC)[0].leader.id
        publish(100)
        brokers.kill(lost)
        publish(500)
        publisher.flush()
        wait_for(all_written, "the worker has written every message")
        wait_for(lambda: topic_state(kafka, EVENTS_TOPIC, (GROUP,)).lag[GROUP] == 0, "its offsets are committed")
    kept = [value for value, _, _ in read_topic(kafka, EVENTS_TOPIC)]
    for symbol, sent in published.items():
        assert [value for value in kept if value.startswith(symbol.encode())] == sent, "once each, and in their order"
    assert all(part.leader.id != lost for part in partitions_of(kafka, EVENTS_TOPIC))
