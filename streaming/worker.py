"""The loop of every consumer: warm up, take a batch, handle it at once, write the tables in a second thread, commit.

Offsets are committed only after every table and topic has acknowledged, so a crash repeats rows and the keys of the
tables make them one. State is rebuilt at the start: from the last checkpoint and the log behind it, or from the log alone.
What does not belong here: what a worker does with a message (`handler`).
"""

from __future__ import annotations

import gc
import logging
import signal
import threading
import time
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import msgspec
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicPartition

from btc_core import metrics
from btc_core.clock import NS_PER_MS, now_ns
from btc_core.errors import ServiceError
from btc_core.stores.kafka import consumer, timestamp_at
from streaming.backoff import backoff_s
from streaming.checkpoints import Checkpoints
from streaming.handler import Record

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import Consumer, Message

    from btc_core.settings import Settings
    from streaming.handler import Handler, WorkerSpec

log = logging.getLogger(__name__)

T = TypeVar("T")

PAUSE_FIRST_S, PAUSE_MAX_S = 0.2, 5.0
"""Pause between two attempts while a service is unavailable; it doubles after each."""
KAFKA_TIMEOUT_S = 30.0
MAX_BATCHES_AHEAD = 4
"""Batches that may be handled while the tables of earlier ones are being written: more would only take memory."""
REVOKE_WAIT_S = 5.0
"""Longest wait for the tables when partitions are revoked: the whole group stands still meanwhile."""
WRITE_POLL_S = 0.02
"""How soon offsets are committed after their tables were written, when no message arrives meanwhile."""
CHECKPOINT_S = 60.0
"""Time between two checkpoints: a restart reads about this much of the log again. Each writes 2 MB per symbol."""
LAG_S = 1.0
"""Time between two updates of the lag metric; the client knows the numbers without a request."""


class PendingWrite(msgspec.Struct, frozen=True):
    """A write in progress: its work, the offsets to commit after it, and checkpoints of the moment it began."""

    work: Future[None]
    offsets: list[TopicPartition]
    states: dict[int, bytes]
    """State to save by partition; empty when no checkpoint is due."""
    abandoned: threading.Event
    """Set when the loop no longer waits for this write; it is then not retried."""


