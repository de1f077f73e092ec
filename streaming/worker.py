"""The loop of every consumer: warm up, take a batch, handle it at once, write the tables in a second thread, commit.

Offsets are committed only after every table and topic has acknowledged, so a crash repeats rows and the keys of the
tables make them one. State is rebuilt at the start: from the last checkpoint and the log behind it, or from the log alone.
What does not belong here: what a worker does with a message (`handler`), or where it starts in the log (`assignment`).
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
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from btc_core import metrics
from btc_core.errors import ServiceError
from btc_core.stores.kafka import consumer
from btc_core.stores.kafka_connection import explain
from streaming.assignment import LogStart
from streaming.backoff import backoff_s
from streaming.checkpoints import Checkpoints
from streaming.client_callbacks import Callbacks
from streaming.handler import UNUSABLE_STATE, Record
from streaming.log_marks import LogMark, encode_mark

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import Consumer, Message

    from btc_core.service_settings import KafkaSettings
    from btc_core.settings import Settings
    from streaming.assignment import PartitionStart
    from streaming.checkpoints import Checkpoint
    from streaming.handler import Handler, WorkerSpec

log = logging.getLogger(__name__)

T = TypeVar("T")

PAUSE_FIRST_S, PAUSE_MAX_S = 0.2, 5.0
"""Pause between two attempts while a service is unavailable; it doubles after each."""
REJOIN_FIRST_S, REJOIN_MAX_S = 0.5, 10.0
"""Pause before a failed consumer is replaced by a new one; it doubles after each that fails within `STEADY_S`."""
STEADY_S = 60.0
JOIN_S = 60.0
"""How long Kafka may answer and still give the worker no partitions, which takes a second or two. A client that lost a request
on a machine without free processors has been seen to wait for ever."""
MAX_BATCHES_AHEAD = 4
"""Batches that may be handled while the tables of earlier ones are being written: more would only take memory."""
REVOKE_WAIT_S = 5.0
"""Longest wait for the tables when partitions are revoked: the whole group stands still meanwhile."""
WRITE_POLL_S = 0.02
"""How soon offsets are committed after their tables were written, when no message arrives meanwhile."""
CHECKPOINT_S = 60.0
"""Time between two checkpoints: a restart reads about this much of the log again. Each writes 2 MB per symbol."""
LAG_S = 1.0
"""Time between two updates of the lag metric."""
LAG_TIMEOUT_S = 0.5
"""How long Kafka may take to return the end of a partition to a worker that waits."""
LOST_PLACE = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError._LOG_TRUNCATION})  # noqa: SLF001 - the codes have no public names
"""The log does not have the offset that the consumer wants to read, or lost its end."""


class PendingWrite(msgspec.Struct, frozen=True):
    """A write in progress: its work, the offsets to commit after it, and checkpoints of the moment it began."""

    work: Future[None]
    positions: dict[int, Record]
    """By partition the last message whose rows it writes."""
    states: dict[int, bytes]
    """State to save by partition; empty when no checkpoint is due."""
    oldest_s: float | None
    """When the oldest of its messages was taken (monotonic clock)."""
    abandoned: threading.Event
    """Set when the loop no longer waits for this write; it is then not retried."""


class Reassigned(Exception):
    """The partitions were assigned again while a batch waited, so its messages will be read again."""


class Worker:
    """One consumer of one topic in one consumer group."""

    def __init__(self, settings: Settings, spec: WorkerSpec, handler: Handler) -> None:
        self._kafka = settings.kafka
        self._stream = settings.stream
        self._spec = spec
        self._topic = spec.topic
        self._handler = handler
        self._group = spec.group
        self._consumer: Consumer = self._new_consumer()
        self._closing = False
        """Whether the consumer is being closed; rows that are not written yet are then read again."""
        self._assignments = 0
        """Number of times that partitions were assigned."""
        self._unassigned_s: float | None = None
        """Since when the group has given it no partitions (monotonic clock); None once it has, be they none."""
        self._log_id = ""
        self._first_live: dict[int, int] = {}
        """By partition the first offset to handle; messages before it only warm up the state."""
        self._committed: dict[int, int] = {}
        """By partition the offset that Kafka has confirmed as committed."""
        self._positions: dict[int, Record] = {}
        """By partition the last message taken."""
        self._unwritten_rows = 0
        self._oldest_s: float | None = None
        """When the oldest message was taken whose rows no write has begun to write (monotonic clock)."""
        self._write_started_s = 0.0
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="tables")
        self._pending: PendingWrite | None = None
        self._checkpoints = Checkpoints(settings.stream.state_dir, spec.group, spec.topic, spec.state_version)
        self._checkpoint_s = time.monotonic()
        self._callbacks = Callbacks()
        self._stop = threading.Event()
        self._tables_unavailable = threading.Event()
        """Set while the writer waits for a service that does not answer."""
        self._lag_measured_s = 0.0
        for counter in (metrics.RETRIES, metrics.REJOINS, metrics.CHECKPOINT_FAILURES):
            counter.labels(spec.group)  # exported from 0, so that alerts see the first event

    def run_as_process(self) -> None:
        """Run as the only work of this process, until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop())
        gc.freeze()  # a full collection over the loaded modules would stop the stream for many milliseconds
        self.run()

    def run(self) -> None:
        """Work until `stop` is called, then write and commit what is left; raises `ServiceError` when that fails.

        A consumer that Kafka replaced by another member, or that failed in another way, is replaced by a new one.
        """
        rejoins = 0
        try:
            while not self._stop.is_set():
                joined_s = time.monotonic()
                try:
                    self._consume()
                except (KafkaException, ServiceError) as error:
                    if self._stop.is_set():
                        raise self._failure(error) from error
                    rejoins = rejoins + 1 if time.monotonic() - joined_s < STEADY_S else 0
                    self._rejoin(error, backoff_s(rejoins, REJOIN_FIRST_S, REJOIN_MAX_S))
        finally:
            self._stop.set()  # the writer must not wait for a service any longer
            self._writer.shutdown()
            self._close()

    def stop(self) -> None:
        """End `run` after the current batch; safe to call from a signal handler and from another thread."""
        self._stop.set()

    def _consume(self) -> None:
        self._unassigned_s = time.monotonic()
        self._callbacks = Callbacks()
        keeping = self._callbacks.keeping
        self._consumer.subscribe([self._topic], on_assign=keeping(self._assign), on_revoke=keeping(self._revoke))
        while not self._stop.is_set():
            self._step()
            self._check_joined()
        self._write_and_commit_all()

    def _check_joined(self) -> None:
        """Raise `ServiceError` when the group gives no partitions although Kafka answers."""
        if self._unassigned_s is None or time.monotonic() - self._unassigned_s < JOIN_S:
            return
        try:
            self._consumer.list_topics(self._topic, timeout=LAG_TIMEOUT_S)
        except KafkaException:  # it waits for Kafka, and not for the group
            self._unassigned_s = time.monotonic()
            return
        raise ServiceError(f"the group {self._group} gave no partitions of {self._topic} for {JOIN_S:g} s")

    def _new_consumer(self) -> Consumer:
        """A consumer that reports a lost place instead of reading on from the beginning of the log."""
        member = f"{self._group}-{self._stream.instance}"
        options = {"auto.offset.reset": "error", "on_commit": self._confirm_commit}
        return consumer(self._kafka, self._group, member, eager=self._spec.eager, options=options)

    def _failure(self, error: KafkaException | ServiceError) -> ServiceError:
        if isinstance(error, ServiceError):
            return error
        return ServiceError(f"topic {self._topic}, group {self._group}: {explain(self._kafka, error.args[0])}")

    def _rejoin(self, error: KafkaException | ServiceError, pause_s: float) -> None:
        """Replace the consumer after a pause. Messages whose rows are not written yet are read again."""
        log.error("%s; joining the group again in %.1f s", self._failure(error), pause_s)
        metrics.REJOINS.labels(self._group).inc()
        metrics.LOOP_AT.labels(self._group).set_to_current_time()
        self._close()
        self._stop.wait(pause_s)
        self._consumer = self._new_consumer()

    def _close(self) -> None:
        self._closing = True
        try:
            self._consumer.close()
        except KafkaException as error:  # the broker drops the member after its session timeout
            log.warning("the consumer was not closed properly: %s", error)
        finally:
            self._closing = False
        self._abandon_pending()
        self._forget([*self._committed])

    def _abandon_pending(self) -> None:
        if self._pending is not None:
            self._pending.abandoned.set()
            self._pending = None

    def _forget(self, partitions: list[int]) -> None:
        """Forget partitions that this process no longer owns; another member reports their lag from now on."""
        for partition in partitions:
            self._first_live.pop(partition, None)
            self._committed.pop(partition, None)
            self._positions.pop(partition, None)
            metrics.LAG.remove(self._group, str(partition))

    def _step(self) -> None:
        metrics.LOOP_AT.labels(self._group).set_to_current_time()
        batch = self._take_batch()
        warm_up: list[Record] = []
        live: list[Record] = []
        for message in batch:
            handled_before = message.offset < self._first_live.get(message.partition, 0)
            (warm_up if handled_before else live).append(message)
        if warm_up:
            self._handler.warm(warm_up)
        if live:
            if self._oldest_s is None:
                self._oldest_s = time.monotonic()
            try:
                self._unwritten_rows = self._with_retries(lambda: self._handler.handle(live), self._wait_for_service)
            except Reassigned:
                return
            metrics.CONSUMED.labels(self._group, self._topic).inc(len(live))
        for message in batch:
            self._positions[message.partition] = message
        self._commit_and_write()
        self._measure_lag()

    def _take_batch(self) -> list[Record]:
        """At least one message as soon as there is one, and what else arrives within the batch wait; empty when none does."""
        first = self._consumer.poll(self._poll_timeout_s())
        self._callbacks.raise_kept()
        if first is None:
            return []
        assignment = self._assignments
        rest = self._consumer.consume(self._stream.batch_rows - 1, self._stream.batch_wait_ms / 1_000)
        self._callbacks.raise_kept()
        messages = (first, *rest) if assignment == self._assignments else rest  # the new owner reads `first` again
        return [record for message in messages if (record := _record(message, self._kafka)) is not None]

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

    def _wait_for_service(self, seconds: float) -> None:
        """Wait before a batch is handled again; raises `Reassigned` when the batch is no longer valid."""
        assignment = self._assignments
        self._wait_paused(seconds)
        if assignment != self._assignments:
            raise Reassigned

    def _wait_paused(self, seconds: float) -> None:
        """Wait without taking messages, but keep polling: Kafka removes a member that does not poll from its group."""
        metrics.LOOP_AT.labels(self._group).set_to_current_time()
        self._consumer.pause(self._consumer.assignment())
        message = self._consumer.poll(seconds)
        if (
            message is not None and _record(message, self._kafka) is not None
        ):  # fetched before the pause: take it again later
            self._consumer.seek(TopicPartition(self._topic, message.partition() or 0, message.offset() or 0))
        self._consumer.resume(self._consumer.assignment())
        self._measure_lag(waiting=True)

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
                self._measure_lag(waiting=True)
        if self._pending is not None:
            self._finish_write()
        waited_ms = 1_000 * (time.monotonic() - self._write_started_s)
        if self._unwritten_rows >= self._stream.batch_rows or waited_ms >= self._stream.table_flush_ms:
            self._start_write()

    def _measure_lag(self, *, waiting: bool = False) -> None:
        """Update the metrics of what is not written yet.

        The client knows the end of a partition from the last fetch. While the worker is `waiting` it fetches nothing, so
        it asks Kafka.
        """
        now_s = time.monotonic()
        if now_s - self._lag_measured_s < LAG_S:
            return
        self._lag_measured_s = now_s
        pending_s = self._pending.oldest_s if self._pending is not None else None
        oldest_s = min(each for each in (pending_s, self._oldest_s, now_s) if each is not None)
        metrics.UNWRITTEN_AGE.labels(self._group).set(now_s - oldest_s)
        for partition, committed in self._committed.items():
            part = TopicPartition(self._topic, partition)
            try:
                _low, high = self._consumer.get_watermark_offsets(part, timeout=LAG_TIMEOUT_S, cached=not waiting)
            except KafkaException:  # Kafka does not answer; the client's own messages say so
                return
            if high >= 0:
                metrics.LAG.labels(self._group, str(partition)).set(max(0, high - committed))

    def _write_and_commit_all(self, wait_s: float | None = None) -> None:
        """Write and commit everything taken so far; each write may take `wait_s`, else its rows stay uncommitted."""
        if self._finish_write(wait_s):
            self._start_write(last=True)
            self._finish_write(wait_s)

    def _start_write(self, *, last: bool = False) -> None:
        """Start to write the unwritten rows, with a checkpoint when one is due or when it is the `last` write."""
        now_s = self._write_started_s = time.monotonic()
        positions = {
            partition: message
            for partition, message in self._positions.items()
            if message.offset >= max(self._first_live.get(partition, 0), self._committed.get(partition, 0))
        }
        if not positions:
            return
        work = self._handler.drain()
        self._unwritten_rows = 0
        oldest_s, self._oldest_s = self._oldest_s, None
        states = {}
        if self._spec.warm_up_s > 0 and (last or now_s - self._checkpoint_s > CHECKPOINT_S):
            self._checkpoint_s = now_s
            states = {partition: self._handler.save(partition) for partition in positions}
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
        self._pending = PendingWrite(job, positions, states, oldest_s, abandoned)

    def _finish_write(self, wait_s: float | None = None) -> bool:
        """Wait for the pending write, raise what it raised, commit its offsets; False when it took longer than `wait_s`.

        Its offsets then stay uncommitted, and the next owner of the partitions writes the same rows again.
        """
        if self._pending is None:
            return True
        written = self._pending
        futures.wait([written.work], wait_s)
        if not written.work.done():
            self._abandon_pending()
            log.warning("the tables were not written within %s s; the partitions' next owner writes these rows", wait_s)
            return False
        self._pending = None
        written.work.result()
        marks = {
            partition: LogMark.behind(self._log_id, message.value, message.ts_ms)
            for partition, message in written.positions.items()
        }
        offsets = [
            TopicPartition(self._topic, partition, message.offset + 1, encode_mark(marks[partition]))
            for partition, message in written.positions.items()
        ]
        try:
            self._commit(offsets, wait=bool(written.states))  # a checkpoint must not be ahead of the committed offset
        except KafkaException as error:  # the rows are written: a repetition has the same keys
            log.warning("the offsets were not committed, so these rows will be written again: %s", error)
            return True
        for partition, state in written.states.items():
            offset = written.positions[partition].offset + 1
            self._writer.submit(self._checkpoints.write, partition, offset, marks[partition], state)
        return True

    def _commit(self, offsets: list[TopicPartition], *, wait: bool) -> None:
        if wait:
            self._confirm_commit(None, self._consumer.commit(offsets=offsets, asynchronous=False) or [])
        else:
            self._consumer.commit(offsets=offsets)

    def _confirm_commit(self, error: KafkaError | None, offsets: list[TopicPartition]) -> None:
        """Take note of the result of a commit; offsets that were not committed are committed with the next write."""
        for part in offsets:
            problem = error or part.error
            if problem is not None:
                log.warning(
                    "offset %d of %s[%d] was not committed: %s", part.offset, part.topic, part.partition, problem
                )
            elif part.partition in self._committed:
                self._committed[part.partition] = part.offset

    def _assign(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._assignments += 1
        self._unassigned_s = None
        self._abandon_pending()
        self._unwritten_rows, self._oldest_s = 0, None
        find = LogStart(self._kafka, self._consumer, self._spec, self._checkpoints)
        starts = find.find(partitions)
        self._log_id = find.log_id
        loaded = self._load({each.partition: each.checkpoint for each in starts if each.checkpoint is not None})
        places = []
        for each in starts:
            self._set_start(each)
            places.append(find.read_from(each, loaded.get(each.partition)))
        self._consumer.assign(places)

    def _set_start(self, start: PartitionStart) -> None:
        self._first_live[start.partition] = self._committed[start.partition] = start.live
        self._positions.pop(start.partition, None)

    def _load(self, checkpoints: dict[int, Checkpoint]) -> dict[int, Checkpoint]:
        """Reset the handler and load these checkpoints into it; returns those that it could use, by partition."""
        while True:
            self._handler.reset()
            for partition, checkpoint in checkpoints.items():
                try:
                    self._handler.load(checkpoint.state)
                except UNUSABLE_STATE as error:
                    words = f"{type(error).__name__}: {error}"
                    log.warning(
                        "the checkpoint of %s[%d] is ignored, and the log is read instead: %s",
                        self._topic,
                        partition,
                        words,
                    )
                    unusable = partition
                    break
            else:
                return checkpoints
            checkpoints = {each: state for each, state in checkpoints.items() if each != unusable}

    def _revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._unassigned_s = time.monotonic()
        if not self._closing:
            self._write_and_commit_all(REVOKE_WAIT_S)
        self._forget([part.partition for part in partitions])


def _record(message: Message, kafka: KafkaSettings) -> Record | None:
    """The message as a record, None for a passing client event; raises `KafkaException` when a new consumer is needed."""
    error = message.error()
    if error is None:
        return Record(message.partition() or 0, message.offset() or 0, message.value() or b"", message.timestamp()[1])
    if error.fatal() or error.code() == KafkaError._FATAL or error.code() in LOST_PLACE:  # noqa: SLF001 - the code has no public name
        raise KafkaException(error)
    log.warning("%s", explain(kafka, error))
    return None
