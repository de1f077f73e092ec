"""A cluster of three brokers loses one while messages flow: the producer and the worker continue, and no message is missing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import TopicCollection

from btc_core.clock import now_ns
from btc_core.names import EVENTS_TOPIC, TOPICS
from btc_core.settings import Settings
from btc_core.stores.kafka import read_topic, topic_state
from btc_core.stores.kafka_connection import admin_client
from btc_core.stores.kafka_topics import ensure_topics
from streaming.handler import WorkerSpec
from streaming.publisher import Publisher
from streaming.worker import Worker
from tests.service.kafka_cluster import Cluster, cluster
from tests.service.streaming.test_worker import BufferingHandler
from tests.service.workers import Running
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from confluent_kafka.admin import TopicPartitionInfo  # type: ignore[attr-defined]

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


def test_no_message_is_lost_when_one_of_three_brokers_is_killed(brokers: Cluster, tmp_path: Path) -> None:
    kafka = brokers.kafka
    settings = Settings(kafka=kafka)
    settings = settings.model_copy(update={"stream": settings.stream.model_copy(update={"state_dir": tmp_path})})
    assert sorted(ensure_topics(settings)) == sorted(TOPICS)
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
        wait_for(all_written, "the worker has written every message", 90)
        wait_for(lambda: topic_state(kafka, EVENTS_TOPIC, (GROUP,)).lag[GROUP] == 0, "its offsets are committed", 90)
    kept = [value for value, _, _ in read_topic(kafka, EVENTS_TOPIC)]
    for symbol, sent in published.items():
        assert [value for value in kept if value.startswith(symbol.encode())] == sent, "once each, and in their order"
    assert all(part.leader.id != lost for part in partitions_of(kafka, EVENTS_TOPIC))
