"""Publishing to a topic and knowing that it arrived.

What does not belong here: what is published.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from btc_core.clock import now_ns
from btc_core.errors import ServiceError
from btc_core.log import DEADLETTERS, DeadLetter, producer, timestamp_ms

if TYPE_CHECKING:
    from btc_core.settings import KafkaSettings

FLUSH_TIMEOUT_S = 30.0
MAX_DEADLETTER_BYTES = 10_000
"""Of a refused frame, the head is kept: enough to see what it was, small enough to never be refused itself."""

_json = msgspec.json.Encoder()


class Publisher:
    """One producer; `flush` returns when everything published before is acknowledged."""

    def __init__(self, settings: KafkaSettings, client_id: str) -> None:
        self._producer = producer(settings, client_id)
        self._client_id = client_id
        self._failed: list[str] = []

    def publish(self, topic: str, key: str, value: bytes, ts_ns: int) -> None:
        """Queue one message; when the queue is full, wait until it has room."""
        while True:
            try:
                self._producer.produce(topic, value, key, timestamp=timestamp_ms(ts_ns), on_delivery=self._delivered)
            except BufferError:
                self._producer.poll(0.1)
            else:
                self._producer.poll(0)
                return

    def dead_letter(self, reason: str, message: str, raw: bytes, place: tuple[str, int, int] = ("", -1, -1)) -> None:
        """Queue what could not be used with its reason; `place` is the topic, partition and offset it came from."""
        letter = DeadLetter(reason, message, now_ns(), self._client_id, *place, raw[:MAX_DEADLETTER_BYTES])
        self.publish(DEADLETTERS, reason, _json.encode(letter), letter.ts_ns)

    def poll(self, timeout_s: float) -> None:
        """Serve delivery reports."""
        self._producer.poll(timeout_s)

    def flush(self) -> None:
        """Wait for all acknowledgements; raises `ServiceError` when one did not come."""
        left = self._producer.flush(FLUSH_TIMEOUT_S)
        if left or self._failed:
            problem = self._failed[0] if self._failed else f"{left} messages not acknowledged in {FLUSH_TIMEOUT_S} s"
            self._failed.clear()
            msg = f"Kafka did not take everything: {problem}"
            raise ServiceError(msg)

    def failures(self) -> list[str]:
        """Failed deliveries since the last call, in Kafka's words."""
        failed, self._failed = self._failed, []
        return failed

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self._failed.append(f"{message.topic()}: {error}")
