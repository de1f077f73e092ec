"""The producer of every worker, where no server is needed."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from btc_core.errors import BtcError, ServiceError
from btc_core.settings import KafkaSettings
from streaming.publisher import Publisher

pytestmark = pytest.mark.unit


class FailedProducer:
    """A client after a fatal error, such as a producer id that another producer took over."""

    def produce(self, *_: object, **__: object) -> None:
        raise KafkaException(KafkaError(KafkaError._FENCED, "another producer has this id", fatal=True))


def test_a_producer_that_failed_for_good_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.publisher.producer", lambda *_: FailedProducer())
    with pytest.raises(BtcError, match="failed for good") as raised:
        Publisher(KafkaSettings(), "test").publish("topic", "key", b"value", 0)
    assert not isinstance(raised.value, ServiceError), "a worker would retry"
