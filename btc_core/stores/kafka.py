"""The Kafka log: its topics, how producers and consumers are set up, and reading it from end to end.

`market.events` is the record: everything else can be computed from it again.
What does not belong here: what a message holds (`market.messages`), or what a worker does with it (`streaming`).
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from btc_core.clock import NS_PER_MS, NS_PER_S, now_ns
from btc_core.errors import BadFrame, ConfigError, ServiceError
from btc_core.market.messages import Envelope, decode_envelope
from btc_core.names import EVENTS_TOPIC, TOPICS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.settings import KafkaSettings, Settings

ADMIN_TIMEOUT_S = 30.0
MAX_QUEUED_MESSAGES = 400_000
"""That a producer keeps while Kafka is away: half an hour of 200 messages a second."""
MAX_QUEUED_KB = 262_144
"""The same as a bound on memory, for frames of twice the usual size."""


def ensure_topics(settings: Settings) -> list[str]:
    """Create the topics that are missing, with the partitions and retention of the settings; returns their names.

    Raises `ConfigError` when a topic exists with fewer partitions than the settings say.
    """
    kafka = settings.kafka
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    try:
        existing = admin.list_topics(timeout=ADMIN_TIMEOUT_S).topics
        config = {"retention.ms": str(kafka.retention_hours * 3_600_000), "min.insync.replicas": "1"}
        missing = [NewTopic(name, kafka.partitions, 1, config=config) for name in TOPICS if name not in existing]
        for future in (admin.create_topics(missing) if missing else {}).values():
            future.result(ADMIN_TIMEOUT_S)
    except KafkaException as error:
        msg = f"Kafka at {kafka.bootstrap} did not create the topics: {error}"
        raise ServiceError(msg) from error
    for name in TOPICS:
        if name in existing and len(existing[name].partitions) < kafka.partitions:
            msg = (
                f"topic {name} has {len(existing[name].partitions)} partitions, BTC_KAFKA_PARTITIONS is "
                f"{kafka.partitions}; symbols would move between partitions. Set it back, or start a new data directory"
            )
            raise ConfigError(msg)
    made = [topic.topic for topic in missing]
    if made:
        _wait_for_leaders(kafka, made)
    return made


def _wait_for_leaders(kafka: KafkaSettings, topics: list[str]) -> None:
    """Return when every partition answers: one that was made a moment ago may have no leader yet."""
    deadline_s = time.monotonic() + ADMIN_TIMEOUT_S
    with _reader(kafka, "topics-made") as reader:
        for part in [TopicPartition(topic, number) for topic in topics for number in range(kafka.partitions)]:
            while True:
                try:
                    reader.get_watermark_offsets(part, timeout=ADMIN_TIMEOUT_S)
                    break
                except KafkaException:
                    if time.monotonic() > deadline_s:
                        raise
                    time.sleep(0.05)


def _connection(kafka: KafkaSettings, client_id: str) -> dict[str, Any]:
    """What producers and consumers share: a broker that is away is asked once a second, not twenty times."""
    return {
        "bootstrap.servers": kafka.bootstrap,
        "client.id": client_id,
        "socket.nagle.disable": True,  # small requests must not wait for one another
        "reconnect.backoff.ms": 1_000,
        "reconnect.backoff.max.ms": 2_000,
    }


def producer(kafka: KafkaSettings, client_id: str, linger_ms: int = 0) -> Producer:
    """An idempotent producer that waits for all replicas and sends at once, or after `linger_ms` what came meanwhile."""
    return Producer(
        {
            **_connection(kafka, client_id),
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": linger_ms,
            "compression.type": "lz4",
            "queue.buffering.max.messages": MAX_QUEUED_MESSAGES,
            "queue.buffering.max.kbytes": MAX_QUEUED_KB,
            "message.max.bytes": 1_040_000,  # the broker's bound is 1,048,588 with the batch's own bytes
            "delivery.report.only.error": True,
            "delivery.timeout.ms": 2_147_483_647,  # a broker away is waited for, not given up on
        }
    )


FETCH_WAIT_MS = 100
"""The broker answers after this at the latest."""
EASY_FETCH_BYTES = 262_144
"""Or when it has this much for one that is in no hurry."""
SESSION_TIMEOUT_MS = 10_000
"""A member that is gone for good is noticed after this; one that comes back under its name gets its partitions at once."""


def consumer(kafka: KafkaSettings, group: str, member: str = "", *, eager: bool = True) -> Consumer:
    """A consumer that commits only when told to and starts at the beginning of the log.

    `member` is a name that outlives the process: killed and started again, it need not wait for a rebalance. One that is
    not `eager` gets its messages ten times a second, all of them at once, which costs the broker next to nothing.
    """
    config: dict[str, Any] = {
        **_connection(kafka, group),
        **({"group.instance.id": member} if member else {}),
        "group.id": group,
        "session.timeout.ms": SESSION_TIMEOUT_MS,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "fetch.wait.max.ms": FETCH_WAIT_MS,
        "fetch.min.bytes": 1 if eager else EASY_FETCH_BYTES,
        "queued.max.messages.kbytes": 16_384,  # read ahead; 50,000 frames are a second of work
        "partition.assignment.strategy": "range",
    }
    return Consumer(config)


def timestamp_ms(ts_ns: int) -> int:
    """Kafka message timestamps are milliseconds."""
    return ts_ns // NS_PER_MS


def timestamp_at(kafka: KafkaSettings, topic: str, partition: int, offset: int) -> int:
    """Kafka's timestamp of one message, ms since the epoch; raises `ServiceError` when it does not come."""
    with _reader(kafka, "timestamp-at") as reader:
        reader.assign([TopicPartition(topic, partition, offset)])
        message = reader.poll(ADMIN_TIMEOUT_S)
        if message is None or message.error() is not None:
            msg = f"Kafka at {kafka.bootstrap} gave no message {topic}[{partition}]@{offset}"
            raise ServiceError(msg)
        return int(message.timestamp()[1])


