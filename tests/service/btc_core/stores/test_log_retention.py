"""The log keeps at most so many bytes of each partition, and says when it has dropped something by that."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic

from btc_core.clock import NS_PER_S, now_ns
from btc_core.errors import ServiceError
from btc_core.names import DEADLETTERS_TOPIC, EVENTS_TOPIC
from btc_core.stores import kafka_topics
from btc_core.stores.kafka import consumer, kept_since
from btc_core.stores.kafka_connection import admin_client, connection
from btc_core.stores.kafka_topics import ensure_topics, missing_topics
from btc_core.waiting import wait_until
from streaming.publisher import Publisher
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.settings import Settings

MB = 1024 * 1024
LIMIT = 8 * MB


@pytest.fixture(scope="module")
def settings(own_servers: Callable[..., Settings]) -> Settings:
    return own_servers("kafka")


def config_of(settings: Settings, topic: str) -> dict[str, str]:
    admin = AdminClient(connection(settings.kafka, "test"))
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    answer = admin.describe_configs([resource])[resource].result(10)
    names = ("retention.ms", "retention.bytes", "segment.bytes")
    return {name: str(answer[name].value) for name in names}


def test_a_new_stack_derives_the_limit_from_the_free_space(settings: Settings) -> None:
    events, letters = (config_of(settings, topic) for topic in (EVENTS_TOPIC, DEADLETTERS_TOPIC))
    assert events["retention.ms"] == str(168 * 3_600_000)
    assert int(events["retention.bytes"]) > 10 * MB
    assert int(letters["retention.bytes"]) == int(events["retention.bytes"]) // 10, "failures take little room"
    assert int(events["segment.bytes"]) == min(128 * MB, int(events["retention.bytes"]) // 8)


def test_topics_that_exist_get_a_changed_time_and_limit(settings: Settings) -> None:
    kafka = settings.kafka.model_copy(update={"retention_hours": 50})
    changed = settings.model_copy(update={"kafka": kafka})
    assert ensure_topics(changed, LIMIT) == []
    assert config_of(settings, EVENTS_TOPIC) == {
        "retention.ms": str(50 * 3_600_000),
        "retention.bytes": str(LIMIT),
        "segment.bytes": str(MB),
    }
    ensure_topics(settings)
    assert config_of(settings, EVENTS_TOPIC)["retention.bytes"] == "-1", "without a limit there is none"


def test_the_oldest_messages_go_first_and_the_log_no_longer_claims_to_have_them(settings: Settings) -> None:
    ensure_topics(settings, LIMIT)
    begin_ns = now_ns()
    publisher = Publisher(settings.kafka, "test")
    for number in range(300):  # 30 MB that cannot be compressed
        publisher.publish(EVENTS_TOPIC, "BTC/USD", os.urandom(100_000), begin_ns + number * NS_PER_S // 100)
    publisher.flush()
    assert kept_since(settings.kafka, begin_ns)
    assert not first_offsets(settings)
    wait_for(lambda: first_offsets(settings), "old segments deleted")
    (first,) = first_offsets(settings)
    assert 300 * 100_000 - first * 100_000 > LIMIT, "what is left is not less than the limit"
    assert not kept_since(settings.kafka, begin_ns)
    assert kept_since(settings.kafka, begin_ns + (first + 1) * NS_PER_S // 100)


def first_offsets(settings: Settings) -> list[int]:
    """The first offset of each partition that no longer has its first message."""
    parts = [TopicPartition(EVENTS_TOPIC, number) for number in range(settings.kafka.partitions)]
    with closing(consumer(settings.kafka, "test-first-offsets")) as reader:
        return [low for part in parts if (low := reader.get_watermark_offsets(part, timeout=10)[0])]


def test_a_missing_topic_is_named_and_a_kafka_that_is_away_is_an_error(settings: Settings) -> None:
    needed = (EVENTS_TOPIC, DEADLETTERS_TOPIC)
    assert missing_topics(settings.kafka, needed, 10.0) == []
    with pytest.raises(ServiceError, match=r"127\.0\.0\.1:1"):
        missing_topics(settings.kafka.model_copy(update={"bootstrap": "127.0.0.1:1"}), needed, 1.0)
    admin = AdminClient(connection(settings.kafka, "test"))
    admin.delete_topics([DEADLETTERS_TOPIC])[DEADLETTERS_TOPIC].result(10)
    wait_for(lambda: DEADLETTERS_TOPIC not in admin.list_topics(timeout=10).topics, "the topic is gone")
    assert missing_topics(settings.kafka, needed, 10.0) == [DEADLETTERS_TOPIC]
    assert ensure_topics(settings) == [DEADLETTERS_TOPIC]
    assert missing_topics(settings.kafka, needed, 10.0) == []


def test_a_new_topic_is_waited_for_though_its_partitions_appear_one_after_the_other(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, kafka = "grows", settings.kafka.model_copy(update={"partitions": 3})
    with admin_client(settings.kafka) as admin:
        admin.create_topics([NewTopic(name, 1, 1)])[name].result(30)

        def add_partitions_after_a_try(condition: Callable[[], bool], timeout_s: float, pause_s: float) -> bool:
            if not condition():
                admin.create_partitions([NewPartitions(name, 3)])[name].result(30)
            return wait_until(condition, timeout_s, pause_s)

        monkeypatch.setattr(kafka_topics, "wait_until", add_partitions_after_a_try)
        kafka_topics._wait_for_leaders(kafka, [name])
        assert len(admin.list_topics(name, timeout=30).topics[name].partitions) == 3
