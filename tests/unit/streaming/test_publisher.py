"""The producer of every worker, where no server is needed."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Never

import pytest
from confluent_kafka import KafkaError, KafkaException

import btc_core.stores.kafka
from btc_core.errors import BtcError, ServiceError
from btc_core.market.frames import TickerFrame, TradeFrame, decode
from btc_core.market.messages import Envelope, decode_envelope
from btc_core.service_settings import KafkaSettings
from btc_core.settings import Settings
from streaming.conflation import FULL_MESSAGES, ConflatingPublisher
from streaming.ingest import Ingest
from streaming.publisher import Publisher

pytestmark = pytest.mark.unit


class RefusingProducer:
    """A client that takes no message."""

    def __init__(self, error: KafkaError) -> None:
        self._error = error

    def produce(self, *_: object, **__: object) -> Never:
        raise KafkaException(self._error)

    def flush(self, _timeout_s: float) -> Never:
        raise SystemError("returned NULL without setting an exception")


def publisher_with(monkeypatch: pytest.MonkeyPatch, error: KafkaError) -> Publisher:
    monkeypatch.setattr("streaming.publisher.producer", lambda *_: RefusingProducer(error))
    return Publisher(KafkaSettings(), "test")


def test_a_producer_that_failed_for_good_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = publisher_with(monkeypatch, KafkaError(KafkaError._FENCED, "another producer has this id", fatal=True))
    with pytest.raises(BtcError, match="failed for good") as raised:
        publisher.publish("topic", "key", b"value", 0)
    assert not isinstance(raised.value, ServiceError), "a worker would retry"


@pytest.mark.parametrize("is_noted", [True, False])
def test_a_fatal_error_whose_exception_kafka_s_client_loses_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, *, is_noted: bool
) -> None:
    error = KafkaError(KafkaError.CLUSTER_AUTHORIZATION_FAILED, "refused", fatal=True)
    publisher = publisher_with(monkeypatch, error)
    if is_noted:
        publisher._note_error(error)
    with pytest.raises(BtcError, match="right on a cluster" if is_noted else "the line FATAL in its log") as raised:
        publisher.flush()
    assert not isinstance(raised.value, ServiceError), "a worker would retry"


def test_a_topic_that_is_gone_is_a_failure_of_kafka_and_not_the_end_of_the_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publisher = publisher_with(monkeypatch, KafkaError(KafkaError._UNKNOWN_TOPIC))
    with pytest.raises(ServiceError, match=r"does not take a message of 2 bytes for market.events: .*Unknown topic"):
        publisher.publish("market.events", "BTC/USD", b"{}", 0)


class SmallProducer:
    """A client whose queue takes `room` messages until the next flush."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.queued: list[bytes] = []
        self.sent: list[bytes] = []
        self.errors: list[KafkaError] = []
        """What the next calls fail with."""

    def __len__(self) -> int:
        return len(self.queued)

    def produce(self, _topic: str, value: bytes, _key: str, **_: object) -> None:
        if self.errors:
            raise KafkaException(self.errors.pop())
        if len(self.queued) >= self.room:
            raise BufferError
        self.queued.append(value)

    def poll(self, _timeout_s: float) -> None:
        self.sent += self.queued[:1]
        del self.queued[:1]

    def flush(self, _timeout_s: float) -> int:
        self.sent += self.queued
        self.queued.clear()
        return 0


def small(monkeypatch: pytest.MonkeyPatch, room: int, *, blocking: bool) -> tuple[SmallProducer, Publisher]:
    producer = SmallProducer(room)
    monkeypatch.setattr("streaming.publisher.producer", lambda *_: producer)
    return producer, Publisher(KafkaSettings(), "test", blocking=blocking)


def test_messages_beyond_the_queue_are_kept_and_sent_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    producer, publisher = small(monkeypatch, 2, blocking=False)
    values = [b"%d" % number for number in range(9)]
    for value in values[:6]:
        publisher.publish("topic", "key", value, 0)
    assert publisher.full
    assert publisher.waiting == 6
    publisher.poll(0)
    publisher.poll(0)
    for value in values[6:]:
        publisher.publish("topic", "key", value, 0)
    publisher.flush()
    assert producer.sent == values
    assert (publisher.full, publisher.waiting) == (False, 0)


