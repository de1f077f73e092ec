"""A worker whose log is not the one that it committed in, or whose consumer fails, skips no message and says so."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from btc_core import metrics
from btc_core.clock import NS_PER_MS, NS_PER_S, now_ns
from btc_core.errors import ServiceError
from btc_core.names import EVENTS_TOPIC
from btc_core.stores.kafka import consumer, first_group_behind, log_id, topic_state
from btc_core.stores.kafka_connection import connection
from streaming import worker
from streaming.assignment import LogStart
from streaming.checkpoints import Checkpoints
from streaming.handler import Record, WorkerSpec
from streaming.log_marks import LogMark, decode_mark, encode_mark
from streaming.publisher import Publisher
from streaming.worker import Worker
from tests.real_alerts import Looks
from tests.service.streaming.test_worker import BufferingHandler, fill, new_topic, settings_of
from tests.service.workers import Running
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from btc_core.settings import Settings

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def kafka(servers: Callable[..., Settings]) -> Settings:
    return servers("kafka")


class CountingHandler(BufferingHandler):
    """Its state is the number of messages seen; it refuses any state that is no number."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0
        self.warmed: list[bytes] = []

    def reset(self) -> None:
        super().reset()
        self.seen = 0

    def warm(self, messages: list[Record]) -> None:
        self.seen += len(messages)
        self.warmed += [message.value for message in messages]

    def handle(self, messages: list[Record]) -> int:
        self.seen += len(messages)
        return super().handle(messages)

    def save(self, _partition: int) -> bytes:
        return b"%d" % self.seen

    def load(self, state: bytes) -> None:
        self.seen = int(state)


def values(numbers: range) -> set[bytes]:
    return {b"%d" % number for number in numbers}


def commit(settings: Settings, topic: str, offset: int, mark: LogMark | None = None) -> None:
    """Commit an offset for the group of the same name as the topic."""
    client = consumer(settings.kafka, topic)
    metadata = encode_mark(mark) if mark is not None else ""
    client.commit(offsets=[TopicPartition(topic, 0, offset, metadata)], asynchronous=False)
    client.close()


def committed(settings: Settings, topic: str) -> tuple[int, LogMark | None]:
    client = consumer(settings.kafka, topic)
    (part,) = client.committed([TopicPartition(topic, 0)], timeout=30)
    client.close()
    return part.offset, decode_mark(part.metadata)


def breaks(group: str, problem: str) -> float:
    return metrics.LOG_BREAKS.labels(group, problem)._value.get()


def publish_at(settings: Settings, topic: str, numbers: range, ts_ns: int) -> None:
    publisher = Publisher(settings.kafka, "test")
    for number in numbers:
        publisher.publish(topic, str(number), b"%d" % number, ts_ns)
    publisher.flush()


def test_a_committed_offset_carries_the_mark_of_its_log(kafka: Settings) -> None:
    topic, handler = new_topic(kafka, "marked"), BufferingHandler()
    fill(kafka, topic, range(5))
    with Running(Worker(settings_of(kafka, "1"), WorkerSpec(topic, topic), handler)):
        wait_for(lambda: len(handler.written) == 5, "all written")
    offset, mark = committed(kafka, topic)
    assert offset == 5
    assert mark is not None
    assert (mark.log, mark.checksum) == (log_id(kafka.kafka, topic), LogMark.behind("", b"4", 0).checksum)


def test_a_topic_that_does_not_exist_is_an_error_that_a_worker_retries(kafka: Settings) -> None:
    with pytest.raises(ServiceError, match="missing-topic"):
        log_id(kafka.kafka, "missing-topic")


