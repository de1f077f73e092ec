"""The broker of the native stack with TLS, users and access control, for tests of guarded services."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from btc_core.names import DEADLETTERS_TOPIC, EVENTS_TOPIC, TOPICS
from btc_core.service_settings import KafkaSettings
from stack.ports import free_ports
from stack.runtime import Stack
from stack.servers import kafka as kafka_server
from tests.certificates import Authority, Certificate
from tests.serving_process import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.settings import Settings

PASSWORD = 'a "strange" password; with=marks'


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


@contextmanager
def guarded_broker(*others: str) -> Iterator[GuardedBroker]:
    """A broker with its users for the length of a block, and `others`, which are further components of its stack."""
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
            stack.up(only=("kafka", *others))
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
