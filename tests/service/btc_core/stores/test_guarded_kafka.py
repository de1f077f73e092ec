"""A broker that encrypts and asks for a user: every client gets what its rights allow, and a clear error otherwise."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from btc_core.clock import NS_PER_S, now_ns
from btc_core.errors import BtcError, ConfigError, ServiceError
from btc_core.names import DEADLETTERS_TOPIC, EVENTS_TOPIC, TOPICS
from btc_core.service_settings import KafkaSettings
from btc_core.stores import origin
from btc_core.stores.kafka import first_group_behind, group_members, log_id, read_topic, topic_state
from btc_core.stores.kafka_connection import missing_rights
from btc_core.stores.kafka_topics import create_empty_topic, ensure_topics, missing_topics
from stack.ports import free_ports
from stack.runtime import Stack
from stack.servers import kafka as kafka_server
from streaming.handler import WorkerSpec
from streaming.publisher import Publisher
from streaming.worker import Worker
from tests.certificates import Authority, Certificate
from tests.service.streaming.test_worker import BufferingHandler
from tests.service.workers import Running
from tests.serving_process import free_port
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.settings import Settings

pytestmark = pytest.mark.service

PASSWORD = 'a "strange" password; with=marks'
GROUP = "guarded-group"


class GuardedBroker:
    """The broker of the native stack, with two further listeners and access control."""

    def __init__(self, stack: Stack, authority: Authority, scram_port: int, mutual_tls_port: int) -> None:
        self.settings = stack.settings
        self.authority = authority
        self._scram = f"localhost:{scram_port}"
        self._mutual_tls = f"localhost:{mutual_tls_port}"
        # Clients on the listener of the stack are the super user.
        self.admin = AdminClient({"bootstrap.servers": self.settings.kafka.bootstrap})

    def by_scram(self, user: str, mechanism: str = "SCRAM-SHA-512", **changes: Any) -> Settings:
        """The settings of a client with a user and a password."""
        values = {"bootstrap": self._scram, "security": "sasl_ssl", "mechanism": mechanism, "user": user,
                  "password": PASSWORD, "ca_file": str(self.authority.file), **changes}  # fmt: skip
        return self.settings.model_copy(update={"kafka": KafkaSettings.model_validate(values)})

    def by_certificate(self, certificate: Certificate, **changes: Any) -> Settings:
        """The settings of a client that proves who it is by a certificate."""
        values = {"bootstrap": self._mutual_tls, "security": "ssl", "ca_file": str(self.authority.file),
                  "cert_file": str(certificate.cert), "key_file": str(certificate.key), **changes}  # fmt: skip
        return self.settings.model_copy(update={"kafka": KafkaSettings.model_validate(values)})

    def add_user(self, user: str) -> None:
        """Create a user for both kinds of SCRAM."""
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            info = ScramCredentialInfo(mechanism, 4_096)
            change = UserScramCredentialUpsertion(user, info, PASSWORD.encode())
            self.admin.alter_user_scram_credentials([change])[user].result(10)

    def allow(self, user: str, kind: ResourceType, name: str, *operations: AclOperation) -> None:
        """Give a user rights on what begins with a name; on the cluster as a whole."""
        pattern = (
            ResourcePatternType.LITERAL if kind is ResourceType.BROKER or name == "*" else ResourcePatternType.PREFIXED
        )
        rules = [
            AclBinding(kind, name, pattern, f"User:{user}", "*", operation, AclPermissionType.ALLOW)
            for operation in operations
        ]
        for future in self.admin.create_acls(rules).values():
            future.result(10)


def _guard(authority: Authority, scram_port: int, mutual_tls_port: int, stack_port: int) -> dict[str, str]:
    server = authority.certificate("server", "localhost")
    host = "127.0.0.1"
    jaas = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    return {
        "listeners": f"PLAINTEXT://{host}:{stack_port},SCRAM://{host}:{scram_port},MUTUAL://{host}:{mutual_tls_port},",
        "advertised.listeners": f"PLAINTEXT://{host}:{stack_port},SCRAM://localhost:{scram_port},MUTUAL://localhost:{mutual_tls_port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SCRAM:SASL_SSL,MUTUAL:SSL",
        "sasl.enabled.mechanisms": "SCRAM-SHA-256,SCRAM-SHA-512",
        "listener.name.scram.scram-sha-256.sasl.jaas.config": jaas,
        "listener.name.scram.scram-sha-512.sasl.jaas.config": jaas,
        "listener.name.mutual.ssl.client.auth": "required",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(server.both),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority.file),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }  # fmt: skip


@pytest.fixture(scope="module")
def broker() -> Iterator[GuardedBroker]:
    folder = Path(tempfile.mkdtemp(prefix="btc-test-"))
    stack = Stack(folder)
    ports = free_ports()
    stack.create("sim", ports)
    authority = Authority(folder)
    scram_port, mutual_tls_port = free_port(), free_port()
    extra = _guard(authority, scram_port, mutual_tls_port, ports["kafka"])
    extra["listeners"] += f"CONTROLLER://127.0.0.1:{ports['kafka_controller']}"
    plain = kafka_server.broker_settings
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kafka_server, "broker_settings", lambda durability: plain(durability) | extra)
        try:
            stack.up(only=("kafka",))
            made = GuardedBroker(stack, authority, scram_port, mutual_tls_port)
            _remove_topics(made)
            for user in ("btc", "stranger", "reader", "letters"):
                made.add_user(user)
            _give_rights(made)
            yield made
        finally:
            stack.down()
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(stack.layout.run_dir, ignore_errors=True)


def _remove_topics(broker: GuardedBroker) -> None:
    """Delete what the stack has created, so that the user with a password has to do it."""
    for future in broker.admin.delete_topics([*TOPICS, f"origin-{broker.settings.exchange.origin}"]).values():
        future.result(10)


def _give_rights(broker: GuardedBroker) -> None:
    """The rights that docs/how-to/managed-services.md lists."""
    everything = (AclOperation.CREATE, AclOperation.DESCRIBE, AclOperation.READ, AclOperation.WRITE,
                  AclOperation.DESCRIBE_CONFIGS, AclOperation.ALTER_CONFIGS)  # fmt: skip
    for user in ("btc", "CN=workers"):
        broker.allow(user, ResourceType.TOPIC, "*", *everything)
        broker.allow(user, ResourceType.GROUP, "*", AclOperation.READ, AclOperation.DESCRIBE)
    broker.allow("reader", ResourceType.TOPIC, "*", AclOperation.READ, AclOperation.DESCRIBE)
    broker.allow("letters", ResourceType.TOPIC, EVENTS_TOPIC, AclOperation.DESCRIBE)
    broker.allow("letters", ResourceType.TOPIC, DEADLETTERS_TOPIC, AclOperation.WRITE)


def test_the_user_creates_the_topics_and_the_mark_of_the_log(broker: GuardedBroker) -> None:
    settings = broker.by_scram("btc")
    wait_for(lambda: missing_topics(settings.kafka, TOPICS, 5) == list(TOPICS), "the topics are deleted")
    origin.claim(settings, origin.LOG)
    assert sorted(ensure_topics(settings)) == sorted(TOPICS)
    assert origin.check(settings, origin.LOG) == []
    assert ensure_topics(settings) == [], "the second time there is nothing to do"


@pytest.mark.parametrize("client", ["SCRAM-SHA-256", "SCRAM-SHA-512", "certificate"])
def test_messages_go_through_a_worker_and_back(broker: GuardedBroker, client: str) -> None:
    certificate = broker.authority.certificate("workers")
    settings = broker.by_certificate(certificate) if client == "certificate" else broker.by_scram("btc", client)
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
    wrong = broker.by_scram("btc", password="not this one").kafka
    with pytest.raises(ServiceError, match=r"refuses the user 'btc' or the password .BTC_KAFKA_USER") as caught:
        missing_topics(wrong, TOPICS, 5)
    assert "not this one" not in str(caught.value) + repr(wrong)


def test_an_unknown_authority_is_named(broker: GuardedBroker, tmp_path: Path) -> None:
    other = Authority(tmp_path, "another authority")
    with pytest.raises(ServiceError, match=r"encrypted connection .* failed.*BTC_KAFKA_CA_FILE"):
        missing_topics(broker.by_scram("btc", ca_file=str(other.file)).kafka, TOPICS, 5)


def test_a_client_without_certificate_is_refused(broker: GuardedBroker) -> None:
    certificate = broker.authority.certificate("workers")
    with pytest.raises(ServiceError, match="Kafka at localhost"):
        missing_topics(broker.by_certificate(certificate, cert_file="", key_file="").kafka, TOPICS, 5)


def test_a_user_without_a_right_gets_an_error_that_names_it(broker: GuardedBroker) -> None:
    stranger, reader = broker.by_scram("stranger").kafka, broker.by_scram("reader").kafka
    assert missing_topics(stranger, TOPICS, 5) == list(TOPICS), "Kafka hides what a user may not see"
    with pytest.raises(ConfigError, match=r"does not create the topic origin-x.*right to create topics"):
        create_empty_topic(stranger, "origin-x")
    publisher = Publisher(reader, "test")
    publisher.publish(EVENTS_TOPIC, "BTC/USD", b"refused", now_ns())
    with pytest.raises(BtcError, match=r"failed for good.*the user 'reader' no right on a cluster"):
        publisher.flush()
    publisher = Publisher(broker.by_scram("letters").kafka, "test")
    publisher.publish(EVENTS_TOPIC, "BTC/USD", b"refused", now_ns())
    with pytest.raises(ServiceError, match=r"market.events.*the user 'letters' no right on a topic"):
        publisher.flush()
    with pytest.raises(ServiceError, match=r"the user 'reader' no right on a consumer group"):
        topic_state(reader, EVENTS_TOPIC, ("any-group",))


def test_the_doctor_names_each_right_that_is_missing(broker: GuardedBroker) -> None:
    topics, groups = (EVENTS_TOPIC, DEADLETTERS_TOPIC), ("bronze",)
    assert missing_rights(broker.by_scram("btc").kafka, topics, groups, 10) == []
    assert missing_rights(broker.by_scram("reader").kafka, topics, groups, 10) == [
        f"no right WRITE on the topic {EVENTS_TOPIC}",
        f"no right WRITE on the topic {DEADLETTERS_TOPIC}",
        "no right READ on the consumer group bronze",
    ]


def test_limits_that_the_service_refuses_are_logged_and_stay(
    broker: GuardedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    changed = broker.by_scram("reader", retention_hours=50)
    assert ensure_topics(changed) == []
    assert "the user may not read the configuration of topic market.events, which should be" in caplog.text
    broker.allow("reader", ResourceType.TOPIC, "*", AclOperation.DESCRIBE_CONFIGS)
    caplog.clear()

    def described() -> bool:
        ensure_topics(changed)
        return "retention.ms=604800000 and should have 180000000, which the service refuses to change" in caplog.text

    wait_for(described, "the right to read configurations applies")
    resource = ConfigResource(ConfigResource.Type.TOPIC, EVENTS_TOPIC)
    found = broker.admin.describe_configs([resource])[resource].result(10)["retention.ms"].value
    assert found == str(168 * 3_600_000)


def test_more_copies_than_brokers_are_refused_with_the_name_of_the_setting(broker: GuardedBroker) -> None:
    three = broker.by_scram("btc", replication=3, min_insync=2).kafka
    with pytest.raises(ConfigError, match=r"does not create the topic three.*3 copies .BTC_KAFKA_REPLICATION"):
        create_empty_topic(three, "three")


def test_an_existing_topic_keeps_a_minimum_that_its_copies_can_reach(
    broker: GuardedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    assert ensure_topics(broker.by_scram("btc", replication=3, min_insync=2)) == []
    assert "has 1 copies of each partition and BTC_KAFKA_REPLICATION is 3" in caplog.text
    publisher = Publisher(broker.by_scram("btc").kafka, "test")
    publisher.publish(EVENTS_TOPIC, "BTC/USD", b"still taken", now_ns())
    publisher.flush()
