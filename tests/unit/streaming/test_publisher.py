"""What a publisher says when Kafka does not take a message."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from btc_core.errors import ServiceError
from btc_core.settings import KafkaSettings
from streaming.publisher import Publisher


class WithoutTopics:
    """A producer that has learned from Kafka that the topic does not exist."""

    def produce(self, *_: object, **__: object) -> None:
        raise KafkaException(KafkaError(KafkaError._UNKNOWN_TOPIC))


def test_a_topic_that_is_gone_is_a_failure_of_kafka_and_not_the_end_of_the_worker() -> None:
    publisher = Publisher(KafkaSettings(bootstrap="127.0.0.1:1"), "test")
    publisher._producer = WithoutTopics()
    with pytest.raises(ServiceError, match=r"Kafka does not take a message for market.events: .*Unknown topic"):
        publisher.publish("market.events", "BTC/USD", b"{}", 0)
