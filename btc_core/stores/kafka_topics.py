"""The topics of the log: which there are, how they are created, and what they keep.

A managed Kafka may refuse some of it. What it refuses is logged and left as it is when the pipeline works with it, and is
an error otherwise. What does not belong here: messages (`kafka`).
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
)

from btc_core.errors import ConfigError, ServiceError
from btc_core.names import DEADLETTERS_TOPIC, GAPS_TOPIC, TOPICS
from btc_core.stores.kafka import ADMIN_TIMEOUT_S, reader_of
from btc_core.stores.kafka_connection import MISSING_RIGHT, admin_client
from btc_core.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from confluent_kafka import Consumer
    from confluent_kafka.admin import TopicMetadata

    from btc_core.service_settings import KafkaSettings
    from btc_core.settings import Settings

log = logging.getLogger(__name__)

SEGMENT_BYTES = 128 * 1024 * 1024
"""Retention deletes whole segments, so smaller segments follow its limits more closely."""
MIN_SEGMENT_BYTES = 1024 * 1024
"""Kafka takes no smaller one."""
SMALL_TOPICS = (GAPS_TOPIC, DEADLETTERS_TOPIC)
"""They hold what went wrong, and so must not take the room of the others when much does."""
REFUSED_CONFIG = frozenset({KafkaError.INVALID_CONFIG, KafkaError.POLICY_VIOLATION, KafkaError.INVALID_REQUEST})
"""The codes with which a service refuses a configuration of a topic."""
LIMITED = frozenset({KafkaError.POLICY_VIOLATION, KafkaError.INVALID_PARTITIONS, KafkaError.INVALID_REPLICATION_FACTOR})
"""The codes with which a service refuses a number of partitions or of copies."""
LEADERS_TIMEOUT_S = 120.0
"""How long a new topic may take until all of its partitions answer; a busy broker needs longer than for a request."""
MIN_RETENTION_MS = 26 * 3_600_000
"""The features need the log of the last 24 h 30 min when they start. `BTC_KAFKA_RETENTION_HOURS` has the same minimum."""
MIN_MESSAGE_BYTES = 1_048_588
"""The largest batch that producers send, which is also Kafka's default. A topic that takes less would refuse a large frame at
each attempt, and nothing behind it would be sent."""
RETENTION_TIME, MESSAGE_SIZE = "retention.ms", "max.message.bytes"
NEEDED = {
    RETENTION_TIME: (MIN_RETENTION_MS, "the features need the messages of the last 24 h 30 min when they start"),
    MESSAGE_SIZE: (MIN_MESSAGE_BYTES, "a large frame of an exchange would stop the stream"),
}
"""By configuration of a topic: the least value with which the pipeline works, and why."""
VARIABLES = {
    RETENTION_TIME: "BTC_KAFKA_RETENTION_HOURS",
    "retention.bytes": "BTC_KAFKA_RETENTION_BYTES",
    "min.insync.replicas": "BTC_KAFKA_MIN_INSYNC",
}
"""By configuration of a topic: the setting that it follows."""


def ensure_topics(settings: Settings, retention_bytes: int = 0) -> list[str]:
    """Create the topics that are missing, and return their names.

    Every topic gets the retention time of the settings. A partition of the topics that grow with the market keeps at most
    `retention_bytes`, one of the others a tenth of it; 0 is no limit. What the service refuses to configure is logged.
    Raises `ConfigError` when a topic cannot be created, exists with fewer partitions than the settings say, or keeps messages
    for too short a time or of too small a size.
    """
    kafka = settings.kafka
    with admin_client(kafka) as admin:
        existing = admin.list_topics(timeout=ADMIN_TIMEOUT_S).topics
        created = [name for name in TOPICS if name not in existing]
        for name in TOPICS:
            config = _topic_config(name, kafka, retention_bytes)
            if name in created:
                _create(admin, kafka, name, config)
            else:
                _configure_existing(admin, kafka, name, existing[name], config)
    if created:
        _wait_for_leaders(kafka, created)
    return created


def missing_topics(kafka: KafkaSettings, names: Sequence[str], timeout_s: float) -> list[str]:
    """The topics that do not exist, or that the user may not see; raises `ServiceError` when Kafka does not answer."""
    with admin_client(kafka) as admin:
        existing = admin.list_topics(timeout=timeout_s).topics
    return [name for name in names if name not in existing]


def topics_with_prefix(kafka: KafkaSettings, prefix: str, timeout_s: float) -> list[str]:
    """The topics whose names begin with a prefix; raises `ServiceError` when Kafka does not answer."""
    with admin_client(kafka) as admin:
        existing = admin.list_topics(timeout=timeout_s).topics
    return [name for name in existing if name.startswith(prefix)]


def create_empty_topic(kafka: KafkaSettings, name: str) -> None:
    """Create a topic of one partition; raises `ConfigError` when it cannot be created, and `ServiceError`."""
    with admin_client(kafka) as admin:
        _create(admin, kafka, name, {}, partitions=1)


def _topic_config(name: str, kafka: KafkaSettings, retention_bytes: int) -> dict[str, str]:
    limit = retention_bytes if name not in SMALL_TOPICS else retention_bytes // 10
    segment_bytes = min(SEGMENT_BYTES, max(MIN_SEGMENT_BYTES, limit // 8)) if limit else SEGMENT_BYTES
    return {
        RETENTION_TIME: str(kafka.retention_hours * 3_600_000),
        "retention.bytes": str(limit or -1),
        "segment.bytes": str(segment_bytes),
        "min.insync.replicas": str(kafka.min_insync),
        MESSAGE_SIZE: str(MIN_MESSAGE_BYTES),
    }


def _create(admin: AdminClient, kafka: KafkaSettings, name: str, config: dict[str, str], partitions: int = 0) -> None:
    """Create a topic with as much of its configuration as the service allows."""
    partitions = partitions or kafka.partitions
    problem = _problem_of_creation(admin, NewTopic(name, partitions, kafka.replication, config=config))
    if problem is not None and problem.code() in REFUSED_CONFIG and config:
        problem = _problem_of_creation(admin, NewTopic(name, partitions, kafka.replication))
        if problem is None:
            _configure(admin, name, config)
    if problem is not None:
        raise ConfigError(
            _creation_problem(kafka, NewTopic(name, partitions, kafka.replication, config=config), problem)
        )


def _creation_problem(kafka: KafkaSettings, topic: NewTopic, problem: KafkaError) -> str:
    """Why a topic is missing, and what to do about it."""
    if problem.code() in LIMITED:
        fix = (
            f"It was to have {topic.num_partitions} partitions (BTC_KAFKA_PARTITIONS) and {topic.replication_factor} copies "
            "(BTC_KAFKA_REPLICATION): set them to what the service allows"
        )
    elif problem.code() in MISSING_RIGHT:
        who = f"the user {kafka.user!r}" if kafka.authenticated else "clients without a user"
        fix = f"Give {who} the right to create topics"
    else:
        fix = "Change what it names"
    config = "".join(f", {key}={value}" for key, value in (topic.config or {}).items())
    return (
        f"Kafka at {kafka.bootstrap} does not create the topic {topic.topic}: {problem.str()}. {fix}, or create it in the "
        f"service with {topic.num_partitions} partitions, {topic.replication_factor} copies{config}"
    )


def _problem_of_creation(admin: AdminClient, topic: NewTopic) -> KafkaError | None:
    """Why Kafka does not create a topic; None when it exists now. Raises `KafkaException` when it cannot be asked."""
    try:
        admin.create_topics([topic])[topic.topic].result(ADMIN_TIMEOUT_S)
    except KafkaException as error:
        problem: KafkaError = error.args[0]
        if problem.code() < 0 or problem.retriable():  # the client could not ask
            raise
        return None if problem.code() == KafkaError.TOPIC_ALREADY_EXISTS else problem
    return None


def _configure_existing(
    admin: AdminClient, kafka: KafkaSettings, name: str, topic: TopicMetadata, config: dict[str, str]
) -> None:
    """Give a topic that exists its configuration; raises `ConfigError` when it has too few partitions."""
    if len(topic.partitions) < kafka.partitions:
        msg = (
            f"topic {name} has {len(topic.partitions)} partitions, BTC_KAFKA_PARTITIONS is {kafka.partitions}; symbols "
            "would move between partitions. Set it back, or start a new data directory"
        )
        raise ConfigError(msg)
    copies = min(len(part.replicas) for part in topic.partitions.values())
    if copies < kafka.replication:
        log.warning(
            "topic %s has %d copies of each partition and BTC_KAFKA_REPLICATION is %d, which applies to new topics only: "
            "change it with the tools of the service",
            name,
            copies,
            kafka.replication,
        )
    # A minimum above the number of copies would make the brokers refuse every message.
    _configure(admin, name, config | {"min.insync.replicas": str(min(copies, kafka.min_insync))})


def _configure(admin: AdminClient, name: str, config: Mapping[str, str]) -> None:
    """Change what differs from this configuration; what the service refuses is logged, and stays as it is."""
    resource = ConfigResource(ConfigResource.Type.TOPIC, name)
    try:
        present = admin.describe_configs([resource])[resource].result(ADMIN_TIMEOUT_S)
    except KafkaException as error:
        if error.args[0].code() not in MISSING_RIGHT:
            raise
        wanted = ", ".join(f"{key}={value}" for key, value in config.items())
        log.warning("the user may not read the configuration of topic %s, which should be %s", name, wanted)
        return
    for key, value in config.items():
        found = present[key].value if key in present else None
        if found == value or (key == MESSAGE_SIZE and found is not None and int(found) >= int(value)):
            continue
        try:
            _alter(admin, name, key, value)
        except KafkaException as error:
            problem: KafkaError = error.args[0]
            if problem.code() not in REFUSED_CONFIG | MISSING_RIGHT.keys():
                raise
            _require_usable(name, key, found, problem)
            log.warning(
                "topic %s has %s=%s and should have %s%s, which the service refuses to change: %s. It stays as it is; change "
                "it with the tools of the service%s",
                name,
                key,
                found,
                value,
                f" ({VARIABLES[key]})" if key in VARIABLES else "",
                problem.str(),
                f", or set {VARIABLES[key]} to what it has" if key in VARIABLES else "",
            )


def _require_usable(name: str, key: str, found: str | None, problem: KafkaError) -> None:
    """Raise `ConfigError` when the pipeline does not work with what a topic has, and the service refuses to change it."""
    least, why = NEEDED.get(key, (0, ""))
    if least and found is not None and 0 <= int(found) < least:
        msg = (
            f"topic {name} has {key}={found}, and {why}. The service refuses to change it: {problem.str()}. Set {key} of the "
            f"topic to at least {least} with the tools of the service"
        )
        raise ConfigError(msg)


def _alter(admin: AdminClient, name: str, key: str, value: str) -> None:
    entry = ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=[entry])
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(ADMIN_TIMEOUT_S)


def _wait_for_leaders(kafka: KafkaSettings, topics: list[str]) -> None:
    """Return when every partition answers: a partition that was just created may have no leader yet."""
    parts = [TopicPartition(topic, number) for topic in topics for number in range(kafka.partitions)]
    if not wait_until(partial(_all_answer, kafka, parts), LEADERS_TIMEOUT_S, pause_s=0.1):
        with reader_of(kafka, "topics-created") as reader:
            _ask(reader, parts)  # raises the error that a partition still answers with


def _all_answer(kafka: KafkaSettings, parts: list[TopicPartition]) -> bool:
    """Whether every partition has a leader that answers.

    Each try has a client of its own: one that saw a topic before all of its partitions existed keeps what it saw, and answers
    `_UNKNOWN_PARTITION` without asking the broker again.
    """
    try:
        with reader_of(kafka, "topics-created") as reader:
            _ask(reader, parts)
    except ServiceError:
        return False
    return True


def _ask(reader: Consumer, parts: list[TopicPartition]) -> None:
    for part in parts:
        reader.get_watermark_offsets(part, timeout=ADMIN_TIMEOUT_S)