class Worker:
    """One consumer of one topic in one consumer group."""

    def __init__(self, settings: Settings, spec: WorkerSpec, handler: Handler) -> None:
        self._kafka = settings.kafka
        self._stream = settings.stream
        self._topic = spec.topic
        self._handler = handler
        self._warm_up_s = spec.warm_up_s
        self._group = spec.group
        self._consumer: Consumer = consumer(
            settings.kafka, spec.group, f"{spec.group}-{settings.stream.instance}", eager=spec.eager
        )
        self._committed: dict[int, int] = {}
        """By partition the first offset to handle; messages before it only warm up the state."""
        self._positions: dict[int, int] = {}
        """By partition the offset behind the last message taken."""
        self._unwritten_rows = 0
        self._write_started_s = 0.0
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="tables")
        self._pending: PendingWrite | None = None
        self._checkpoints = Checkpoints(settings.stream.state_dir, spec.group, spec.topic, spec.state_version)
        self._checkpoint_s = time.monotonic()
        self._cluster_id = ""
        self._stop = threading.Event()
        self._tables_unavailable = threading.Event()
        """Set while the writer waits for a service that does not answer."""
        self._lag_measured_s = 0.0

    def run_as_process(self) -> None:
        """Run as the only work of this process, until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop())
        gc.freeze()  # a full collection over the loaded modules would stop the stream for many milliseconds
        self.run()

    def run(self) -> None:
        """Work until `stop` is called, then write and commit what is left; raises `ServiceError` when Kafka fails."""
        self._consumer.subscribe([self._topic], on_assign=self._assign, on_revoke=self._revoke)
        try:
            while not self._stop.is_set():
                self._step()
            self._write_and_commit_all()
        except KafkaException as error:
            msg = f"Kafka at {self._kafka.bootstrap}, topic {self._topic}, group {self._group}: {error}"
            raise ServiceError(msg) from error
        finally:
            self._stop.set()  # the writer must not wait for a service any longer
            self._writer.shutdown()
            self._consumer.close()

    def stop(self) -> None:
        """End `run` after the current batch; safe to call from a signal handler and from another thread."""
        self._stop.set()

    def _step(self) -> None:
        metrics.LOOP_AT.labels(self._group).set_to_current_time()
        batch = self._take_batch()
        warm_up: list[Record] = []
        live: list[Record] = []
        for message in batch:
            handled_before = message.offset < self._committed.get(message.partition, 0)
            (warm_up if handled_before else live).append(message)
        if warm_up:
            self._handler.warm(warm_up)
        if live:
            self._unwritten_rows = self._with_retries(lambda: self._handler.handle(live), self._wait_paused)
            metrics.CONSUMED.labels(self._group, self._topic).inc(len(live))
        for message in batch:
            self._positions[message.partition] = message.offset + 1
        self._commit_and_write()
        self._measure_lag()

    def _take_batch(self) -> list[Record]:
        """At least one message as soon as there is one, and what else arrives within the batch wait; empty when none does."""
        first = self._consumer.poll(self._poll_timeout_s())
        if first is None:
            return []
        rest = self._consumer.consume(self._stream.batch_rows - 1, self._stream.batch_wait_ms / 1_000)
        return [record for message in (first, *rest) if (record := _record(message)) is not None]

    def _poll_timeout_s(self) -> float:
        """How long the loop may wait for a message before it has to commit a write or start the next one."""
        if self._pending is not None:
            return WRITE_POLL_S
        flush_s = self._stream.table_flush_ms / 1_000
        if not self._unwritten_rows:
            return flush_s
        return max(0.0, flush_s - (time.monotonic() - self._write_started_s))

    def _with_retries(self, work: Callable[[], T], wait: Callable[[float], None]) -> T:
        """Do `work`, again after each `ServiceError`; `wait` sleeps in between. Once the worker is stopped, errors are raised."""
        retries = 0
        while True:
            try:
                result = work()
            except ServiceError as error:
                if self._stop.is_set():
                    raise
                pause_s = backoff_s(retries, PAUSE_FIRST_S, PAUSE_MAX_S)
                log.warning("%s; next attempt in %.1f s", error, pause_s)
                metrics.RETRIES.labels(self._group).inc()
                wait(pause_s)
                retries += 1
            else:
                return result

    def _wait_paused(self, seconds: float) -> None:
        """Wait without taking messages, but keep polling: Kafka removes a member that does not poll from its group."""
        metrics.LOOP_AT.labels(self._group).set_to_current_time()
        self._consumer.pause(self._consumer.assignment())
        message = self._consumer.poll(seconds)
        if message is not None and _record(message) is not None:  # fetched before the pause: take it again later
            self._consumer.seek(TopicPartition(self._topic, message.partition() or 0, message.offset() or 0))
        self._consumer.resume(self._consumer.assignment())

    def _commit_and_write(self) -> None:
        """Commit a finished write and start the next one when it is due; wait here while too many rows are unwritten."""
        limit = (
            self._stream.max_unwritten_rows
            if self._tables_unavailable.is_set()
            else MAX_BATCHES_AHEAD * self._stream.batch_rows
        )
        while self._pending is not None and not self._pending.work.done():
            if self._unwritten_rows < min(limit, self._stream.max_unwritten_rows):
                return
            if self._tables_unavailable.is_set():
                limit = self._stream.max_unwritten_rows
                self._wait_paused(PAUSE_FIRST_S)
            else:  # a pause of the consumer would throw away what it has fetched ahead
                metrics.LOOP_AT.labels(self._group).set_to_current_time()
                futures.wait([self._pending.work], PAUSE_FIRST_S)
        if self._pending is not None:
            self._finish_write()
        waited_ms = 1_000 * (time.monotonic() - self._write_started_s)
        if self._unwritten_rows >= self._stream.batch_rows or waited_ms >= self._stream.table_flush_ms:
            self._start_write()

    def _measure_lag(self) -> None:
        now_s = time.monotonic()
        if now_s - self._lag_measured_s < LAG_S:
            return
        self._lag_measured_s = now_s
        for partition, position in self._positions.items():
            _low, high = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), cached=True)
            metrics.LAG.labels(self._group, str(partition)).set(max(0, high - position))

    def _write_and_commit_all(self, wait_s: float | None = None) -> None:
        """Write and commit everything taken so far; each write may take `wait_s`, else its rows stay uncommitted."""
        if self._finish_write(wait_s):
            self._start_write(last=True)
            self._finish_write(wait_s)

    def _start_write(self, *, last: bool = False) -> None:
        """Start to write the unwritten rows, with a checkpoint when one is due or when it is the `last` write."""
        now_s = self._write_started_s = time.monotonic()
        offsets = [
            TopicPartition(self._topic, partition, offset)
            for partition, offset in self._positions.items()
            if offset > self._committed.get(partition, 0)
        ]
        if not offsets:
            return
        work = self._handler.drain()
        self._unwritten_rows = 0
        states = {}
        if self._warm_up_s > 0 and (last or now_s - self._checkpoint_s > CHECKPOINT_S):
            self._checkpoint_s = now_s
            states = {part.partition: self._handler.save(part.partition) for part in offsets}
        abandoned = threading.Event()

        def write() -> None:
            if not abandoned.is_set():
                work()
            self._tables_unavailable.clear()

        def wait(seconds: float) -> None:
            self._tables_unavailable.set()
            until_s = time.monotonic() + seconds
            while time.monotonic() < until_s and not abandoned.is_set() and not self._stop.wait(WRITE_POLL_S):
                pass

        job = self._writer.submit(lambda: self._with_retries(write, wait))
        self._pending = PendingWrite(job, offsets, states, abandoned)

    def _finish_write(self, wait_s: float | None = None) -> bool:
        """Wait for the pending write, raise what it raised, commit its offsets; False when it took longer than `wait_s`.

        Its offsets then stay uncommitted, and the next owner of the partitions writes the same rows again.
        """
        if self._pending is None:
            return True
        written, self._pending = self._pending, None
        futures.wait([written.work], wait_s)
        if not written.work.done():
            written.abandoned.set()
            log.warning("the tables were not written within %s s; the partitions' next owner writes these rows", wait_s)
            return False
        written.work.result()
        try:
            if not written.states:
                self._consumer.commit(offsets=written.offsets)
            else:  # a checkpoint must not be ahead of the committed offset
                self._consumer.commit(offsets=written.offsets, asynchronous=False)
        except KafkaException as error:  # the rows are written: a repetition has the same keys
            log.warning("the offsets were not committed, so these rows will be written again: %s", error)
            return True
        for part in written.offsets:
            self._committed[part.partition] = part.offset
            if part.partition in written.states:
                state = written.states[part.partition]
                self._writer.submit(self._checkpoints.write, self._cluster_id, part.partition, part.offset, state)
        return True

    def _assign(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._handler.reset()
        self._unwritten_rows = 0
        committed = self._consumer.committed(partitions, timeout=KAFKA_TIMEOUT_S)
        starts = []
        for part in committed:
            low, high = self._consumer.get_watermark_offsets(part, timeout=KAFKA_TIMEOUT_S)
            live = part.offset if part.offset >= 0 else low
            self._committed[part.partition] = live
            self._positions.pop(part.partition, None)
            start = self._warm_up_start(part, low, live, high) if self._warm_up_s > 0 else live
            starts.append(TopicPartition(part.topic, part.partition, start if start > 0 else OFFSET_BEGINNING))
            place = f"{part.topic}[{part.partition}]"
            log.info("%s: reading from offset %d, handling from %d, the log ends at %d", place, start, live, high)
        self._consumer.assign(starts)

    def _warm_up_start(self, part: TopicPartition, low: int, live: int, high: int) -> int:
        """The offset to read from: that of a usable checkpoint, which is loaded, else the start of the warm-up window.

        `low` and `high` bound the partition; `live` is the first offset to handle.
        """
        if not self._cluster_id:
            self._cluster_id = str(self._consumer.list_topics(part.topic, timeout=KAFKA_TIMEOUT_S).cluster_id)
        found = self._checkpoints.read(self._cluster_id, part.partition, low, live)
        if found is not None:
            self._handler.load(found.state)
            return found.offset
        return max(low, min(live, self._window_start(part, live, high)))

    def _window_start(self, part: TopicPartition, live: int, high: int) -> int:
        """The first offset received within `warm_up_s` before the first message to handle, which may be long ago."""
        first_ms = timestamp_at(self._kafka, part.topic, part.partition, live) if live < high else now_ns() // NS_PER_MS
        since_ms = max(0, first_ms - int(self._warm_up_s * 1_000))
        (mark,) = self._consumer.offsets_for_times(
            [TopicPartition(part.topic, part.partition, since_ms)], timeout=KAFKA_TIMEOUT_S
        )
        return mark.offset if mark.offset >= 0 else high

    def _revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._write_and_commit_all(REVOKE_WAIT_S)
        for part in partitions:
            self._committed.pop(part.partition, None)
            if self._positions.pop(part.partition, None) is not None:  # another member reports its lag from now on
                metrics.LAG.remove(self._group, str(part.partition))


def _record(message: Message) -> Record | None:
    """The message as a record, None for a passing client event; raises `KafkaException` for one that does not pass."""
    error = message.error()
    if error is None:
        return Record(message.partition() or 0, message.offset() or 0, message.value() or b"")
    if error.fatal() or error.code() == KafkaError._FATAL:  # noqa: SLF001 - the code has no public name; only a new process recovers from it
        raise KafkaException(error)
    log.warning("kafka: %s", error)
    return None
