"""A broker that encrypts and asks for a user: every client gets what its rights allow, and a clear error otherwise."""

from __future__ import annotations

import re
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from confluent_kafka.admin import AclOperation, ConfigResource, ResourceType

from btc_core.clock import NS_PER_S, now_ns
from btc_core.errors import BtcError, ConfigError, ServiceError
from btc_core.names import DEADLETTERS_TOPIC, EVENTS_TOPIC, TOPICS
from btc_core.stores import kafka_topics, origin
from btc_core.stores.kafka import first_group_behind, group_members, log_id, read_topic, topic_state
from btc_core.stores.kafka_connection import missing_rights
from btc_core.stores.kafka_topics import _alter, create_empty_topic, ensure_topics, missing_topics
from streaming.handler import WorkerSpec
from streaming.publisher import Publisher
from streaming.worker import Worker
from tests.certificates import Authority
from tests.service.guarded_kafka import GuardedBroker, guarded_broker
from tests.service.streaming.test_worker import BufferingHandler
from tests.service.workers import Running
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.service

GROUP = "guarded-group"


@pytest.fixture(scope="module")
def broker() -> Iterator[GuardedBroker]:
    with guarded_broker() as running:
        yield running


def test_the_user_creates_the_topics_and_the_mark_of_the_log(broker: GuardedBroker) -> None:
    settings = broker.by_password("btc")
    wait_for(lambda: missing_topics(settings.kafka, TOPICS, 5) == list(TOPICS), "the topics are deleted")
    origin.claim(settings, origin.LOG)
    assert sorted(ensure_topics(settings)) == sorted(TOPICS)
    assert origin.check(settings, origin.LOG) == []
    assert ensure_topics(settings) == [], "the second time there is nothing to do"


@pytest.mark.parametrize("client", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "certificate"])
def test_messages_go_through_a_worker_and_back(broker: GuardedBroker, client: str) -> None:
    if client == "OAUTHBEARER":
        settings = broker.by_token("btc")
    elif client == "certificate":
        settings = broker.by_certificate(broker.authority.certificate("workers"))
    else:
        settings = broker.by_password("btc", client)
    kafka = settings.kafka.model_copy(update={"compression": "zstd", "rack": "zone-a"})
    settings = settings.model_copy(
        update={"kafka": kafka, "stream": settings.stream.model_copy(update={"state_dir": Path(tempfile.mkdtemp())})}
    )
    publisher = Publisher(kafka, "test")
    for number in range(100):
        publisher.publish(EVENTS_TOPIC, "BTC/USD", f"{client} {number}".encode(), now_ns())
    publisher.flush()
    handler = BufferingHandler()
    group = f"{GROUP}-{client}"
    with Running(Worker(settings, WorkerSpec(group, EVENTS_TOPIC), handler)):
        wait_for(lambda: f"{client} 99".encode() in handler.written, "the rows are written")
        wait_for(lambda: topic_state(kafka, EVENTS_TOPIC, (group,)).lag[group] == 0, "the offsets are committed")
        assert group_members(kafka, (group,)) == {group: 1}
    assert first_group_behind(kafka, (group,), now_ns() + NS_PER_S) is None
    assert f"{client} 5".encode() in {value for value, _, _ in read_topic(kafka, EVENTS_TOPIC)}
    assert "/" in log_id(kafka, EVENTS_TOPIC)


def test_a_wrong_password_is_named_and_not_shown(broker: GuardedBroker) -> None:
    wrong = broker.by_password("btc", password="not this one").kafka
    with pytest.raises(ServiceError, match=r"refuses the user 'btc' or the password .BTC_KAFKA_USER") as caught:
        missing_topics(wrong, TOPICS, 5)
    assert "not this one" not in str(caught.value) + repr(wrong)


def test_a_client_secret_that_the_token_endpoint_refuses_is_named_and_not_shown(broker: GuardedBroker) -> None:
    wrong = broker.by_token("btc", password="not this one").kafka
    with pytest.raises(ServiceError, match=r"no token .*BTC_KAFKA_TOKEN_URL.* client 'btc' .BTC_KAFKA_USER") as caught:
        missing_topics(wrong, TOPICS, 5)
    assert "invalid_client" in str(caught.value)
    assert "not this one" not in str(caught.value) + repr(wrong)