@contextmanager
def _asking(kafka: KafkaSettings) -> Iterator[None]:
    """What Kafka raises in the block is a `ServiceError`."""
    try:
        yield
    except KafkaException as error:
        msg = f"Kafka at {kafka.bootstrap} does not answer: {error}"
        raise ServiceError(msg) from error


@contextmanager
def _reader(kafka: KafkaSettings, group: str) -> Iterator[Consumer]:
    """A consumer for the time of a block; what Kafka raises in it is a `ServiceError`."""
    reader = consumer(kafka, group)
    try:
        with _asking(kafka):
            yield reader
    finally:
        reader.close()


def passed(kafka: KafkaSettings, groups: tuple[str, ...], ts_ns: int) -> str:
    """Which group has not yet committed everything received before `ts_ns`, and how far it is; empty when all have.

    Raises `ServiceError` when Kafka does not answer.
    """
    for group in groups:
        with _reader(kafka, group) as reader:
            for partition in range(kafka.partitions):
                part = TopicPartition(EVENTS_TOPIC, partition)
                needed = _offset_at(reader, part, ts_ns)
                (mark,) = reader.committed([part], timeout=ADMIN_TIMEOUT_S)
                if max(mark.offset, 0) < needed:
                    return f"{group} is at offset {max(mark.offset, 0)} of {EVENTS_TOPIC}[{partition}] and {needed} is needed"
    return ""


class TopicState(msgspec.Struct, frozen=True):
    """How far a topic is, and how far those who read it are behind."""

    messages: int
    """Ever written."""
    behind: dict[str, int]
    """Messages by consumer group."""


