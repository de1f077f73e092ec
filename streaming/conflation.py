"""What ingest still owes the log: frames on their way to Kafka, and what is left out when too many wait.

Above `conflate_above` waiting messages a quote is held back; a newer one of its symbol takes its place, and it is sent
before the next trade, so that their order stays the record. Book frames are left out then. Both are counted.
What does not belong here: what a frame means (`ingest`), or how Kafka is reached (`publisher`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from btc_core import metrics
from btc_core.market.frames import BookFrame, TickerFrame
from btc_core.market.messages import encode_envelope
from btc_core.names import EVENTS_TOPIC
from btc_core.stores.kafka import MAX_QUEUED_MESSAGES

if TYPE_CHECKING:
    from btc_core.market.frames import ChannelFrame
    from btc_core.market.messages import Envelope
    from streaming.publisher import Publisher

FULL = MAX_QUEUED_MESSAGES * 9 // 10
"""Beyond this the socket is not read: the rest is room for what was read already."""


class Outbox:
    """Frames to the log in order."""

    def __init__(self, publisher: Publisher, conflate_above: int) -> None:
        self._publisher = publisher
        self._conflate_above = conflate_above
        self._held: dict[str, Envelope] = {}

    @property
    def full(self) -> bool:
        """True when nothing more should be read."""
        return self._publisher.waiting >= FULL

    def put(self, symbol: str, envelope: Envelope, frame: ChannelFrame) -> None:
        """Send a frame, or hold it back or leave it out while too many wait."""
        crowded = self._publisher.waiting > self._conflate_above
        if crowded and isinstance(frame, BookFrame):
            metrics.CONFLATED.labels("book", symbol).inc()
            return
        if crowded and isinstance(frame, TickerFrame):
            if symbol in self._held:
                metrics.CONFLATED.labels("ticker", symbol).inc()
            self._held[symbol] = envelope
            return
        if self._held:
            self._release(symbol)
        self._send(symbol, envelope)

    def settle(self) -> None:
        """Serve Kafka's answers, and send what is held when there is room again."""
        self._publisher.poll(0)
        if self._held and self._publisher.waiting <= self._conflate_above:
            for symbol in list(self._held):
                self._release(symbol)

    def _release(self, symbol: str) -> None:
        held = self._held.pop(symbol, None)
        if held is not None:
            self._send(symbol, held)

    def _send(self, symbol: str, envelope: Envelope) -> None:
        self._publisher.publish(EVENTS_TOPIC, symbol, encode_envelope(envelope), envelope.ts_recv_ns)
