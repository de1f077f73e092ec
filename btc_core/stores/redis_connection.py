"""How every client of Redis connects and proves who it is, and what its errors mean in plain words.

What does not belong here: keys and rows (`redis_rows`).
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import AskError, ClusterCrossSlotError, ClusterDownError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from btc_core.errors import ServiceError
from btc_core.stores.tls_errors import tls_failure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.service_settings import RedisSettings

SOCKET_TIMEOUT_S = 5.0
IN_CLUSTER = (AskError, ClusterCrossSlotError, ClusterDownError)
"""Errors with which a node of a Redis Cluster answers clients that do not know clusters; a moved slot is an `AskError`, too."""


class Client(redis.Redis):
    """A client that knows its settings, with which its errors are explained."""

    settings: RedisSettings


def connect(settings: RedisSettings, timeout_s: float = SOCKET_TIMEOUT_S) -> Client:
    """A client that connects at its first command. With Sentinels, each new connection goes to the present master."""
    tls = {
        "ssl_ca_certs": settings.ca_file,
        "ssl_certfile": settings.cert_file,
        "ssl_keyfile": settings.key_file,
    }
    options: dict[str, Any] = {
        "username": settings.user or None,
        "password": settings.password.get_secret_value() or None,
        "socket_timeout": timeout_s,
        **{name: path for name, path in tls.items() if path},
    }
    made = _of_sentinels(settings, options) if settings.sentinels else Client.from_url(settings.url, **options)
    client = cast("Client", made)  # `from_url` makes a client of its class
    client.settings = settings
    return client


def _of_sentinels(settings: RedisSettings, options: dict[str, Any]) -> Client:
    address = urlsplit(settings.url)
    encryption = {"ssl": True} if address.scheme == "rediss" else {}
    of_sentinels = {
        "username": None,
        "password": settings.sentinel_password.get_secret_value() or None,
        "retry": Retry(NoBackoff(), 0),  # instead of a second attempt, the next Sentinel is asked
    }
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        settings.sentinel_addresses,
        sentinel_kwargs=options | encryption | of_sentinels,
        db=int(address.path.strip("/") or 0),
        **options,
        **encryption,
    )
    master: Client = sentinel.master_for(address.netloc, redis_class=Client)  # type: ignore[no-untyped-call]
    return master


@contextmanager
def explained(client: Client) -> Iterator[None]:
    """Raise a `ServiceError` with the words of `explain` for an error of Redis in the block."""
    try:
        yield
    except redis.RedisError as error:
        raise ServiceError(explain(client.settings, error)) from error


def explain(settings: RedisSettings, error: redis.RedisError) -> str:
    """What went wrong, for people, without the secrets that an error may repeat."""
    where, who = f"Redis at {settings.url}", f"the user {settings.user or 'default'!r}"
    if isinstance(error, redis.AuthenticationError):
        return f"{where} refuses {who} or the password (BTC_REDIS_USER, BTC_REDIS_PASSWORD)"
    if isinstance(error, redis.exceptions.NoPermissionError):
        return (
            f"{where} gives {who} no right: {error}. docs/how-to/managed-services.md lists the rights that are needed"
        )
    if isinstance(error, IN_CLUSTER):
        return (
            f"{where} is a Redis Cluster, which is not supported: {error}. Use a single server, one endpoint with failover "
            "behind it, or Sentinels (BTC_REDIS_SENTINELS)"
        )
    if isinstance(error, MasterNotFoundError):
        return (
            f"the Sentinels at {settings.sentinels} (BTC_REDIS_SENTINELS) name no master {urlsplit(settings.url).netloc!r} "
            f"(BTC_REDIS_URL): {error}"
        )
    if "SSL" in str(error):
        return tls_failure(where, settings.ca_file, "BTC_REDIS_CA_FILE", error)
    is_away = isinstance(error, (redis.ConnectionError, redis.TimeoutError))
    said = str(error)  # a server that knows no AUTH repeats its arguments
    for secret in (settings.password, settings.sentinel_password):
        if secret.get_secret_value():
            said = said.replace(secret.get_secret_value(), "…")
    return f"{where} {'does not answer' if is_away else 'refuses a command'}: {type(error).__name__}: {said}"
