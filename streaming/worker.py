"""The loop of every consumer: warm up, take a batch, hand it on at once, write the tables twice a second, then commit.

Offsets are committed only after every table, topic and key has acknowledged, so a crash repeats rows and the keys
of the tables make them one. State is rebuilt from the log at the start, never trusted.
What does not belong here: what a worker makes of a message.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from typing import TYPE_CHECKING, Protocol

import msgspec
from confluent_kafka import OFFSET_BEGINNING, KafkaException, TopicPartition

from btc_core.clock import NS_PER_MS, now_ns
from btc_core.errors import ServiceError
from btc_core.log import consumer

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import Consumer

    from btc_core.settings import Settings

log = logging.getLogger(__name__)

RETRY_S = 30.0
"""How long a batch is tried again while a service is away; then the worker stops and its supervisor starts it anew."""
KAFKA_TIMEOUT_S = 30.0


class Record(msgspec.Struct, frozen=True, gc=False):
    """One message of the log and its place there."""

    partition: int
    offset: int
    value: bytes


class Handler(Protocol):
    """What a worker does; `warm` must not write anywhere."""

    def warm(self, messages: list[Record]) -> None:
        """Rebuild state from messages that were handled before."""
        ...

    def handle(self, messages: list[Record]) -> int:
        """Hand a batch on to those who wait for it and keep its rows for `flush`; returns how many are kept.

        May be called again with the same batch when it raised `ServiceError`.
        """
        ...

    def flush(self) -> None:
        """Write what is kept and return when every table and topic has acknowledged; may be called again."""
        ...


class Worker:
    """One consumer of one topic in one group.

    `warm_up_s` is how far before the committed offset (by receive time) the state must be rebuilt from.
    """

    def __init__(self, settings: Settings, group: str, topic: str, handler: Handler, warm_up_s: float) -> None:
        self._stream = settings.stream
        self._topic = topic
        self._handler = handler
        self._warm_up_s = warm_up_s
        self._consumer: Consumer = consumer(settings.kafka, group)
        self._live_from: dict[int, int] = {}
        self._next: dict[int, int] = {}
        self._settled_at_s = 0.0
        self._kept = 0
        self._stop = threading.Event()

    def run(self) -> None:
        """Work until `stop` is called; commits once more on the way out."""
        self._consumer.subscribe([self._topic], on_assign=self._assign, on_revoke=self._revoke)
        try:
            while not self._stop.is_set():
                self._step()
            self._settle(force=True)
        finally:
            self._consumer.close()

    def stop(self) -> None:
        """Finish the batch in hand and leave; safe to call from a signal handler."""
        self._stop.set()

    def stop_on_signals(self) -> None:
        """SIGTERM and SIGINT end the worker after its batch."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop())

    def _step(self) -> None:
        batch = self._take()
        warm: list[Record] = []
        live: list[Record] = []
        for message in batch:
            known = message.offset < self._live_from.get(message.partition, 0)
            (warm if known else live).append(message)
        if warm:
            self._handler.warm(warm)
        if live:
            self._kept = self._patiently(lambda: self._handler.handle(live), len(live))
        for message in batch:
            self._next[message.partition] = message.offset + 1
        self._settle(force=self._kept >= self._stream.batch_rows)

    def _take(self) -> list[Record]:
        """At least one message as soon as there is one, and whatever else comes within the batch wait."""
        first = self._consumer.poll(self._stream.table_flush_ms / 1_000)
        if first is None:
            return []
        rest = self._consumer.consume(self._stream.batch_rows - 1, self._stream.batch_wait_ms / 1_000)
        batch = []
        for message in [first, *rest]:
            error = message.error()
            if error is None:
                batch.append(Record(message.partition() or 0, message.offset() or 0, message.value() or b""))
            elif error.fatal():
                raise KafkaException(error)
            else:
                log.warning("kafka: %s", error)
        return batch

    def _patiently(self, work: Callable[[], int], messages: int) -> int:
        """Do `work`, again while a service is away, for at most `RETRY_S`."""
        deadline_s = time.monotonic() + RETRY_S
        pause_s = 0.2
        while True:
            try:
                return work()
            except ServiceError as error:
                if self._stop.is_set() or time.monotonic() > deadline_s:
                    raise
                log.warning("%s; %d messages wait, next try in %.1f s", error, messages, pause_s)
                self._stop.wait(pause_s)
                pause_s = min(pause_s * 2, 5.0)

    def _settle(self, *, force: bool) -> None:
        """Flush the tables and commit, when it is time; never commit what is not flushed."""
        now_s = time.monotonic()
        if not force and now_s - self._settled_at_s < self._stream.table_flush_ms / 1_000:
            return
        self._settled_at_s = now_s
        ready = [
            TopicPartition(self._topic, partition, offset)
            for partition, offset in self._next.items()
            if offset > self._live_from.get(partition, 0)
        ]
        if not ready:
            return
        self._patiently(self._flush, self._kept)
        self._kept = 0
        self._consumer.commit(offsets=ready, asynchronous=False)
        for part in ready:
            self._live_from[part.partition] = part.offset

    def _flush(self) -> int:
        self._handler.flush()
        return 0

    def _assign(self, taker: Consumer, partitions: list[TopicPartition]) -> None:
        committed = taker.committed(partitions, timeout=KAFKA_TIMEOUT_S)
        since_ms = (now_ns() - int(self._warm_up_s * 1e9)) // NS_PER_MS
        marks = taker.offsets_for_times(
            [TopicPartition(part.topic, part.partition, since_ms) for part in partitions], timeout=KAFKA_TIMEOUT_S
        )
        start = []
        for part, mark in zip(committed, marks, strict=True):
            low, high = taker.get_watermark_offsets(part, timeout=KAFKA_TIMEOUT_S)
            live = part.offset if part.offset >= 0 else low
            self._live_from[part.partition] = live
            self._next.pop(part.partition, None)
            warm = mark.offset if mark.offset >= 0 else high
            begin = max(low, min(live, warm)) if self._warm_up_s > 0 else live
            start.append(TopicPartition(part.topic, part.partition, begin if begin > 0 else OFFSET_BEGINNING))
            log.info("%s[%d]: warm from %d, live from %d, end %d", part.topic, part.partition, begin, live, high)
        taker.assign(start)

    def _revoke(self, _taker: Consumer, partitions: list[TopicPartition]) -> None:
        self._settle(force=True)
        for part in partitions:
            self._live_from.pop(part.partition, None)
            self._next.pop(part.partition, None)
