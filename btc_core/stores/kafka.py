"""The Kafka log: how producers and consumers are set up, and reading it from end to end.

The topic `market.events` is the record of the market: everything else can be computed from it again.
What does not belong here: topics (`kafka_topics`), what a message holds (`market.messages`), or what a worker does with it (`streaming`).
"""

from __future__ import annotations

import time
from bisect import bisect_left
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicCollection, TopicPartition

from btc_core.clock import NS_PER_MS, NS_PER_S, now_ns
from btc_core.errors import BadFrame, ServiceError
from btc_core.market.messages import Envelope, decode_envelope
from btc_core.names import EVENTS_TOPIC
from btc_core.stores.kafka_connection import admin_client, connection, translated_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from confluent_kafka import KafkaError

    from btc_core.service_settings import KafkaSettings

ADMIN_TIMEOUT_S = 30.0
MAX_QUEUED_MESSAGES = 400_000
"""Messages that a producer holds while Kafka is unreachable: half an hour at 200 messages a second."""
MAX_QUEUED_KB = 262_144
"""The memory that these messages may take; enough for frames of twice the usual size."""


def producer(
    kafka: KafkaSettings, client_id: str, linger_ms: int = 0, on_error: Callable[[KafkaError], None] | None = None
) -> Producer:
    """An idempotent producer that waits for all replicas; it collects messages for `linger_ms` before it sends them.

    `on_error` gets the errors of the client; those of a message come with its delivery report.
    """
    return Producer(
        {
            **connection(kafka, client_id),
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": linger_ms,
            "compression.type": kafka.compression,
            "queue.buffering.max.messages": MAX_QUEUED_MESSAGES,
            "queue.buffering.max.kbytes": MAX_QUEUED_KB,
            "message.max.bytes": 1_040_000,  # the broker's bound is 1,048,588 with the batch's own bytes
            "delivery.report.only.error": True,
            "delivery.timeout.ms": 2_147_483_647,  # a message waits until the broker is back
            **({"error_cb": on_error} if on_error else {}),
        }
    )


FETCH_WAIT_MS = 500
"""The broker answers a fetch after this time at the latest, and at once when it has a message for an eager consumer. Each
empty answer costs the broker as much as a full one."""
RANGE_FETCH_WAIT_MS = 10
"""The same for a reader of messages that exist. The broker answers the requests of a connection one after the other, so the
next question about offsets waits for a fetch at the end of the log."""
LAZY_FETCH_BYTES = 262_144
"""A consumer that is not `eager` lets the broker collect so many bytes first."""
SESSION_TIMEOUT_MS = 45_000
"""The broker reassigns the partitions of a silent member after this time, which is Kafka's own default. On a machine that is
starved of processor time a healthy process can be silent for many seconds. A member that returns under its name within
this time gets its partitions back at once."""


def consumer(
    kafka: KafkaSettings,
    group: str,
    member: str = "",
    *,
    eager: bool = True,
    options: Mapping[str, object] = MappingProxyType({}),
) -> Consumer:
    """A consumer that commits only on request and that starts at the beginning of the log.

    `member` is a static group member id: a process that restarts under the same id causes no rebalance. A consumer that
    is not `eager` receives messages in batches about twice a second, which costs the broker very little. `options` are
    further settings of the client, which win over those made here.
    """
    config: dict[str, Any] = {
        **connection(kafka, group),
        **({"group.instance.id": member} if member else {}),
        "group.id": str(group),
        "session.timeout.ms": SESSION_TIMEOUT_MS,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "fetch.wait.max.ms": FETCH_WAIT_MS,
        "fetch.min.bytes": 1 if eager else LAZY_FETCH_BYTES,
        "queued.max.messages.kbytes": 16_384,  # read-ahead: 50,000 frames, a second of work
        "partition.assignment.strategy": "range",
        **({"client.rack": kafka.rack} if kafka.rack else {}),
        **options,
    }
    return Consumer(config)


BATCH_MESSAGES = 10_000
"""Messages that a reader of a range takes at a time."""
MANY_AT_ONCE = MappingProxyType(
    {
        "queued.max.messages.kbytes": 65_536,
        "fetch.message.max.bytes": 8 * 1_024 * 1_024,
        "fetch.max.bytes": 16 * 1_024 * 1_024,
    }
)
"""Settings of a consumer that reads a day: a quarter of a million messages ahead, in fetches of eight megabytes."""