def test_a_kept_message_that_kafka_refuses_stays_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    producer, publisher = small(monkeypatch, 1, blocking=False)
    for value in (b"1", b"2", b"3"):
        publisher.publish("topic", "key", value, 0)
    producer.errors = [KafkaError(KafkaError._UNKNOWN_TOPIC)]
    with pytest.raises(ServiceError, match="Unknown topic"):
        publisher.poll(0)
    publisher.flush()
    assert producer.sent == [b"1", b"2", b"3"]


def test_a_worker_waits_for_room_in_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    producer, publisher = small(monkeypatch, 1, blocking=True)
    for value in (b"1", b"2", b"3"):
        publisher.publish("topic", "key", value, 0)
    assert not publisher.full
    publisher.flush()
    assert producer.sent == [b"1", b"2", b"3"]


class Refused:
    """A message that Kafka has refused."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    def topic(self) -> str:
        return "topic"

    def key(self) -> bytes:
        return b"key"

    def value(self) -> bytes:
        return self._value

    def timestamp(self) -> tuple[int, int]:
        return 1, 0


@pytest.mark.parametrize("blocking", [True, False])
def test_refused_messages_are_kept_while_the_client_does_not_take_them_again(
    monkeypatch: pytest.MonkeyPatch, *, blocking: bool
) -> None:
    """A right on a topic that is taken away and given back must not cost messages."""
    producer, publisher = small(monkeypatch, 9, blocking=blocking)
    refusal = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    for value in (b"1", b"2", b"3"):
        publisher._on_failure(refusal, Refused(value))  # type: ignore[arg-type]
    producer.errors = [refusal]
    with pytest.raises(ServiceError, match=r"no right on a topic"):
        publisher.poll(0)
    with pytest.raises(ServiceError, match=r"topic: .*no right on a topic"):
        publisher.poll(0)
    publisher.flush()
    assert producer.sent == [b"1", b"2", b"3"]


def trade_envelope(number: int, padding: int) -> Envelope:
    raw = (
        b'{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"buy","price":1.5,"qty":1.0,"trade_id":'
        b'%d,"timestamp":"2026-01-01T00:00:00Z"}]%s}' % (number, b" " * padding)
    )
    return Envelope(number, 1, number, "trade", "ws", raw)


def test_a_queue_that_is_full_by_bytes_never_blocks_the_loop_of_ingest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large frames fill the queue by bytes long before the number of messages stops ingest from reading."""
    monkeypatch.setattr(btc_core.stores.kafka, "MAX_QUEUED_KB", 1_024)
    settings = Settings(kafka=KafkaSettings(bootstrap="127.0.0.1:1"))

    async def run() -> tuple[float, int]:
        ingest, began_s, published = Ingest(settings), time.monotonic(), 0
        while not ingest.full and published < 1_000:
            envelope = trade_envelope(published, 10_000)
            frame = decode(envelope.raw)
            ingest.publish("BTC/USD", envelope, frame)  # type: ignore[arg-type]
            published += 1
        ingest.poll()
        took_s = time.monotonic() - began_s
        # The client keeps its thread, which would try to connect for the rest of the tests, while a message waits.
        ingest._publisher._producer.purge()
        ingest._publisher._producer.poll(0)
        return took_s, published

    took_s, published = asyncio.run(asyncio.wait_for(run(), 10.0))
    gc.collect()
    assert 50 < published < 200 < FULL_MESSAGES
    assert took_s < 2.0


def test_ingest_stops_reading_when_the_queue_of_kafkas_client_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    _, publisher = small(monkeypatch, 1, blocking=False)
    frames = ConflatingPublisher(publisher, conflate_above=100)
    for number in range(2):
        assert not frames.full
        envelope = trade_envelope(number, 0)
        frames.publish("BTC/USD", envelope, decode(envelope.raw))  # type: ignore[arg-type]
    assert frames.full
    frames.poll()
    assert not frames.full


def test_a_quote_that_replaced_older_ones_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    producer, publisher = small(monkeypatch, 10, blocking=False)
    frames = ConflatingPublisher(publisher, conflate_above=0)
    quote, trade = TickerFrame("update", []), TradeFrame("update", [])
    for number, frame in enumerate((trade, quote, trade, quote, quote, trade)):
        frames.publish("BTC/USD", Envelope(number, 1, number, "", "ws", b""), frame)
    publisher.flush()
    sent = [decode_envelope(value) for value in producer.sent]
    assert [(each.sequence, each.conflated) for each in sent] == [
        (0, False),
        (1, False),
        (2, False),
        (4, True),
        (5, False),
    ]