def test_a_token_endpoint_with_an_unknown_certificate_is_named(broker: GuardedBroker, tmp_path: Path) -> None:
    other = Authority(tmp_path, "another authority")
    with pytest.raises(ServiceError, match=r"no token .*BTC_KAFKA_TOKEN_CA_FILE"):
        missing_topics(broker.by_token("btc", token_ca_file=str(other.file)).kafka, TOPICS, 5)


def test_a_token_that_the_brokers_refuse_is_named(broker: GuardedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker.tokens, "audience", "another service")
    with pytest.raises(ServiceError, match=r"refuses the token of the client 'btc'.*audience"):
        missing_topics(broker.by_token("btc").kafka, TOPICS, 5)


def test_a_producer_renews_its_token_before_it_expires(broker: GuardedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker.tokens, "lifetime_s", 4)
    broker.tokens.given.clear()
    publisher = Publisher(broker.by_token("btc").kafka, "test")
    ends_s = time.monotonic() + 6
    sent = 0
    while time.monotonic() < ends_s or len(broker.tokens.given) < 3:
        publisher.publish(EVENTS_TOPIC, "BTC/USD", f"renewed {sent}".encode(), now_ns())
        publisher.flush()
        sent += 1
        assert time.monotonic() < ends_s + 60
    assert set(broker.tokens.given) == {("btc", "log")}
    kept = [value for value, _, _ in read_topic(broker.settings.kafka, EVENTS_TOPIC) if value.startswith(b"renewed")]
    assert kept == [f"renewed {number}".encode() for number in range(sent)]


def test_an_unknown_authority_is_named(broker: GuardedBroker, tmp_path: Path) -> None:
    other = Authority(tmp_path, "another authority")
    with pytest.raises(ServiceError, match=r"encrypted connection .* failed.*BTC_KAFKA_CA_FILE"):
        missing_topics(broker.by_password("btc", ca_file=str(other.file)).kafka, TOPICS, 5)


def test_a_client_without_certificate_is_refused(broker: GuardedBroker) -> None:
    certificate = broker.authority.certificate("workers")
    with pytest.raises(ServiceError, match="Kafka at localhost"):
        missing_topics(broker.by_certificate(certificate, cert_file="", key_file="").kafka, TOPICS, 5)


def test_a_user_without_a_right_gets_an_error_that_names_it(broker: GuardedBroker) -> None:
    stranger, reader = broker.by_password("stranger").kafka, broker.by_password("reader").kafka
    assert missing_topics(stranger, TOPICS, 5) == list(TOPICS), "Kafka hides what a user may not see"
    with pytest.raises(ConfigError, match=r"does not create the topic origin-x.*right to create topics"):
        create_empty_topic(stranger, "origin-x")
    publisher = Publisher(reader, "test")
    publisher.publish(EVENTS_TOPIC, "BTC/USD", b"refused", now_ns())
    with pytest.raises(
        BtcError, match=r"failed for good.*(the user 'reader' no right on a cluster|the line FATAL in its log)"
    ):
        publisher.flush()
    publisher = Publisher(broker.by_password("letters").kafka, "test")
    publisher.publish(EVENTS_TOPIC, "BTC/USD", b"refused", now_ns())
    with pytest.raises(ServiceError, match=r"market.events.*the user 'letters' no right on a topic"):
        publisher.flush()
    with pytest.raises(ServiceError, match=r"the user 'reader' no right on a consumer group"):
        topic_state(reader, EVENTS_TOPIC, ("any-group",))


def test_the_doctor_names_each_right_that_is_missing(broker: GuardedBroker) -> None:
    topics, groups = (EVENTS_TOPIC, DEADLETTERS_TOPIC), ("bronze",)
    assert missing_rights(broker.by_password("btc").kafka, topics, groups, 10) == []
    assert missing_rights(broker.by_password("reader").kafka, topics, groups, 10) == [
        f"no right WRITE on the topic {EVENTS_TOPIC}",
        f"no right WRITE on the topic {DEADLETTERS_TOPIC}",
        "no right READ on the consumer group bronze",
    ]