def topic_state(kafka: KafkaSettings, topic: str, groups: tuple[str, ...]) -> TopicState:
    """The end of a topic and each group's distance from it; raises `ServiceError`."""
    parts = [TopicPartition(topic, partition) for partition in range(kafka.partitions)]
    with _reader(kafka, "topic-state") as reader:
        ends = [reader.get_watermark_offsets(part, timeout=ADMIN_TIMEOUT_S)[1] for part in parts]
    behind = {}
    for group in groups:
        with _reader(kafka, group) as reader:
            marks = reader.committed(parts, timeout=ADMIN_TIMEOUT_S)
        # the ends were read first: a group may have passed them since
        behind[group] = sum(max(0, end - max(mark.offset, 0)) for end, mark in zip(ends, marks, strict=True))
    return TopicState(sum(ends), behind)


def group_members(kafka: KafkaSettings, groups: tuple[str, ...]) -> dict[str, int]:
    """Processes by consumer group that Kafka holds for alive; raises `ServiceError`."""
    if not groups:
        return {}
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    plain = [str(group) for group in groups]  # the client takes two members of an enum for the same group
    asked = admin.describe_consumer_groups(plain, request_timeout=ADMIN_TIMEOUT_S)
    with _asking(kafka):
        return {group: len(found.result().members) for group, found in asked.items()}


def kept_since(kafka: KafkaSettings, ts_ns: int) -> bool:
    """Whether the log still holds everything received since `ts_ns`; raises `ServiceError`.

    A partition that nobody has written to for long is empty and begins late, and still has lost nothing younger than
    the retention.
    """
    if ts_ns > now_ns() - kafka.retention_hours * 3_600 * NS_PER_S:
        return True
    with _reader(kafka, "kept-since") as reader:
        for partition in range(kafka.partitions):
            part = TopicPartition(EVENTS_TOPIC, partition)
            low, high = reader.get_watermark_offsets(part, timeout=ADMIN_TIMEOUT_S)
            forgotten = low > 0 and (low == high or _offset_at(reader, part, ts_ns) == low)
            if forgotten:
                return False
    return True


def _offset_at(reader: Consumer, part: TopicPartition, ts_ns: int) -> int:
    """First offset received at or after `ts_ns`; the end of the partition when there is none."""
    moment = TopicPartition(part.topic, part.partition, max(0, ts_ns // NS_PER_MS))
    (mark,) = reader.offsets_for_times([moment], timeout=ADMIN_TIMEOUT_S)
    if mark.offset >= 0:
        return int(mark.offset)
    return int(reader.get_watermark_offsets(part, timeout=ADMIN_TIMEOUT_S)[1])


def read_topic(
    kafka: KafkaSettings, topic: str, begin_ns: int | None = None, end_ns: int | None = None
) -> Iterator[tuple[bytes, int, int]]:
    """Every message that a topic holds now, as (value, partition, offset), partition by partition.

    `begin_ns` and `end_ns` bound the receive time. Raises `ServiceError` when Kafka does not answer.
    """
    with _reader(kafka, "read-topic") as reader:
        for partition in range(kafka.partitions):
            part = TopicPartition(topic, partition)
            low, high = reader.get_watermark_offsets(part, timeout=ADMIN_TIMEOUT_S)
            low = low if begin_ns is None else _offset_at(reader, part, begin_ns)
            high = high if end_ns is None else _offset_at(reader, part, end_ns)
            part.offset = low
            reader.assign([part])
            position = low
            while position < high:
                for message in reader.consume(min(10_000, high - position), 1.0):  # asked for more, it waits for them
                    if message.error() is not None:
                        raise KafkaException(message.error())
                    position = (message.offset() or 0) + 1
                    if position <= high:
                        yield message.value() or b"", partition, position - 1


def read_all(
    kafka: KafkaSettings, begin_ns: int | None = None, end_ns: int | None = None
) -> Iterator[tuple[Envelope, int, int]]:
    """Every message that `market.events` holds now, as (envelope, partition, offset), partition by partition.

    `begin_ns` and `end_ns` bound the receive time. Raises `ServiceError` when Kafka does not answer; messages that are not envelopes are left out, as the workers do.
    """
    for value, partition, offset in read_topic(kafka, EVENTS_TOPIC, begin_ns, end_ns):
        try:
            yield decode_envelope(value), partition, offset
        except BadFrame:
            continue