def timestamp_ms(ts_ns: int) -> int:
    """A time in the unit of Kafka's message timestamps."""
    return ts_ns // NS_PER_MS


class StoredMessage(msgspec.Struct, frozen=True):
    """A message that was read from its place in the log."""

    ts_ms: int
    """Kafka's timestamp, ms since the epoch."""
    value: bytes


def message_at(kafka: KafkaSettings, topic: str, partition: int, offset: int) -> StoredMessage | None:
    """The message at an offset; None when the log has no such message.

    Raises `ServiceError` when Kafka does not answer.
    """
    with reader_of(kafka, "message-at") as reader:
        part = TopicPartition(topic, partition, offset)
        low, high = reader.get_watermark_offsets(part, timeout=ADMIN_TIMEOUT_S)
        if not low <= offset < high:
            return None
        reader.assign([part])
        message = reader.poll(ADMIN_TIMEOUT_S)
        if message is None or message.error() is not None:
            msg = f"Kafka at {kafka.bootstrap} did not return the message {topic}[{partition}]@{offset}"
            raise ServiceError(msg)
        return StoredMessage(message.timestamp()[1], message.value() or b"") if message.offset() == offset else None


def log_id(kafka: KafkaSettings, topic: str) -> str:
    """The identity of a topic's log: the ids of the cluster and of the topic. A topic that is created again has another id.

    Raises `ServiceError` when Kafka does not answer.
    """
    with admin_client(kafka) as admin:
        cluster = admin.list_topics(topic, timeout=ADMIN_TIMEOUT_S).cluster_id
        described = admin.describe_topics(TopicCollection([topic]), request_timeout=ADMIN_TIMEOUT_S)[topic]
        problem = described.exception(ADMIN_TIMEOUT_S)
        # A topic that is being created has no description yet; the client sets no KafkaException.
        if problem is not None:
            msg = f"Kafka at {kafka.bootstrap} does not describe the topic {topic}: {problem}"
            raise ServiceError(msg)
        return f"{cluster}/{described.result().topic_id}"


@contextmanager
def reader_of(
    kafka: KafkaSettings, group: str, options: Mapping[str, object] = MappingProxyType({})
) -> Iterator[Consumer]:
    """A consumer of stored messages for the duration of a block; Kafka's errors in the block become `ServiceError`."""
    seen: list[KafkaError] = []
    reader = consumer(
        kafka, group, options={"fetch.wait.max.ms": RANGE_FETCH_WAIT_MS, "error_cb": seen.append, **options}
    )
    try:
        with translated_errors(kafka, reader, seen):
            yield reader
    finally:
        reader.close()


class GroupBehind(msgspec.Struct, frozen=True):
    """A consumer group that has not yet committed everything it should have."""

    group: str
    partition: int
    """A partition of `market.events`; both offsets are offsets in it."""
    committed_offset: int
    needed_offset: int

    def __str__(self) -> str:
        return (
            f"{self.group} is at offset {self.committed_offset} of {EVENTS_TOPIC}[{self.partition}] "
            f"and {self.needed_offset} is needed"
        )


def first_group_behind(kafka: KafkaSettings, groups: tuple[str, ...], ts_ns: int) -> GroupBehind | None:
    """The first group that has not yet committed everything received before `ts_ns`; None when all have.

    Raises `ServiceError` when Kafka does not answer.
    """
    for group in groups:
        with reader_of(kafka, group) as reader:
            for partition in range(kafka.partitions):
                part = TopicPartition(EVENTS_TOPIC, partition)
                needed = _offset_at(reader, part, ts_ns)
                _low, end = reader.get_watermark_offsets(part, timeout=ADMIN_TIMEOUT_S)
                (found,) = reader.committed([part], timeout=ADMIN_TIMEOUT_S)
                committed = _committed_offset(found, end)
                if committed < needed:
                    return GroupBehind(group, partition, committed, needed)
    return None


def _committed_offset(part: TopicPartition, end: int) -> int:
    """The committed offset in a log with this end; 0 when the offset was committed in another log, which was longer."""
    return part.offset if 0 <= part.offset <= end else 0


class TopicState(msgspec.Struct, frozen=True):
    """The size of a topic, and the lag of the groups that read it."""

    messages: int
    """Messages that were ever written to it."""
    lag: dict[str, int]
    """Messages that each consumer group has not committed yet."""


