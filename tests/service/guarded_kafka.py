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
from tests.service.token_service import AUDIENCE, TokenService, token_service
from tests.serving_process import free_port
from tests.tls_proxy import TlsProxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.settings import Settings

PASSWORD = 'a "strange" password; with=marks'


PLAIN_PASSWORD = "of-the-plain-mechanism"
"""The broker has it in its configuration, where the marks of the other one would need escapes."""


class GuardedBroker:
    """The broker of the native stack, with two further listeners and access control."""

    def __init__(self, stack: Stack, authority: Authority, ports: dict[str, int], tokens: TokenService) -> None:
        self.settings = stack.settings
        self.authority = authority
        self.tokens = tokens
        self._addresses = {listener: f"localhost:{port}" for listener, port in ports.items()}
        # Clients on the listener of the stack are the super user.
        self.admin = AdminClient({"bootstrap.servers": self.settings.kafka.bootstrap})

    def by_password(self, user: str, mechanism: str = "SCRAM-SHA-512", **changes: Any) -> Settings:
        """The settings of a client with a user and a password."""
        password = PLAIN_PASSWORD if mechanism == "PLAIN" else PASSWORD
        values = {"bootstrap": self._addresses["SCRAM"], "security": "sasl_ssl", "mechanism": mechanism, "user": user,
                  "password": password, "ca_file": str(self.authority.file), **changes}  # fmt: skip
        return self.settings.model_copy(update={"kafka": KafkaSettings.model_validate(values)})

    def by_token(self, client: str, **changes: Any) -> Settings:
        """The settings of a client that gets tokens from the provider, which is reached by TLS."""
        values = {"bootstrap": self._addresses["OAUTH"], "security": "sasl_ssl", "mechanism": "OAUTHBEARER", "user": client,
                  "password": PASSWORD, "ca_file": str(self.authority.file), "token_scope": "log", "token_extensions": "pool=1",
                  "token_url": f"https://{self._addresses['TOKENS']}/token", "token_ca_file": str(self.authority.file),
                  **changes}  # fmt: skip
        return self.settings.model_copy(update={"kafka": KafkaSettings.model_validate(values)})

    def by_certificate(self, certificate: Certificate, **changes: Any) -> Settings:
        """The settings of a client that proves who it is by a certificate."""
        values = {"bootstrap": self._addresses["MUTUAL"], "security": "ssl", "ca_file": str(self.authority.file),
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


def _guard(authority: Authority, ports: dict[str, int], controller_port: int, keys_url: str) -> dict[str, str]:
    """Further configuration of the broker; `ports` are those of its listeners for clients."""
    server = authority.certificate("server", "localhost")
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    plain = "org.apache.kafka.common.security.plain.PlainLoginModule"
    bearer = "org.apache.kafka.common.security.oauthbearer"
    addresses = [f"{listener}://localhost:{port}" for listener, port in ports.items()]
    return {
        "listeners": ",".join([*addresses, f"CONTROLLER://127.0.0.1:{controller_port}"]),
        "advertised.listeners": ",".join(addresses),
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SCRAM:SASL_SSL,MUTUAL:SSL,OAUTH:SASL_SSL",
        "listener.name.scram.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "listener.name.scram.plain.sasl.jaas.config": f'{plain} required user_btc="{PLAIN_PASSWORD}";',
        "listener.name.scram.scram-sha-256.sasl.jaas.config": scram,
        "listener.name.scram.scram-sha-512.sasl.jaas.config": scram,
        "listener.name.oauth.sasl.enabled.mechanisms": "OAUTHBEARER",
        "listener.name.oauth.oauthbearer.sasl.jaas.config": f"{bearer}.OAuthBearerLoginModule required;",
        "listener.name.oauth.oauthbearer.sasl.server.callback.handler.class": f"{bearer}.OAuthBearerValidatorCallbackHandler",
        # A connection ends with its token, unless the client shows a new one.
        "listener.name.oauth.oauthbearer.connections.max.reauth.ms": "3600000",
        "sasl.oauthbearer.jwks.endpoint.url": keys_url,
        "sasl.oauthbearer.expected.audience": AUDIENCE,
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
    stack_ports = free_ports()
    stack.create("sim", stack_ports)
    stack.layout.change_secrets({"BTC_KAFKA_SECURITY": "plaintext"}, {})
    authority = Authority(folder)
    ports = {"PLAINTEXT": stack_ports["kafka"], **{name: free_port() for name in ("SCRAM", "MUTUAL", "OAUTH")}}
    plain = kafka_server.broker_settings
    with pytest.MonkeyPatch.context() as patch, token_service({"btc": PASSWORD}) as (tokens, url):
        keys_url = f"{url}/keys"
        extra = _guard(authority, ports, stack_ports["kafka_controller"], keys_url)
        patch.setattr(kafka_server, "broker_settings", lambda durability: plain(durability) | extra)
        patch.setenv("JDK_JAVA_OPTIONS", f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={keys_url}")
        try:
            stack.up(only=("kafka", *others))
            with TlsProxy(authority, int(url.rpartition(":")[2])) as proxy:
                made = GuardedBroker(stack, authority, ports | {"TOKENS": proxy.port}, tokens)
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
