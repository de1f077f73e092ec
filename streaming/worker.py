"""The loop of every consumer: warm up, take a batch, hand it on at once, write the tables behind it, then commit.

Offsets are committed only after every table and topic has acknowledged, so a crash repeats rows and the keys of the tables
make them one. State is rebuilt at the start: from the last checkpoint and the log behind it, or from the log alone.
What does not belong here: what a worker makes of a message.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicPartition

from btc_core import metrics
from btc_core.clock import NS_PER_MS, now_ns
from btc_core.errors import ServiceError
from btc_core.stores.kafka import consumer, timestamp_at
from streaming.checkpoints import Checkpoints

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import Consumer, Message

    from btc_core.settings import Settings

log = logging.getLogger(__name__)

T = TypeVar("T")

PAUSE_FIRST_S, PAUSE_MAX_S = 0.2, 5.0
"""Between two tries while a service is away, doubling."""
KAFKA_TIMEOUT_S = 30.0
AHEAD_BATCHES = 4
"""How far a worker may be ahead of its tables while they can be written: more only costs memory."""
LET_GO_S = 5.0
"""Longest wait for tables when partitions go to another member: the whole group stands still meanwhile."""
WRITING_POLL_S = 0.02
"""How soon offsets are committed after their tables were written, when no message comes meanwhile."""
CHECKPOINT_S = 60.0
"""A restart folds at most this much of the log again; two megabytes a symbol are written each time."""
LAG_S = 1.0
"""How often the lag is looked up; it costs no request."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """One message of the log and its place there."""

    partition: int
    offset: int
    value: bytes


class Handler(Protocol):
    """What a worker does; `warm` must not write anywhere."""

    def reset(self) -> None:
        """Forget everything: partitions are assigned anew, and each is warmed up from its beginning."""
        ...

    def warm(self, messages: list[Record]) -> None:
        """Rebuild state from messages that were handled before."""
        ...

    def save(self, partition: int, /) -> bytes:
        """The state of one partition after everything handled so far."""
        ...

    def load(self, state: bytes, /) -> None:
        """Take up what `save` gave."""
        ...

    def handle(self, messages: list[Record]) -> int:
        """Hand a batch on to those who wait for it and keep its rows for `drain`; returns how many are kept in all.

        May be called again with the same batch when it raised `ServiceError`.
        """
        ...

    def drain(self) -> Callable[[], None]:
        """Hand over what is kept as work that writes it and returns when every table and topic has acknowledged.

        The work runs in another thread, one piece at a time, and may be called again when it raised `ServiceError`.
        """
        ...


class Stateless:
    """What a handler has that remembers nothing between batches."""

    def warm(self, messages: list[Record], /) -> None:
        """Nothing is learned from the past."""

    def save(self, _partition: int, /) -> bytes:
        """Nothing outlasts a batch."""
        return b""

    def load(self, state: bytes, /) -> None:
        """There is nothing to take up."""


class Role(msgspec.Struct, frozen=True):
    """What a worker reads, and how far back its state reaches.

    `warm_up_s` is how far before the committed offset (by receive time) the state must be rebuilt from, and
    `state_version` that of the state in its checkpoints; one without state has neither. Nobody waits for what a worker
    that is not `eager` makes.
    """

    group: str
    topic: str
    warm_up_s: float = 0.0
    state_version: str = ""
    eager: bool = True


class Writing(msgspec.Struct, frozen=True):
    """What is being written: the work, the offsets to commit after it, and checkpoints of that moment."""

    work: Future[None]
    offsets: list[TopicPartition]
    states: dict[int, bytes]
    given_up: threading.Event
    """Set when nobody waits for it any more: it is not tried again."""


class Worker:
    """One consumer of one topic in one group."""

    def __init__(self, settings: Settings, role: Role, handler: Handler) -> None:
        self._kafka = settings.kafka
        self._stream = settings.stream
        self._topic = role.topic
        self._handler = handler
        self._warm_up_s = role.warm_up_s
        self._group = role.group
        self._consumer: Consumer = consumer(
            settings.kafka, role.group, f"{role.group}-{settings.stream.instance}", eager=role.eager
        )
        self._live_from: dict[int, int] = {}
        self._next: dict[int, int] = {}
        self._settled_at_s = 0.0
        self._kept = 0
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="tables")
        self._writing: Writing | None = None
        self._checkpoints = Checkpoints(settings.stream.state_dir, role.group, role.topic, role.state_version)
        self._checkpoint_at_s = time.monotonic()
        self._cluster = ""
        self._stop = threading.Event()
        self._away = threading.Event()
        """Set while a service that tables or topics are written to is away."""
        self._lag_at_s = 0.0

    def run(self) -> None:
        """Work until `stop` is called; commits once more on the way out. Raises `ServiceError` when it cannot go on."""
        self._consumer.subscribe([self._topic], on_assign=self._assign, on_revoke=self._revoke)
        try:
            while not self._stop.is_set():
                self._step()
            self._settle_all()
        except KafkaException as error:
            msg = f"Kafka at {self._kafka.bootstrap}, topic {self._topic}, group {self._group}: {error}"
            raise ServiceError(msg) from error
        finally:
            self._stop.set()  # the writer must not wait for a service any longer
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
        metrics.LOOP_AT.labels(self._group).set_to_current_time()
        batch = self._take()
        warm: list[Record] = []
        live: list[Record] = []
        for message in batch:
            known = message.offset < self._live_from.get(message.partition, 0)
            (warm if known else live).append(message)
        if warm:
            self._handler.warm(warm)
        if live:
            self._kept = self._patiently(lambda: self._handler.handle(live), self._idle)
            metrics.CONSUMED.labels(self._group, self._topic).inc(len(live))
        for message in batch:
            self._next[message.partition] = message.offset + 1
        self._settle()
        self._measure_lag()

    def _take(self) -> list[Record]:
        """At least one message as soon as there is one, and whatever else comes within the batch wait."""
        first = self._consumer.poll(self._until_due_s())
        if first is None:
            return []
        rest = self._consumer.consume(self._stream.batch_rows - 1, self._stream.batch_wait_ms / 1_000)
        return [record for message in (first, *rest) if (record := _record(message)) is not None]

    def _until_due_s(self) -> float:
        """How long nothing but a message needs this thread: until tables are due, or may have been written."""
        if self._writing is not None:
            return WRITING_POLL_S
        flush_s = self._stream.table_flush_ms / 1_000
        return max(0.0, flush_s - (time.monotonic() - self._settled_at_s)) if self._kept else flush_s

    def _patiently(self, work: Callable[[], T], idle: Callable[[float], None]) -> T:
        """Do `work`, again for as long as a service is away; `idle` waits. Stops trying when the worker is stopped."""
        pause_s = PAUSE_FIRST_S
        while True:
            try:
                result = work()
            except ServiceError as error:
                if self._stop.is_set():
                    raise
                log.warning("%s; next try in %.1f s", error, pause_s)
                metrics.RETRIES.labels(self._group).inc()
                idle(pause_s)
                pause_s = min(pause_s * 2, PAUSE_MAX_S)
            else:
                return result

    def _idle(self, seconds: float) -> None:
        """Wait as a living member of the group that takes nothing: Kafka expels one that does not poll."""
        metrics.LOOP_AT.labels(self._group).set_to_current_time()
        parts = self._consumer.assignment()
        self._consumer.pause(parts)
        message = self._consumer.poll(seconds)
        if message is not None and _record(message) is not None:  # taken before the pause: take it again later
            self._consumer.seek(TopicPartition(self._topic, message.partition() or 0, message.offset() or 0))
        self._consumer.resume(self._consumer.assignment())

    def _settle(self) -> None:
        """Commit what is written; when it is time, start to write what is kept."""
        most = self._stream.max_unwritten_rows if self._away.is_set() else AHEAD_BATCHES * self._stream.batch_rows
        while self._writing is not None and not self._writing.work.done():
            if self._kept < min(most, self._stream.max_unwritten_rows):
                return
            if self._away.is_set():
                most = self._stream.max_unwritten_rows
                self._idle(PAUSE_FIRST_S)
            else:  # pausing would throw away what was fetched ahead
                metrics.LOOP_AT.labels(self._group).set_to_current_time()
                futures.wait([self._writing.work], PAUSE_FIRST_S)
        if self._writing is not None:
            self._commit()
        waited_ms = 1_000 * (time.monotonic() - self._settled_at_s)
        if self._kept >= self._stream.batch_rows or waited_ms >= self._stream.table_flush_ms:
            self._write()

    def _measure_lag(self) -> None:
        now_s = time.monotonic()
        if now_s - self._lag_at_s < LAG_S:
            return
        self._lag_at_s = now_s
        for partition, position in self._next.items():
            _low, high = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), cached=True)
            metrics.LAG.labels(self._group, str(partition)).set(max(0, high - position))

    def _settle_all(self, wait_s: float | None = None) -> None:
        """Write and commit everything taken so far, as far as it takes no longer than `wait_s` each."""
        if self._commit(wait_s):
            self._write(last=True)
            self._commit(wait_s)

    def _write(self, *, last: bool = False) -> None:
        """Begin to write what is kept; now and then, and at last, with a checkpoint."""
        now_s = self._settled_at_s = time.monotonic()
        ready = [
            TopicPartition(self._topic, partition, offset)
            for partition, offset in self._next.items()
            if offset > self._live_from.get(partition, 0)
        ]
        if not ready:
            return
        work = self._handler.drain()
        self._kept = 0
        states = {}
        if self._warm_up_s > 0 and (last or now_s - self._checkpoint_at_s > CHECKPOINT_S):
            self._checkpoint_at_s = now_s
            states = {part.partition: self._handler.save(part.partition) for part in ready}
        given_up = threading.Event()

        def write() -> None:
            if not given_up.is_set():
                work()
            self._away.clear()

        def rest(seconds: float) -> None:
            self._away.set()
            until_s = time.monotonic() + seconds
            while time.monotonic() < until_s and not given_up.is_set() and not self._stop.wait(WRITING_POLL_S):
                pass

        job = self._writer.submit(lambda: self._patiently(write, rest))
        self._writing = Writing(job, ready, states, given_up)

    def _commit(self, wait_s: float | None = None) -> bool:
        """Wait for the writer, raise what it raised, commit what it wrote; False when it took longer than `wait_s`.

        Then its offsets stay where they are: whoever has the partitions writes the same rows again.
        """
        if self._writing is None:
            return True
        written, self._writing = self._writing, None
        futures.wait([written.work], wait_s)
        if not written.work.done():
            written.given_up.set()
            log.warning("%s s were not enough to write the tables; whoever goes on writes these rows", wait_s)
            return False
        written.work.result()
        try:
            if not written.states:
                self._consumer.commit(offsets=written.offsets)
            else:  # a checkpoint must not be ahead of what is committed
                self._consumer.commit(offsets=written.offsets, asynchronous=False)
        except KafkaException as error:  # the rows are written; whoever goes on writes them once more, as the same rows
            log.warning("offsets not committed: %s", error)
            return True
        for part in written.offsets:
            self._live_from[part.partition] = part.offset
            if part.partition in written.states:
                state = written.states[part.partition]
                self._writer.submit(self._checkpoints.write, self._cluster, part.partition, part.offset, state)
        return True

    def _assign(self, taker: Consumer, partitions: list[TopicPartition]) -> None:
        self._handler.reset()
        self._kept = 0
        committed = taker.committed(partitions, timeout=KAFKA_TIMEOUT_S)
        start = []
        for part in committed:
            low, high = taker.get_watermark_offsets(part, timeout=KAFKA_TIMEOUT_S)
            live = part.offset if part.offset >= 0 else low
            self._live_from[part.partition] = live
            self._next.pop(part.partition, None)
            begin = self._begin(taker, part, low, live, high) if self._warm_up_s > 0 else live
            start.append(TopicPartition(part.topic, part.partition, begin if begin > 0 else OFFSET_BEGINNING))
            log.info("%s[%d]: warm from %d, live from %d, end %d", part.topic, part.partition, begin, live, high)
        taker.assign(start)

    def _begin(self, taker: Consumer, part: TopicPartition, low: int, live: int, high: int) -> int:
        """First offset to fold silently: behind the checkpoint if there is one that fits."""
        self._cluster = self._cluster or str(taker.list_topics(part.topic, timeout=KAFKA_TIMEOUT_S).cluster_id)
        found = self._checkpoints.read(self._cluster, part.partition, low, live)
        if found is not None:
            self._handler.load(found.state)
            return found.offset
        return max(low, min(live, self._warm_from(taker, part, live, high)))

    def _warm_from(self, taker: Consumer, part: TopicPartition, live: int, high: int) -> int:
        """First offset to fold silently: `warm_up_s` before the first live message, which may be long ago."""
        first_ms = timestamp_at(self._kafka, part.topic, part.partition, live) if live < high else now_ns() // NS_PER_MS
        since_ms = max(0, first_ms - int(self._warm_up_s * 1_000))
        (mark,) = taker.offsets_for_times(
            [TopicPartition(part.topic, part.partition, since_ms)], timeout=KAFKA_TIMEOUT_S
        )
        return mark.offset if mark.offset >= 0 else high

    def _revoke(self, _taker: Consumer, partitions: list[TopicPartition]) -> None:
        self._settle_all(LET_GO_S)
        for part in partitions:
            self._live_from.pop(part.partition, None)
            if self._next.pop(part.partition, None) is not None:  # somebody else's lag now
                metrics.LAG.remove(self._group, str(part.partition))


def _record(message: Message) -> Record | None:
    """The message, or None for an event of the client that passes; raises `KafkaException` for one that does not."""
    error = message.error()
    if error is None:
        return Record(message.partition() or 0, message.offset() or 0, message.value() or b"")
    if error.fatal() or error.code() == KafkaError._FATAL:  # noqa: SLF001 - its public name; the client is finished: only a new process goes on
        raise KafkaException(error)
    log.warning("kafka: %s", error)
    return None
