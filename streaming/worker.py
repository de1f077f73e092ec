"""The loop of every consumer: warm up, take a batch, hand it on at once, write the tables behind it, then commit.

Offsets are committed only after every table, topic and key has acknowledged, so a crash repeats rows and the keys
of the tables make them one. State is rebuilt from the log at the start, never trusted.
What does not belong here: what a worker makes of a message.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec
from confluent_kafka import OFFSET_BEGINNING, KafkaException, TopicPartition

from btc_core.clock import NS_PER_MS, now_ns
from btc_core.errors import ServiceError
from btc_core.log import consumer, timestamp_at

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from confluent_kafka import Consumer

    from btc_core.settings import Settings

log = logging.getLogger(__name__)

T = TypeVar("T")

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
        """Hand a batch on to those who wait for it and keep its rows for `cut`; returns how many are kept.

        May be called again with the same batch when it raised `ServiceError`.
        """
        ...

    def cut(self) -> Callable[[], None]:
        """Hand over what is kept as work that writes it and returns when every table and topic has acknowledged.

        The work runs in another thread, one piece at a time, and may be called again when it raised `ServiceError`.
        """
        ...


class Worker:
    """One consumer of one topic in one group.

    `warm_up_s` is how far before the committed offset (by receive time) the state must be rebuilt from.
    """

    def __init__(self, settings: Settings, group: str, topic: str, handler: Handler, warm_up_s: float) -> None:
        self._kafka = settings.kafka
        self._stream = settings.stream
        self._topic = topic
        self._handler = handler
        self._warm_up_s = warm_up_s
        self._consumer: Consumer = consumer(settings.kafka, group)
        self._live_from: dict[int, int] = {}
        self._next: dict[int, int] = {}
        self._settled_at_s = 0.0
        self._kept = 0
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="tables")
        self._writing: tuple[Future[None], list[TopicPartition]] | None = None
        self._stop = threading.Event()

    def run(self) -> None:
        """Work until `stop` is called; commits once more on the way out."""
        self._consumer.subscribe([self._topic], on_assign=self._assign, on_revoke=self._revoke)
        try:
            while not self._stop.is_set():
                self._step()
            self._settle_all()
        finally:
            self._writer.shutdown()
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
            self._kept = self._patiently(lambda: self._handler.handle(live))
        for message in batch:
            self._next[message.partition] = message.offset + 1
        self._settle(full=self._kept >= self._stream.batch_rows)

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

    def _patiently(self, work: Callable[[], T]) -> T:
        """Do `work`, again while a service is away, for at most `RETRY_S`."""
        deadline_s = time.monotonic() + RETRY_S
        pause_s = 0.2
        while True:
            try:
                return work()
            except ServiceError as error:
                if self._stop.is_set() or time.monotonic() > deadline_s:
                    raise
                log.warning("%s; next try in %.1f s", error, pause_s)
                self._stop.wait(pause_s)
                pause_s = min(pause_s * 2, 5.0)

    def _settle(self, *, full: bool) -> None:
        """Commit what is written; when it is time, start to write what is kept. `full` waits for the writer."""
        if self._writing is not None:
            if not full and not self._writing[0].done():
                return
            self._commit(asynchronous=True)
        if full or time.monotonic() - self._settled_at_s >= self._stream.table_flush_ms / 1_000:
            self._write()

    def _settle_all(self) -> None:
        """Write and commit everything taken so far."""
        self._commit(asynchronous=False)
        self._write()
        self._commit(asynchronous=False)

    def _write(self) -> None:
        self._settled_at_s = time.monotonic()
        ready = [
            TopicPartition(self._topic, partition, offset)
            for partition, offset in self._next.items()
            if offset > self._live_from.get(partition, 0)
        ]
        if ready:
            work = self._handler.cut()
            self._kept = 0
            self._writing = (self._writer.submit(self._patiently, work), ready)

    def _commit(self, *, asynchronous: bool) -> None:
        """Wait for the writer, raise what it raised, commit what it wrote."""
        if self._writing is None:
            return
        written, ready = self._writing
        written.result()
        self._writing = None
        if asynchronous:
            self._consumer.commit(offsets=ready)
        else:
            self._consumer.commit(offsets=ready, asynchronous=False)
        for part in ready:
            self._live_from[part.partition] = part.offset

    def _assign(self, taker: Consumer, partitions: list[TopicPartition]) -> None:
        committed = taker.committed(partitions, timeout=KAFKA_TIMEOUT_S)
        start = []
        for part in committed:
            low, high = taker.get_watermark_offsets(part, timeout=KAFKA_TIMEOUT_S)
            live = part.offset if part.offset >= 0 else low
            self._live_from[part.partition] = live
            self._next.pop(part.partition, None)
            begin = max(low, min(live, self._warm_from(taker, part, live, high))) if self._warm_up_s > 0 else live
            start.append(TopicPartition(part.topic, part.partition, begin if begin > 0 else OFFSET_BEGINNING))
            log.info("%s[%d]: warm from %d, live from %d, end %d", part.topic, part.partition, begin, live, high)
        taker.assign(start)

    def _warm_from(self, taker: Consumer, part: TopicPartition, live: int, high: int) -> int:
        """First offset to fold silently: `warm_up_s` before the first live message, which may be long ago."""
        first_ms = timestamp_at(self._kafka, part.topic, part.partition, live) if live < high else now_ns() // NS_PER_MS
        since_ms = max(0, first_ms - int(self._warm_up_s * 1_000))
        (mark,) = taker.offsets_for_times(
            [TopicPartition(part.topic, part.partition, since_ms)], timeout=KAFKA_TIMEOUT_S
        )
        return mark.offset if mark.offset >= 0 else high

    def _revoke(self, _taker: Consumer, partitions: list[TopicPartition]) -> None:
        self._settle_all()
        for part in partitions:
            self._live_from.pop(part.partition, None)
            self._next.pop(part.partition, None)
