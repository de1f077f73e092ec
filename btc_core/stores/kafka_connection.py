"""How every client of Kafka connects and proves who it is, and what its errors mean in plain words.

What does not belong here: topics (`kafka_topics`), and what is written and read (`kafka`).
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException, Message, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient

from btc_core.errors import ServiceError
from btc_core.stores.tls_errors import tls_failure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from confluent_kafka import Consumer

    from btc_core.service_settings import KafkaSettings

_REFUSED_USER = frozenset({KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED})  # noqa: SLF001 - the code has no public name
_SILENCE = frozenset({KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE})  # noqa: SLF001 - the codes have no public names
NOT_ACQUIRED = "Failed to acquire SASL OAUTHBEARER token"
"""The beginning of librdkafka's text for a token endpoint that gives no token; its code is that of a refused user."""
MISSING_RIGHT = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "consumer group",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "cluster",
}
"""The codes for a missing right, and what it is missing on."""


def connection(kafka: KafkaSettings, client_id: str) -> dict[str, Any]:
    """The settings that all clients share. They retry an unreachable broker once a second, not twenty times."""
    return {
        "bootstrap.servers": kafka.bootstrap,
        "client.id": client_id,
        "socket.nagle.disable": True,  # a small request must not wait for the next one
        "reconnect.backoff.ms": 1_000,
        "reconnect.backoff.max.ms": 2_000,
        **_security(kafka),
    }


def _security(kafka: KafkaSettings) -> dict[str, Any]:
    values = {
        "ssl.ca.location": kafka.ca_file,
        "ssl.certificate.location": kafka.cert_file,
        "ssl.key.location": kafka.key_file,
        "ssl.key.password": kafka.key_password.get_secret_value(),
    }
    if kafka.authenticated:
        values |= {"sasl.mechanism": kafka.mechanism, **_credentials(kafka)}
    return {"security.protocol": kafka.security, **{key: value for key, value in values.items() if value}}


def _credentials(kafka: KafkaSettings) -> dict[str, str]:
    """The user and the password. For OAUTHBEARER, librdkafka gets and renews the tokens in a thread of its own."""
    user, password = kafka.user, kafka.password.get_secret_value()
    if kafka.mechanism != "OAUTHBEARER":
        return {"sasl.username": user, "sasl.password": password}
    return {
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.token.endpoint.url": kafka.token_url,
        "sasl.oauthbearer.client.id": user,
        "sasl.oauthbearer.client.secret": password,
        "sasl.oauthbearer.scope": kafka.token_scope,
        "sasl.oauthbearer.extensions": kafka.token_extensions,
        "https.ca.location": kafka.token_ca_file,
    }


def explain(kafka: KafkaSettings, error: KafkaError, seen: Sequence[KafkaError] = ()) -> str:
    """What went wrong, for people. `seen` are errors of the connection from before, which often name the cause."""
    where = f"Kafka at {kafka.bootstrap}"
    for cause in (error, *seen):
        code = cause.code()
        if code in _REFUSED_USER and kafka.mechanism == "OAUTHBEARER":
            return _token_problem(kafka, cause.str())
        if code in _REFUSED_USER:
            return (
                f"{where} refuses the user {kafka.user!r} or the password (BTC_KAFKA_USER, BTC_KAFKA_PASSWORD), or the "
                f"mechanism {kafka.mechanism} (BTC_KAFKA_MECHANISM): {cause.str()}"
            )
        if code == KafkaError._SSL:  # noqa: SLF001 - the code has no public name
            return tls_failure(where, kafka.ca_file, "BTC_KAFKA_CA_FILE", cause.str())
        if code in MISSING_RIGHT:
            who = f"the user {kafka.user!r}" if kafka.authenticated else "a client without a user"
            return (
                f"{where} gives {who} no right on a {MISSING_RIGHT[code]}: {cause.str()}. "
                "docs/how-to/managed-services.md lists the rights that are needed"
            )
    detail = f" ({seen[-1].str()})" if seen else ""
    return f"{where} {'does not answer' if error.code() in _SILENCE else 'reports'}: {error.str()}{detail}"


def _token_problem(kafka: KafkaSettings, text: str) -> str:
    """Why a client has no token, or none that the brokers accept."""
    client = f"the client {kafka.user!r}"
    if NOT_ACQUIRED not in text:
        return (
            f"Kafka at {kafka.bootstrap} refuses the token of {client}: {text}. The audience, the scope "
            "(BTC_KAFKA_TOKEN_SCOPE) and the extensions (BTC_KAFKA_TOKEN_EXTENSIONS) must be those that the brokers expect"
        )
    where = f"{kafka.token_url} (BTC_KAFKA_TOKEN_URL)"
    if "SSL" in text:
        return (
            f"there is no token for Kafka: {tls_failure(where, kafka.token_ca_file, 'BTC_KAFKA_TOKEN_CA_FILE', text)}"
        )
    return (
        f"there is no token for Kafka: {where} gives none to {client} (BTC_KAFKA_USER) with its secret "
        f"(BTC_KAFKA_PASSWORD) and scope (BTC_KAFKA_TOKEN_SCOPE): {text}"
    )


@contextmanager
def admin_client(kafka: KafkaSettings, **options: Any) -> Iterator[AdminClient]:
    """An admin client for the length of a block; Kafka's errors in the block become `ServiceError`.

    `options` are further settings of the client.
    """
    seen: list[KafkaError] = []
    config: dict[str, Any] = {**connection(kafka, "admin"), "error_cb": seen.append, **options}
    client = AdminClient(config)
    with translated_errors(kafka, client, seen):
        yield client


def missing_rights(kafka: KafkaSettings, topics: Sequence[str], groups: Sequence[str], timeout_s: float) -> list[str]:
    """The rights on these topics and groups that the user of the settings does not have; raises `ServiceError`."""
    with admin_client(kafka) as admin:
        about_topics = admin.describe_topics(
            TopicCollection(list(topics)), include_authorized_operations=True, request_timeout=timeout_s
        )
        about_groups = admin.describe_consumer_groups(
            list(groups), include_authorized_operations=True, request_timeout=timeout_s
        )
        needed = {
            **{
                ("topic", name): (found, (AclOperation.READ, AclOperation.WRITE))
                for name, found in about_topics.items()
            },
            **{("consumer group", name): (found, (AclOperation.READ,)) for name, found in about_groups.items()},
        }
        lacking = []
        for (kind, name), (future, operations) in needed.items():
            try:
                allowed = future.result(timeout_s).authorized_operations or ()
            except KafkaException as error:
                if error.args[0].code() not in MISSING_RIGHT:
                    raise
                allowed = ()
            lacking += [f"no right {each.name} on the {kind} {name}" for each in operations if each not in allowed]
        return lacking


@contextmanager
def translated_errors(kafka: KafkaSettings, client: AdminClient | Consumer, seen: list[KafkaError]) -> Iterator[None]:
    """Turn the errors of a client in this block into `ServiceError`; its `error_cb` adds to `seen`."""
    try:
        yield
    except KafkaException as error:
        left = client.poll(0)  # hands over the errors of the connection, and for a consumer those of its group
        if isinstance(left, Message) and (cause := left.error()) is not None:
            seen.append(cause)
        raise ServiceError(explain(kafka, error.args[0], seen)) from error