def topic_state(kafka: KafkaSettings, topic: str, groups: tuple[str, ...]) -> TopicState:
    """The end of a topic and the lag of each group; raises `ServiceError`."""
    parts = [TopicPartition(topic, partition) for partition in range(kafka.partitions)]
    with reader_of(kafka, "topic-state") as reader:
        ends = [reader.get_watermark_offsets(part, timeout=ADMIN_TIMEOUT_S)[1] for part in parts]
    lag = {}
    for group in groups:
        with reader_of(kafka, group) as reader:
            found = reader.committed(parts, timeout=ADMIN_TIMEOUT_S)
            # the group may have committed messages that were written since the ends were read
            newest = [reader.get_watermark_offsets(part, timeout=ADMIN_TIMEOUT_S)[1] for part in parts]
        committed = [_committed_offset(part, end) for part, end in zip(found, newest, strict=True)]
        lag[group] = sum(max(0, end - offset) for end, offset in zip(ends, committed, strict=True))
    return TopicState(sum(ends), lag)


def group_members(kafka: KafkaSettings, groups: tuple[str, ...]) -> dict[str, int]:
    """The number of members of each consumer group, as the broker counts them; raises `ServiceError`."""
    if not groups:
        return {}
    plain = [str(group) for group in groups]  # the client takes two members of an enum for the same group
    with admin_client(kafka) as admin:
        asked = admin.describe_consumer_groups(plain, request_timeout=ADMIN_TIMEOUT_S)
        return {group: len(found.result().members) for group, found in asked.items()}


def kept_since(kafka: KafkaSettings, ts_ns: int) -> bool:
    """Whether the log still holds everything received since `ts_ns`; raises `ServiceError`.

    A partition without recent writes is empty and begins at a high offset. It has still lost nothing that is younger than
    the retention time: Kafka empties a partition only by time. By size it deletes the oldest segments of one.
    """
    within_hours = ts_ns > now_ns() - kafka.retention_hours * 3_600 * NS_PER_S
    with reader_of(kafka, "kept-since") as reader:
        for partition in range(kafka.partitions):
            part = TopicPartition(EVENTS_TOPIC, partition)
            low, high = reader.get_watermark_offsets(part, timeout=ADMIN_TIMEOUT_S)
            if low == high:
                expired = low > 0 and not within_hours
            else:
                expired = low > 0 and _offset_at(reader, part, ts_ns) == low
            if expired:
                return False
    return True