@pytest.mark.causes("LogBroken")
@pytest.mark.parametrize("with_mark", [True, False])
def test_after_the_log_lost_its_end_every_new_message_is_written(
    kafka: Settings, caplog: pytest.LogCaptureFixture, *, with_mark: bool
) -> None:
    topic, handler = new_topic(kafka, "shorter"), BufferingHandler()
    now = now_ns()
    publish_at(kafka, topic, range(900), now - 7_200 * NS_PER_S)
    publish_at(kafka, topic, range(900, 1_000), now - 60 * NS_PER_S)
    mark = LogMark.behind(log_id(kafka.kafka, topic), b"1199", now // NS_PER_MS)
    commit(kafka, topic, 1_200, mark if with_mark else None)
    with Running(Worker(settings_of(kafka, "1"), WorkerSpec(topic, topic), handler)):
        wait_for(lambda: breaks(topic, "shorter_log") == 1, "the break is counted")
        assert Looks().find("LogBroken", f"{topic} (shorter_log)")
        first = 900 if with_mark else 0
        wait_for(lambda: committed(kafka, topic)[0] in (first, 1_000), "the committed offset is in the log again")
        publish_at(kafka, topic, range(1_000, 1_250), now)
        wait_for(lambda: values(range(first, 1_250)) <= set(handler.written), "all new messages written")
        assert len(handler.written) == 1_250 - first, "messages from long before the loss are not handled again"
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert [f"handling from offset {first}" in line and "the log ends at 1000" in line for line in errors] == [True]
    assert committed(kafka, topic)[0] == 1_250


def test_a_log_that_lost_its_end_and_is_long_again_is_noticed(kafka: Settings) -> None:
    topic, handler = new_topic(kafka, "rewritten"), BufferingHandler()
    fill(kafka, topic, range(1_300))
    commit(kafka, topic, 1_200, LogMark.behind(log_id(kafka.kafka, topic), b"lost", now_ns() // NS_PER_MS))
    with Running(Worker(settings_of(kafka, "1"), WorkerSpec(topic, topic), handler)):
        wait_for(lambda: set(handler.written) == values(range(1_300)), "everything written that may be new")
    assert breaks(topic, "shorter_log") == 1


def test_offsets_of_another_log_are_not_used(kafka: Settings) -> None:
    topic, handler = new_topic(kafka, "another"), BufferingHandler()
    fill(kafka, topic, range(50))
    commit(kafka, topic, 40, LogMark("another cluster/another topic", 1, now_ns() // NS_PER_MS))
    with Running(Worker(settings_of(kafka, "1"), WorkerSpec(topic, topic), handler)):
        wait_for(lambda: set(handler.written) == values(range(50)), "the whole log written")
    assert breaks(topic, "other_log") == 1


def test_messages_that_retention_removed_are_counted(kafka: Settings, caplog: pytest.LogCaptureFixture) -> None:
    topic, handler = new_topic(kafka, "expired"), BufferingHandler()
    fill(kafka, topic, range(500))
    commit(kafka, topic, 100)
    admin = AdminClient(connection(kafka.kafka, "test"))
    for deleted in admin.delete_records([TopicPartition(topic, 0, 300)]).values():
        deleted.result(30)
    with Running(Worker(settings_of(kafka, "1"), WorkerSpec(topic, topic), handler)):
        wait_for(lambda: set(handler.written) == values(range(300, 500)), "what is left is written")
    assert metrics.EXPIRED.labels(topic, topic)._value.get() == 200
    assert "200 messages from offset 100 on were removed from the log before they were handled" in caplog.text


def test_a_topic_that_is_created_again_under_a_running_worker_is_read_from_its_beginning(kafka: Settings) -> None:
    topic, handler = new_topic(kafka, "recreated"), BufferingHandler()
    fill(kafka, topic, range(100))
    with Running(Worker(settings_of(kafka, "1"), WorkerSpec(topic, topic), handler)):
        wait_for(lambda: len(handler.written) == 100, "all written")
        admin = AdminClient(connection(kafka.kafka, "test"))
        admin.delete_topics([topic])[topic].result(30)
        admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(30)
        fill(kafka, topic, range(1_000, 1_010))
        wait_for(lambda: values(range(1_000, 1_010)) <= set(handler.written), "the new log written")


@pytest.mark.causes("ConsumerReplaced")
def test_a_member_that_another_process_replaced_makes_a_new_consumer(kafka: Settings) -> None:
    topic, handler, looks = new_topic(kafka, "fenced"), BufferingHandler(), Looks()
    with Running(Worker(settings_of(kafka, "1"), WorkerSpec(topic, topic), handler)):
        fill(kafka, topic, range(100))
        wait_for(lambda: len(handler.written) == 100, "all written")
        for times in (1, 2, 3):
            usurper = consumer(kafka.kafka, topic, f"{topic}-1")
            usurper.subscribe([topic])
            wait_for(lambda: [usurper.poll(0.1), usurper.assignment()][1], "the other process has the partition")  # noqa: B023 - called at once
            usurper.close()
            wait_for(lambda: metrics.REJOINS.labels(topic)._value.get() >= times, "the worker was replaced")  # noqa: B023 - called at once
            fill(kafka, topic, range(100 * times, 100 * times + 100))
            wait_for(lambda: set(handler.written) == values(range(100 * times + 100)), "the worker reads again")  # noqa: B023 - called at once
        assert looks.find("ConsumerReplaced", topic)


def test_a_worker_that_its_group_gives_no_partitions_joins_again_until_it_does(
    kafka: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "JOIN_S", 0.5)
    topic, handler = new_topic(kafka, "unassigned"), BufferingHandler()
    fill(kafka, topic, range(10))
    silent = consumer(kafka.kafka, topic)
    silent.subscribe([topic])
    wait_for(lambda: [silent.poll(0.1), silent.assignment()][1], "another member has the partition")
    with Running(Worker(settings_of(kafka, "1"), WorkerSpec(topic, topic), handler)):  # waits for the other one to poll
        wait_for(lambda: metrics.REJOINS.labels(topic)._value.get() >= 2, "the worker joined again")
        assert handler.written == []
        monkeypatch.setattr(worker, "JOIN_S", 60.0)
        silent.close()
        wait_for(lambda: set(handler.written) == values(range(10)), "all written")


def test_an_error_of_kafka_during_the_assignment_does_not_end_the_worker(
    kafka: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, handler = new_topic(kafka, "slow"), BufferingHandler()
    fill(kafka, topic, range(10))
    real, failures = LogStart, [KafkaException(KafkaError(KafkaError._TIMED_OUT))]

    def start_after_a_failure(*arguments: object) -> object:
        if failures:
            raise failures.pop()
        return real(*arguments)

    monkeypatch.setattr(worker, "LogStart", start_after_a_failure)
    with Running(Worker(settings_of(kafka, "1"), WorkerSpec(topic, topic), handler)):
        wait_for(lambda: len(handler.written) == 10, "all written")
    assert metrics.REJOINS.labels(topic)._value.get() == 1


@pytest.mark.causes("CheckpointFailed")
def test_a_folder_that_takes_no_checkpoint_is_reported_and_stops_nothing(
    kafka: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "CHECKPOINT_S", 0.0)
    topic, handler = new_topic(kafka, "unsaved"), CountingHandler()
    (tmp_path / "file").touch()
    settings = settings_of(kafka, "1")
    stream = settings.stream.model_copy(update={"state_dir": tmp_path / "file"})
    settings = settings.model_copy(update={"stream": stream})
    looks = Looks()
    with Running(Worker(settings, WorkerSpec(topic, topic, 3_600.0, "v"), handler)):
        for place in range(4):
            fill(kafka, topic, range(10 * place, 10 * place + 10))
            wait_for(lambda: len(handler.written) == 10 * place + 10, "all written")  # noqa: B023 - called at once
        wait_for(lambda: looks.find("CheckpointFailed", topic), "the failures are reported")


def test_a_checkpoint_that_the_handler_refuses_is_ignored_and_that_of_the_other_partition_is_used(
    kafka: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "CHECKPOINT_S", 0.0)
    topic = new_topic(kafka, "states", partitions=2)
    settings = settings_of(kafka, "1")
    settings = settings.model_copy(update={"stream": settings.stream.model_copy(update={"state_dir": tmp_path})})
    spec = WorkerSpec(topic, topic, warm_up_s=3_600.0, state_version="v")
    fill(kafka, topic, range(100))
    first = CountingHandler()
    with Running(Worker(settings, spec, first)):
        wait_for(lambda: len(first.written) == 100, "all written")
    checkpoints = Checkpoints(tmp_path, topic, topic, "v")
    identity = log_id(kafka.kafka, topic)
    found = checkpoints.read(0, identity, 0, 1_000)
    assert found is not None
    checkpoints.write(0, found.offset, found.mark, b"no number")
    second = CountingHandler()
    with Running(Worker(settings, spec, second)):
        wait_for(lambda: len(second.warmed) == found.offset, "partition 0 warmed up from the log")
        fill(kafka, topic, range(100, 110))
        wait_for(lambda: len(second.written) == 10, "new messages written")
    assert f"the checkpoint of {topic}[0] is ignored, and the log is read instead: ValueError" in caplog.text


def test_a_checkpoint_from_before_the_log_lost_its_end_is_ignored(
    kafka: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    topic = new_topic(kafka, "older")
    settings = settings_of(kafka, "1")
    settings = settings.model_copy(update={"stream": settings.stream.model_copy(update={"state_dir": tmp_path})})
    fill(kafka, topic, range(100))
    identity = log_id(kafka.kafka, topic)
    commit(kafka, topic, 90, LogMark.behind(identity, b"89", 0))
    Checkpoints(tmp_path, topic, topic, "v").write(0, 80, LogMark.behind(identity, b"lost", 0), b"80")
    handler = CountingHandler()
    with Running(Worker(settings, WorkerSpec(topic, topic, 3_600.0, "v"), handler)):
        wait_for(lambda: len(handler.written) == 10, "new messages written")
    assert len(handler.warmed) == 90
    assert "the checkpoint of partition 0 is ignored" in caplog.text


def test_a_group_that_committed_in_a_longer_log_counts_as_behind(kafka: Settings) -> None:
    group = f"longer-{now_ns()}"
    publish_at(kafka, EVENTS_TOPIC, range(20), now_ns() - NS_PER_S)
    client = consumer(kafka.kafka, group)
    parts = [TopicPartition(EVENTS_TOPIC, partition) for partition in range(kafka.kafka.partitions)]
    ends = [client.get_watermark_offsets(part, timeout=30)[1] for part in parts]
    beyond = [TopicPartition(EVENTS_TOPIC, part.partition, end + 100) for part, end in zip(parts, ends, strict=True)]
    client.commit(offsets=beyond, asynchronous=False)
    client.close()
    assert topic_state(kafka.kafka, EVENTS_TOPIC, (group,)).lag == {group: sum(ends)}
    assert first_group_behind(kafka.kafka, (group,), now_ns()) is not None
