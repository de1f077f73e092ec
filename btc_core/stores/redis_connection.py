"""How every client of Redis connects and proves who it is, and what its errors mean in plain words.

What does not belong here: keys and rows (`redis_rows`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import AskError, ClusterCrossSlotError, ClusterDownError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from btc_core.stores.tls_errors import tls_failure

if TYPE_CHECKING:
    from btc_core.service_settings import RedisSettings

SOCKET_TIMEOUT_S = 5.0
IN_CLUSTER = (AskError, ClusterCrossSlotError, ClusterDownError)
"""Errors with which a node of a Redis Cluster answers clients that do not know clusters; a moved slot is an `AskError`, too."""


def connect(settings: RedisSettings, timeout_s: float = SOCKET_TIMEOUT_S) -> redis.Redis:
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
    if not settings.sentinels:
        return redis.Redis.from_url(settings.url, **options)
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
    master: redis.Redis = sentinel.master_for(address.netloc)  # type: ignore[no-untyped-call]
    return master


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
    return f"{where} does not answer: {type(error).__name__}: {error}"
