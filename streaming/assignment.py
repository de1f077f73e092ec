"""Where a worker starts in the partitions that it was assigned.

Normally that is the committed offset, behind a warm-up. When the log does not fit the committed offset, the worker starts
where no message is skipped, and says so. What does not belong here: the loop (`worker`), or how a break is recognized
(`log_marks`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec
from confluent_kafka import OFFSET_BEGINNING, TopicPartition

from btc_core import metrics
from btc_core.clock import NS_PER_MS, now_ns
from btc_core.stores.kafka import log_id, message_at
from streaming.checkpoints import Checkpoint
from streaming.log_marks import LogBreak, LogMark, decode_mark, encode_mark, find_break

if TYPE_CHECKING:
    from confluent_kafka import Consumer

    from btc_core.service_settings import KafkaSettings
    from streaming.checkpoints import Checkpoints
    from streaming.handler import WorkerSpec

log = logging.getLogger(__name__)

KAFKA_TIMEOUT_S = 30.0
BREAK_MARGIN_MS = 600_000
"""How long before the last committed message a worker starts in a log that lost its end. Messages that were written after
the loss were received after that message; the margin is for a clock that was set back."""


class PartitionStart(msgspec.Struct, frozen=True):
    """Where to start in one partition."""

    partition: int
    low: int
    """First offset of the log."""
    live: int
    """First offset to handle; messages before it only warm up the state."""
    high: int
    """Offset behind the last message of the log."""
    checkpoint: Checkpoint | None
    """A state from which the warm-up can begin."""


class LogStart:
    """Finds the starts of one worker's partitions; `log_id` is the identity of the topic's log.

    Every method raises `ServiceError` or `KafkaException` when Kafka does not answer.
    """

    def __init__(self, kafka: KafkaSettings, consumer: Consumer, spec: WorkerSpec, checkpoints: Checkpoints) -> None:
        self._kafka = kafka
        self._consumer = consumer
        self._spec = spec
        self._checkpoints = checkpoints
        self.log_id = log_id(kafka, spec.topic)

    def find(self, partitions: list[TopicPartition]) -> list[PartitionStart]:
        """The start of each partition."""
        starts = []
        for committed in self._consumer.committed(partitions, timeout=KAFKA_TIMEOUT_S):
            low, high = self._consumer.get_watermark_offsets(committed, timeout=KAFKA_TIMEOUT_S)
            live = self._first_to_handle(committed, low, high)
            checkpoint = self._checkpoint(committed.partition, low, live) if self._spec.warm_up_s > 0 else None
            starts.append(PartitionStart(committed.partition, low, live, high, checkpoint))
        return starts

    def read_from(self, start: PartitionStart, checkpoint: Checkpoint | None) -> TopicPartition:
        """The place to read from: that of a loaded checkpoint, else the start of the warm-up window."""
        if checkpoint is not None:
            offset = checkpoint.offset
        elif self._spec.warm_up_s > 0:
            offset = max(start.low, min(start.live, self._window_start(start)))
        else:
            offset = start.live
        log.info(
            "%s[%d]: reading from offset %d, handling from %d, the log ends at %d",
            *(self._spec.topic, start.partition, offset, start.live, start.high),
        )
        return TopicPartition(self._spec.topic, start.partition, offset if offset > 0 else OFFSET_BEGINNING)

    def _first_to_handle(self, committed: TopicPartition, low: int, high: int) -> int:
        """The committed offset if the log fits it, else the first offset from which no message is skipped.

        A group without a committed offset starts at the beginning of the log, or at its end if its spec says so.
        """
        if committed.offset < 0:
            return high if self._spec.from_end else low
        mark = decode_mark(committed.metadata)
        found = find_break(
            committed.offset, mark, self.log_id, (low, high), lambda offset: self._value(committed.partition, offset)
        )
        if found is None:
            return committed.offset
        live = low
        if found.problem == "shorter_log" and mark is not None and mark.ts_ms:
            live = self._offset_at(committed.partition, mark.ts_ms - BREAK_MARGIN_MS, high)
        self._report(committed.partition, found, live)
        at = TopicPartition(
            self._spec.topic, committed.partition, live, encode_mark(self.mark(committed.partition, live))
        )
        self._consumer.commit(offsets=[at], asynchronous=False)
        return live

    def _report(self, partition: int, found: LogBreak, live: int) -> None:
        log.error(
            "%s[%d], group %s: %s; handling from offset %d",
            *(self._spec.topic, partition, self._spec.group, found.words, live),
        )
        metrics.LOG_BREAKS.labels(self._spec.group, found.problem).inc()
        if found.expired:
            metrics.EXPIRED.labels(self._spec.group, self._spec.topic).inc(found.expired)

    def mark(self, partition: int, offset: int) -> LogMark:
        """The mark of an offset of this log."""
        before = message_at(self._kafka, self._spec.topic, partition, offset - 1) if offset > 0 else None
        return LogMark(self.log_id) if before is None else LogMark.behind(self.log_id, before.value, before.ts_ms)

    def _checkpoint(self, partition: int, low: int, live: int) -> Checkpoint | None:
        found = self._checkpoints.read(partition, self.log_id, low, live)
        if found is None:
            return None
        bounds = low, live
        broken = find_break(
            found.offset, found.mark, self.log_id, bounds, lambda offset: self._value(partition, offset)
        )
        if broken is not None:
            log.warning("the checkpoint of partition %d is ignored: %s", partition, broken.words)
            return None
        return found

    def _value(self, partition: int, offset: int) -> bytes | None:
        found = message_at(self._kafka, self._spec.topic, partition, offset)
        return None if found is None else found.value

    def _window_start(self, start: PartitionStart) -> int:
        """The first offset received within the warm-up before the first message to handle, which may be long ago."""
        first = (
            message_at(self._kafka, self._spec.topic, start.partition, start.live) if start.live < start.high else None
        )
        first_ms = now_ns() // NS_PER_MS if first is None else first.ts_ms
        return self._offset_at(start.partition, first_ms - int(self._spec.warm_up_s * 1_000), start.high)

    def _offset_at(self, partition: int, ts_ms: int, high: int) -> int:
        """The first offset that was received at or after a time; `high` when there is none."""
        moment = TopicPartition(self._spec.topic, partition, max(0, ts_ms))
        (found,) = self._consumer.offsets_for_times([moment], timeout=KAFKA_TIMEOUT_S)
        return int(found.offset) if found.offset >= 0 else high
