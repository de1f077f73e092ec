"""Publishing to a topic and knowing that it arrived.

What does not belong here: what is published.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from btc_core import metrics
from btc_core.clock import now_ns
from btc_core.errors import ServiceError
from btc_core.market.messages import DeadLetter
from btc_core.names import DEADLETTERS_TOPIC
from btc_core.stores.kafka import producer, timestamp_ms

if TYPE_CHECKING:
    from confluent_kafka import Message

    from btc_core.settings import KafkaSettings

FLUSH_TIMEOUT_S = 30.0
MAX_DEADLETTER_BYTES = 700_000
"""Of a refused frame that much is kept: in JSON it is a third more, and Kafka takes messages of a million bytes."""

_json = msgspec.json.Encoder()


class Publisher:
    """One producer; `flush` returns when everything published before is acknowledged."""

    def __init__(self, settings: KafkaSettings, client_id: str, linger_ms: int = 0) -> None:
        self._producer = producer(settings, client_id, linger_ms)
        self._client_id = client_id
        self._failed: list[tuple[str, Message]] = []
        self._sent: dict[str, int] = {}

    @property
    def waiting(self) -> int:
        """Messages that Kafka has not acknowledged yet."""
        return len(self._producer)

    def publish(self, topic: str, key: str, value: bytes, ts_ns: int) -> None:
        """Queue one message; when the queue is full, wait until it has room."""
        self._produce(topic, key, value, timestamp_ms(ts_ns))
        self._sent[topic] = self._sent.get(topic, 0) + 1

    def _produce(self, topic: str, key: str | bytes, value: bytes, ts_ms: int) -> None:
        while True:
            try:
                return self._producer.produce(topic, value, key, timestamp=ts_ms, on_delivery=self._failed_one)
            except BufferError:
                self._producer.poll(0.1)

    def dead_letter(self, reason: str, message: str, raw: bytes, place: tuple[str, int, int] = ("", -1, -1)) -> None:
        """Queue what could not be used with its reason; `place` is the topic, partition and offset it came from."""
        kept = raw[:MAX_DEADLETTER_BYTES]
        letter = DeadLetter(reason, message, now_ns(), self._client_id, *place, kept, len(raw))
        metrics.DEAD_LETTERS.labels(self._client_id, reason).inc()
        self.publish(DEADLETTERS_TOPIC, reason, _json.encode(letter), letter.ts_ns)

    def poll(self, timeout_s: float) -> None:
        """Serve Kafka's answers; raises `ServiceError` when it refused a message."""
        self._producer.poll(timeout_s)
        self._raise_failed()
        if not self.waiting:
            self._count()

    def flush(self) -> None:
        """Wait for all acknowledgements; raises `ServiceError` when one did not come.

        What Kafka refused is sent again first, so whoever calls again waits for it too.
        """
        left = self._producer.flush(FLUSH_TIMEOUT_S)
        self._raise_failed()
        if left:
            msg = f"Kafka did not take everything: {left} messages not acknowledged in {FLUSH_TIMEOUT_S:.0f} s"
            raise ServiceError(msg)
        self._count()

    def _count(self) -> None:
        for topic, count in self._sent.items():
            metrics.ACKED_MESSAGES.labels(self._client_id, topic).inc(count)
        self._sent.clear()

    def _raise_failed(self) -> None:
        """Queue anew what was refused, and say why it was."""
        if not self._failed:
            return
        failed, self._failed = self._failed, []
        for _, message in failed:
            _, ts_ms = message.timestamp()
            self._produce(message.topic() or "", message.key() or b"", message.value() or b"", ts_ms)
        msg = f"Kafka did not take everything: {failed[0][0]}"
        raise ServiceError(msg)

    def _failed_one(self, error: Any, message: Message) -> None:
        """Called for failures only (`delivery.report.only.error`)."""
        self._failed.append((f"{message.topic()}: {error}", message))
