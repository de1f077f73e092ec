"""Publishing frames to the log, with conflation of quotes while too many messages wait for Kafka.

Above `conflate_above` waiting messages a quote is held back, and a newer quote of its symbol replaces it. It is sent
before the symbol's next trade, so the order of the log stays the order of receipt. A quote that replaced others is marked
(`Envelope.conflated`). Book frames are left out meanwhile. Both are counted. Trades are never left out.
What does not belong here: what a frame means (`ingest`), or how Kafka is reached (`publisher`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from btc_core import metrics
from btc_core.market.frames import BookFrame, TickerFrame
from btc_core.market.messages import encode_envelope
from btc_core.names import EVENTS_TOPIC
from btc_core.stores.kafka import MAX_QUEUED_MESSAGES

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.market.frames import ChannelFrame
    from btc_core.market.messages import Envelope
    from streaming.publisher import Publisher

FULL_MESSAGES = MAX_QUEUED_MESSAGES * 9 // 10
"""Above this many waiting messages the socket is not read; the rest of the queue is for frames already read."""


class ConflatingPublisher:
    """Frames to `market.events` in the order of their receipt."""

    def __init__(self, publisher: Publisher, conflate_above: int, log_key: Callable[[str], str] = str) -> None:
        """`log_key` returns the Kafka key of the messages of a symbol (`Settings.log_key`)."""
        self._publisher = publisher
        self._log_key = log_key
        self._conflate_above = conflate_above
        self._held_quotes: dict[str, Envelope] = {}

    @property
    def full(self) -> bool:
        """Whether no more frames should be read from the socket."""
        return self._publisher.full or self._publisher.waiting >= FULL_MESSAGES

    def publish(self, key: str, envelope: Envelope, frame: ChannelFrame) -> bool:
        """Publish a frame; while too many messages wait, hold it back if it is a quote, leave it out if it is a book.

        Returns False for a frame that is left out.
        """
        conflating = self._publisher.waiting > self._conflate_above
        if conflating and isinstance(frame, BookFrame):
            metrics.CONFLATED.labels("book", key).inc()
            return False
        if conflating and isinstance(frame, TickerFrame):
            if key in self._held_quotes:
                metrics.CONFLATED.labels("ticker", key).inc()
                envelope = msgspec.structs.replace(envelope, conflated=True)
            self._held_quotes[key] = envelope
            return True
        if self._held_quotes:
            self._send_held_quote(key)
        self._send(key, envelope)
        return True

    def poll(self) -> None:
        """Process Kafka's acknowledgements, and send the held quotes once few enough messages wait."""
        self._publisher.poll(0)
        if self._held_quotes and self._publisher.waiting <= self._conflate_above:
            for key in list(self._held_quotes):
                self._send_held_quote(key)

    def _send_held_quote(self, key: str) -> None:
        envelope = self._held_quotes.pop(key, None)
        if envelope is not None:
            self._send(key, envelope)

    def _send(self, key: str, envelope: Envelope) -> None:
        self._publisher.publish(EVENTS_TOPIC, self._log_key(key), encode_envelope(envelope), envelope.ts_recv_ns)
