"""The producer of every worker, where no server is needed."""

from __future__ import annotations

from typing import Never

import pytest
from confluent_kafka import KafkaError, KafkaException

from btc_core.errors import BtcError, ServiceError
from btc_core.settings import KafkaSettings
from streaming.publisher import Publisher

pytestmark = pytest.mark.unit


class RefusingProducer:
    """A client that takes no message."""

    def __init__(self, error: KafkaError) -> None:
        self._error = error

    def produce(self, *_: object, **__: object) -> Never:
        raise KafkaException(self._error)


def publisher_with(monkeypatch: pytest.MonkeyPatch, error: KafkaError) -> Publisher:
    monkeypatch.setattr("streaming.publisher.producer", lambda *_: RefusingProducer(error))
    return Publisher(KafkaSettings(), "test")


def test_a_producer_that_failed_for_good_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = publisher_with(monkeypatch, KafkaError(KafkaError._FENCED, "another producer has this id", fatal=True))
    with pytest.raises(BtcError, match="failed for good") as raised:
        publisher.publish("topic", "key", b"value", 0)
    assert not isinstance(raised.value, ServiceError), "a worker would retry"


def test_a_topic_that_is_gone_is_a_failure_of_kafka_and_not_the_end_of_the_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publisher = publisher_with(monkeypatch, KafkaError(KafkaError._UNKNOWN_TOPIC))
    with pytest.raises(ServiceError, match=r"does not take a message of 2 bytes for market.events: .*Unknown topic"):
        publisher.publish("market.events", "BTC/USD", b"{}", 0)
