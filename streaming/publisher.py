"""Publishing to topics with acknowledgement: the producer of every worker.

What does not belong here: what is published.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec
from confluent_kafka import KafkaException

from btc_core import metrics
from btc_core.clock import now_ns
from btc_core.errors import BtcError, ServiceError
from btc_core.market.messages import DeadLetter
from btc_core.names import DEADLETTERS_TOPIC
from btc_core.stores.kafka import producer, timestamp_ms
from btc_core.stores.kafka_connection import explain

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import KafkaError, Message

    from btc_core.service_settings import KafkaSettings

FLUSH_TIMEOUT_S = 30.0
MAX_DEADLETTER_BYTES = 700_000
"""The first bytes of a refused frame that are kept: base64 in JSON makes them a third longer, and Kafka takes messages of
a million bytes."""
MAX_REASON_CHARS, MAX_MESSAGE_CHARS = 64, 1_000
"""Bounds of the text of a dead letter, which may quote what an exchange sent."""

_json = msgspec.json.Encoder()


class Publisher:
    """One producer; `flush` returns once everything published before it is acknowledged.

    While the queue of Kafka's client is full, because too many messages or bytes wait, `publish` waits until there is room.
    If `blocking` is false it returns at once and keeps the message for `poll` and `flush`: an event loop must not wait. The
    caller must then publish no more while `full` is true.
    """

    def __init__(self, settings: KafkaSettings, client_id: str, linger_ms: int = 0, *, blocking: bool = True) -> None:
        self._fatal: KafkaError | None = None
        """Why the producer cannot send anything any more."""
        self._producer = producer(settings, client_id, linger_ms, self._note_error)
        self._kafka = settings
        self._client_id = client_id
        self._blocking = blocking
        self._held: deque[tuple[str, str | bytes, bytes, int]] = deque()
        """Topic, key, value and time (ms) of messages that Kafka's client has no room for, oldest first."""
        self._failed: list[tuple[str, Message]] = []
        """Each refused message with the reason."""
        self._published: dict[str, int] = {}
        """By topic the messages not yet counted as acknowledged."""
        self._counting = threading.Lock()
        """The loop publishes while the thread that writes the tables flushes."""

    @property
    def waiting(self) -> int:
        """Messages that Kafka has not acknowledged yet."""
        return len(self._producer) + len(self._held)

    @property
    def full(self) -> bool:
        """Whether Kafka's client has no room for further messages; never true if `publish` waits."""
        return bool(self._held)

    def publish(self, topic: str, key: str, value: bytes, ts_ns: int) -> None:
        """Queue one message with its time (ns since the epoch).

        Raises `ServiceError` if Kafka's client does not take the message, for example because it is too large, and
        `BtcError` when the producer cannot send anything any more; the process must then end.
        """
        self._produce(topic, key, value, timestamp_ms(ts_ns))
        with self._counting:
            self._published[topic] = self._published.get(topic, 0) + 1

    def _produce(self, topic: str, key: str | bytes, value: bytes, ts_ms: int) -> None:
        if not self._blocking:
            if self._held or not self._has_queued(topic, key, value, ts_ms):
                self._held.append((topic, key, value, ts_ms))
            return
        while not self._has_queued(topic, key, value, ts_ms):
            self._serve(self._producer.poll, 0.1)

    def _has_queued(self, topic: str, key: str | bytes, value: bytes, ts_ms: int) -> bool:
        """Queue a message; returns False if there is no room for it."""
        try:
            self._producer.produce(topic, value, key, timestamp=ts_ms, on_delivery=self._on_failure)
        except BufferError:
            return False
        except KafkaException as error:
            cause = error.args[0]
            if cause.fatal():
                raise self._failed_for_good(cause) from error
            why = explain(self._kafka, cause)
            raise ServiceError(
                f"Kafka's client does not take a message of {len(value)} bytes for {topic}: {why}"
            ) from error
        return True

    def _failed_for_good(self, cause: KafkaError | None) -> BtcError:
        why = explain(self._kafka, cause) if cause is not None else "the line FATAL in its log has the reason"
        return BtcError(
            f"the Kafka producer {self._client_id} failed for good, and only a new process has another: {why}"
        )

    def _serve(self, call: Callable[[float], int], timeout_s: float) -> int:
        """Let Kafka's client call back; raises `BtcError` when the producer cannot send anything any more."""
        try:
            left = call(timeout_s)
        except (KafkaException, SystemError) as error:
            # Kafka's client may set an exception of its own for a fatal error, and loses it now and then. Python then reports
            # a SystemError, with or without that cause.
            cause = error if isinstance(error, KafkaException) else error.__cause__
            fatal = cause.args[0] if isinstance(cause, KafkaException) else self._fatal
            raise self._failed_for_good(fatal) from error
        if self._fatal is not None:
            raise self._failed_for_good(self._fatal)
        return left

    def _note_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error

    def _queue_held(self) -> None:
        """Queue the messages that were held back, as far as there is room, in their order."""
        while self._held and self._has_queued(*self._held[0]):
            self._held.popleft()

    def dead_letter(
        self,
        reason: str,
        message: str,
        raw: bytes,
        place: tuple[str, int, int] = ("", -1, -1),
        exchange: str = "",
    ) -> None:
        """Queue a dead letter: what could not be used, and why.

        `place` is its topic, partition and offset if it has one; `exchange` sent it if it comes from a socket.
        """
        kept = raw[:MAX_DEADLETTER_BYTES]
        reason, message = reason[:MAX_REASON_CHARS], message[:MAX_MESSAGE_CHARS]
        letter = DeadLetter(reason, message, now_ns(), self._client_id, *place, kept, len(raw), exchange)
        metrics.DEAD_LETTERS.labels(self._client_id, reason).inc()
        self.publish(DEADLETTERS_TOPIC, reason, _json.encode(letter), letter.ts_ns)

    def poll(self, timeout_s: float) -> None:
        """Process Kafka's acknowledgements; raises `ServiceError` when it refused a message, which is then queued again."""
        self._serve(self._producer.poll, timeout_s)
        self._queue_held()
        self._raise_failed()
        if not self.waiting:
            self._count_acknowledged()

    def flush(self) -> None:
        """Wait for all acknowledgements; raises `ServiceError` when one is missing or Kafka refused a message.

        A refused message is queued again, so the next `flush` waits for it too.
        """
        left = self._serve(self._producer.flush, FLUSH_TIMEOUT_S)
        while self._held and not left:
            self._queue_held()
            left = self._serve(self._producer.flush, FLUSH_TIMEOUT_S)
        self._raise_failed()
        left += len(self._held)
        if left:
            msg = f"Kafka did not acknowledge {left} messages within {FLUSH_TIMEOUT_S:.0f} s"
            raise ServiceError(msg)
        self._count_acknowledged()

    def _count_acknowledged(self) -> None:
        with self._counting:
            published, self._published = self._published, {}
        for topic, count in published.items():
            metrics.ACKED_MESSAGES.labels(self._client_id, topic).inc(count)

    def _raise_failed(self) -> None:
        """Queue refused messages again and raise the reason of the first."""
        if not self._failed:
            return
        failed, self._failed = self._failed, []
        for place, (_, message) in enumerate(failed):
            _, ts_ms = message.timestamp()
            try:
                self._produce(message.topic() or "", message.key() or b"", message.value() or b"", ts_ms)
            except ServiceError:
                self._failed += failed[place:]  # they are queued again at the next attempt
                raise
        msg = f"Kafka refused a message on {failed[0][0]}"
        raise ServiceError(msg)

    def _on_failure(self, error: Any, message: Message) -> None:
        """Kafka refused a message; the client reports nothing else (`delivery.report.only.error`)."""
        self._failed.append((f"{message.topic()}: {explain(self._kafka, error)}", message))
