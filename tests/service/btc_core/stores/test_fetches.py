"""How long the broker keeps a fetch: a reader of forecasts must not notice it."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import TopicPartition

from btc_core.clock import now_ns
from btc_core.names import GAPS_TOPIC
from btc_core.stores.kafka import FETCH_WAIT_MS, consumer
from streaming.publisher import Publisher

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.settings import Settings

pytestmark = pytest.mark.service

TRIES = 10


def test_an_eager_consumer_gets_a_message_at_once_however_long_a_fetch_may_wait(
    servers: Callable[..., Settings],
) -> None:
    kafka = servers("kafka").kafka
    took_s = []
    with closing(consumer(kafka, "test-fetches")) as reader:
        publisher = Publisher(kafka, "test-fetches")
        publisher.publish(GAPS_TOPIC, "BTC/USD", b"first", now_ns())
        publisher.flush()
        reader.assign([TopicPartition(GAPS_TOPIC, partition, 0) for partition in range(kafka.partitions)])
        while reader.poll(10.0) is None:
            pass
        for _ in range(TRIES):
            assert reader.poll(FETCH_WAIT_MS / 4_000) is None
            sent_s = time.monotonic()
            publisher.publish(GAPS_TOPIC, "BTC/USD", b"next", now_ns())
            assert reader.poll(10.0) is not None
            took_s.append(time.monotonic() - sent_s)
    assert min(took_s) < FETCH_WAIT_MS / 4_000
