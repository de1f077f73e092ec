"""Faults of running servers: one hangs, refuses its password, is full, or QuestDB suspends a table.

What does not belong here: when they happen (`chaos`).
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
import psutil
import redis

from btc_core.errors import ServiceError
from btc_core.stores.questdb import QuestDB
from btc_core.tables.catalogue import STORED
from stack.servers.valkey import MAX_MEMORY_MB

if TYPE_CHECKING:
    import numpy as np

    from stack.runtime import Stack

DEV_MODE = {"QDB_DEV_MODE_ENABLED": "true"}
"""The environment in which QuestDB lets a table be suspended by hand."""
LASTS_S = 6.0
"""Longer than every timeout of a worker's request to Redis, shorter than Kafka's session timeout."""
LONG_S = 14.0
"""Longer than Kafka's session timeout of ten seconds, so the workers lose their partitions."""
SUSPENDED_TABLES = tuple(table.name for table in STORED if table.layer != "gold")


class ServerFault(msgspec.Struct, frozen=True):
    """A fault of one server; `seconds` is how long it lasts, 0 for one that the system itself ends."""

    kind: str
    server: str
    seconds: float = 0.0
    table: str = ""

    def __str__(self) -> str:
        return f"{self.server} {self.kind} {self.table}".strip()


def draw(draws: np.random.Generator) -> ServerFault:
    """One fault by chance."""
    faults = (
        ServerFault("hangs", "questdb", LASTS_S),
        ServerFault("hangs", "kafka", LASTS_S),
        ServerFault("hangs long", "kafka", LONG_S),
        ServerFault("hangs", "valkey", LASTS_S),
        ServerFault("refuses its password", "valkey", LASTS_S),
        ServerFault("is full", "valkey", LASTS_S),
        ServerFault("suspends", "questdb", 0.0, str(draws.choice(SUSPENDED_TABLES))),
    )
    return faults[int(draws.integers(len(faults)))]


def inject(stack: Stack, fault: ServerFault, server: psutil.Process) -> None:
    """Cause a fault and end it; returns when it is over. A server that is killed meanwhile has lost the fault with it."""
    if fault.kind == "suspends":
        with QuestDB(stack.settings.questdb) as db, suppress(ServiceError):
            db.execute(f"ALTER TABLE {fault.table} SUSPEND WAL")
    elif fault.kind.startswith("hangs"):
        _hang(server, fault.seconds)
    else:
        _spoil_valkey(stack, fault)


def _hang(server: psutil.Process, seconds: float) -> None:
    with suppress(psutil.NoSuchProcess):  # raised also when another process has its id by now
        server.suspend()
        time.sleep(seconds)
        server.resume()


def _spoil_valkey(stack: Stack, fault: ServerFault) -> None:
    settings = stack.settings.redis
    password = settings.password.get_secret_value()
    spoiled, healed = {
        "refuses its password": (("requirepass", "another"), ("requirepass", password)),
        "is full": (("maxmemory", "1"), ("maxmemory", f"{MAX_MEMORY_MB}mb")),
    }[fault.kind]
    with suppress(redis.ConnectionError), redis.Redis.from_url(settings.url, password=password) as client:
        client.config_set(*spoiled)
        client.client_kill_filter(_type="normal", skipme=True)  # so that everybody has to give a password again
        time.sleep(fault.seconds)
        client.config_set(*healed)