def _offset_at(reader: Consumer, part: TopicPartition, ts_ns: int) -> int:
    """The first offset received at or after `ts_ns`; the end of the partition when there is none."""
    moment = TopicPartition(part.topic, part.partition, max(0, ts_ns // NS_PER_MS))
    (mark,) = reader.offsets_for_times([moment], timeout=ADMIN_TIMEOUT_S)
    if mark.offset >= 0:
        return int(mark.offset)
    return int(reader.get_watermark_offsets(part, timeout=ADMIN_TIMEOUT_S)[1])


class OffsetRange(msgspec.Struct, frozen=True):
    """The offsets of a partition from `begin` up to, and without, `end`."""

    partition: int
    begin: int
    end: int


def offset_ranges(kafka: KafkaSettings, topic: str, begin_ns: int, end_ns: int) -> list[OffsetRange]:
    """For each partition, the offsets of the messages that a topic holds now and that were received in a time range.

    Each range begins at the first message of the time range and ends before the first message at or after its end. The
    messages of several producers are not in the order of their times, so a range holds some messages of later times, and
    messages of the time range may follow it. Raises `ServiceError` when Kafka does not answer.
    """
    with reader_of(kafka, "offset-ranges") as reader:
        parts = [TopicPartition(topic, partition) for partition in range(kafka.partitions)]
        return [
            OffsetRange(part.partition, _offset_at(reader, part, begin_ns), _offset_at(reader, part, end_ns))
            for part in parts
        ]


def read_range(kafka: KafkaSettings, topic: str, chosen: OffsetRange) -> Iterator[tuple[bytes, int]]:
    """Yield the messages of a range of offsets as (value, offset); raises `ServiceError` when Kafka does not answer."""
    with reader_of(kafka, "read-range") as reader:
        yield from _messages(reader, topic, chosen)


def read_topic(
    kafka: KafkaSettings,
    topic: str,
    begin_ns: int | None = None,
    end_ns: int | None = None,
    partitions: Iterable[int] | None = None,
) -> Iterator[tuple[bytes, int, int]]:
    """Yield every message that a topic holds now as (value, partition, offset), one partition after the other.

    `begin_ns` and `end_ns` bound the receive time; `partitions` are all by default. Raises `ServiceError` when Kafka does
    not answer.
    """
    with reader_of(kafka, "read-topic") as reader:
        for partition in range(kafka.partitions) if partitions is None else partitions:
            part = TopicPartition(topic, partition)
            low, high = reader.get_watermark_offsets(part, timeout=ADMIN_TIMEOUT_S)
            low = low if begin_ns is None else _offset_at(reader, part, begin_ns)
            high = high if end_ns is None else _offset_at(reader, part, end_ns)
            for value, offset in _messages(reader, topic, OffsetRange(partition, low, high)):
                yield value, partition, offset


def _messages(reader: Consumer, topic: str, chosen: OffsetRange) -> Iterator[tuple[bytes, int]]:
    """Yield the messages of a range as (value, offset)."""
    for batch in _batches(reader, topic, chosen):
        yield from zip(batch.values, batch.offsets, strict=True)


class Batch(NamedTuple):
    """Messages of a partition in the order of the log."""

    values: list[bytes]
    offsets: list[int]


def _batches(reader: Consumer, topic: str, chosen: OffsetRange) -> Iterator[Batch]:
    """Yield the messages of a range. `map` calls the client's methods, which is faster than calls in a comprehension."""
    position, since_s = chosen.begin, time.monotonic()
    reader.assign([TopicPartition(topic, chosen.partition, position)])
    while position < chosen.end:
        if time.monotonic() - since_s > ADMIN_TIMEOUT_S:
            msg = f"Kafka returned no message of {topic}[{chosen.partition}] from offset {position} on for {ADMIN_TIMEOUT_S:.0f} s"
            raise ServiceError(msg)
        wanted = min(BATCH_MESSAGES, chosen.end - position)
        found = reader.consume(wanted, 1.0)  # a larger number would wait for messages that do not exist
        error = next(filter(None, map(Message.error, found)), None)
        if error is not None:
            raise KafkaException(error)
        values = [value or b"" for value in map(Message.value, found)]
        offsets = [offset or 0 for offset in map(Message.offset, found)]
        if offsets:
            position = offsets[-1] + 1
            kept = bisect_left(offsets, chosen.end)
            yield Batch(values[:kept], offsets[:kept])
            since_s = time.monotonic()


def read_batches(
    kafka: KafkaSettings, topic: str, partition: int, times_ns: tuple[int, int], first: int = 0
) -> Iterator[Batch]:
    """Yield the messages of a partition that were received from one time until before another, from the offset `first` on.

    Raises `ServiceError` when Kafka does not answer, or when messages of the range are removed meanwhile.
    """
    with reader_of(kafka, "read-batches", MANY_AT_ONCE) as reader:
        part = TopicPartition(topic, partition)
        begin, end = (_offset_at(reader, part, each_ns) for each_ns in times_ns)
        yield from _whole_batches(reader, topic, OffsetRange(partition, max(first, begin), end))


def read_offsets(kafka: KafkaSettings, topic: str, chosen: OffsetRange) -> Iterator[Batch]:
    """Yield the messages of a range of offsets; raises `ServiceError` as `read_batches`."""
    with reader_of(kafka, "read-offsets", MANY_AT_ONCE) as reader:
        yield from _whole_batches(reader, topic, chosen)


def _whole_batches(reader: Consumer, topic: str, chosen: OffsetRange) -> Iterator[Batch]:
    position = chosen.begin
    for batch in _batches(reader, topic, chosen):
        if batch.offsets and batch.offsets[0] > position:
            msg = f"the oldest messages of {topic}[{chosen.partition}] were removed while they were read"
            raise ServiceError(msg)
        yield batch
        position += len(batch.offsets)


def read_all(
    kafka: KafkaSettings,
    begin_ns: int | None = None,
    end_ns: int | None = None,
    partitions: Iterable[int] | None = None,
) -> Iterator[tuple[Envelope, int, int]]:
    """Yield every message that `market.events` holds now as (envelope, partition, offset), one partition after the other.

    `begin_ns` and `end_ns` bound the receive time; `partitions` are all by default. Messages that are not envelopes are left
    out, as in the workers. Raises `ServiceError` when Kafka does not answer.
    """
    for value, partition, offset in read_topic(kafka, EVENTS_TOPIC, begin_ns, end_ns, partitions):
        try:
            yield decode_envelope(value), partition, offset
        except BadFrame:
            continue