def test_limits_that_the_service_refuses_are_logged_and_stay(
    broker: GuardedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    changed = broker.by_password("reader", retention_hours=50)
    assert ensure_topics(changed) == []
    assert "the user may not read the configuration of topic market.events, which should be" in caplog.text
    broker.allow("reader", ResourceType.TOPIC, "*", AclOperation.DESCRIBE_CONFIGS)
    caplog.clear()

    def described() -> bool:
        ensure_topics(changed)
        return (
            "retention.ms=604800000 and should have 180000000 (BTC_KAFKA_RETENTION_HOURS), which the service"
            in caplog.text
        )

    wait_for(described, "the right to read configurations applies")
    resource = ConfigResource(ConfigResource.Type.TOPIC, EVENTS_TOPIC)
    found = broker.admin.describe_configs([resource])[resource].result(10)["retention.ms"].value
    assert found == str(168 * 3_600_000)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("retention.ms", "3600000", r"retention.ms=3600000, and the features need .* at least 93600000"),
        ("max.message.bytes", "100000", r"max.message.bytes=100000, and a large frame .* at least 1048588"),
    ],
)
def test_a_limit_with_which_the_pipeline_does_not_work_is_an_error_until_it_is_changed(
    broker: GuardedBroker, key: str, value: str, words: str
) -> None:
    broker.allow("reader", ResourceType.TOPIC, "*", AclOperation.DESCRIBE_CONFIGS)
    _alter(broker.admin, EVENTS_TOPIC, key, value)

    def refused() -> bool:
        try:
            ensure_topics(broker.by_password("reader"))
        except ConfigError as error:
            return re.search(words, str(error)) is not None
        return False

    wait_for(refused, "a limit that nobody can work with is an error")
    assert ensure_topics(broker.by_password("btc")) == [], "whoever has the right sets it"
    assert ensure_topics(broker.by_password("reader")) == []


def test_a_topic_whose_configuration_is_refused_is_created_with_the_rest_of_it(
    broker: GuardedBroker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kafka_topics, "TOPICS", ("small-segments",))
    monkeypatch.setattr(kafka_topics, "SEGMENT_BYTES", 1_000)
    assert ensure_topics(broker.by_password("btc", retention_hours=50)) == ["small-segments"]
    assert "topic small-segments has segment.bytes=1073741824 and should have 1000, which the service" in caplog.text
    resource = ConfigResource(ConfigResource.Type.TOPIC, "small-segments")
    found = broker.admin.describe_configs([resource])[resource].result(10)["retention.ms"].value
    assert found == str(50 * 3_600_000)


def test_more_partitions_than_the_service_allows_are_refused_with_the_name_of_the_setting(
    broker: GuardedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_topics, "TOPICS", ("many-partitions",))
    with pytest.raises(
        ConfigError, match=r"topic many-partitions: .*20000 partitions .BTC_KAFKA_PARTITIONS.*service allows"
    ):
        ensure_topics(broker.by_password("btc", partitions=20_000))


def test_more_copies_than_brokers_are_refused_with_the_name_of_the_setting(broker: GuardedBroker) -> None:
    three = broker.by_password("btc", replication=3, min_insync=2).kafka
    with pytest.raises(ConfigError, match=r"does not create the topic three.*3 copies .BTC_KAFKA_REPLICATION"):
        create_empty_topic(three, "three")


def test_an_existing_topic_keeps_a_minimum_that_its_copies_can_reach(
    broker: GuardedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    assert ensure_topics(broker.by_password("btc", replication=3, min_insync=2)) == []
    assert "has 1 copies of each partition and BTC_KAFKA_REPLICATION is 3" in caplog.text
    publisher = Publisher(broker.by_password("btc").kafka, "test")
    publisher.publish(EVENTS_TOPIC, "BTC/USD", b"still taken", now_ns())
    publisher.flush()
