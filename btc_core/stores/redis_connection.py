"""How every client of Redis connects and proves who it is, and what its errors mean in plain words.

What does not belong here: keys and rows (`redis_rows`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import redis

from btc_core.stores.tls_errors import tls_failure

if TYPE_CHECKING:
    from btc_core.service_settings import RedisSettings

SOCKET_TIMEOUT_S = 5.0


def connect(settings: RedisSettings, timeout_s: float = SOCKET_TIMEOUT_S) -> redis.Redis:
    """A client that connects at its first command."""
    tls = {
        "ssl_ca_certs": settings.ca_file,
        "ssl_certfile": settings.cert_file,
        "ssl_keyfile": settings.key_file,
    }
    return redis.Redis.from_url(
        settings.url,
        username=settings.user or None,
        password=settings.password.get_secret_value() or None,
        socket_timeout=timeout_s,
        **{name: path for name, path in tls.items() if path},
    )


def explain(settings: RedisSettings, error: redis.RedisError) -> str:
    """What went wrong, for people, without the secrets that an error may repeat."""
    where, who = f"Redis at {settings.url}", f"the user {settings.user or 'default'!r}"
    if isinstance(error, redis.AuthenticationError):
        return f"{where} refuses {who} or the password (BTC_REDIS_USER, BTC_REDIS_PASSWORD)"
    if isinstance(error, redis.exceptions.NoPermissionError):
        return (
            f"{where} gives {who} no right: {error}. docs/how-to/managed-services.md lists the rights that are needed"
        )
    if "SSL" in str(error):
        return tls_failure(where, settings.ca_file, "BTC_REDIS_CA_FILE", error)
    return f"{where} does not answer: {type(error).__name__}: {error}"
