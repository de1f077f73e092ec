"""Faults of running components: one is killed, hangs, refuses its password or is full, a table of QuestDB is suspended, a worker
waits for its partitions, or the process of a user's model is killed or hangs.

What does not belong here: when they happen (`plan`), or waiting for the recovery (`chaos`).
"""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
import psutil
import redis

from btc_core.errors import ServiceError
from btc_core.names import EVENTS_TOPIC
from btc_core.stores.kafka import consumer
from btc_core.stores.questdb import QuestDB
from btc_core.tables.catalogue import STORED
from stack.servers.valkey import MAX_MEMORY_MB
from tests.faults import user_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from stack.runtime import Stack

WORKERS = ("ingest", "bronze", "features", "forecast", "repair")
SERVERS = ("questdb", "kafka", "valkey")
COMPONENTS = (*WORKERS, *SERVERS)
FALLIBLE = (*COMPONENTS, user_model.COMPONENT)
"""What is killed and hangs."""
DEV_MODE = {"QDB_DEV_MODE_ENABLED": "true"}
"""The environment in which QuestDB lets a table be suspended by hand."""
KILLED, HANGS, HANGS_LONG = "is killed", "hangs", "hangs past the session timeout"
REFUSES, FULL, SUSPENDED = "refuses its password", "is full", "has a table suspended"
WAITS = "waits for its partitions"
"""A second member of its consumer group does not answer, so that Kafka gives nobody partitions."""
HANGS_S = (2.0, 12.0)
"""The range of a hang; the longest outlasts every timeout of a worker's request to Redis."""
HANGS_LONG_S = 50.0
"""Longer than Kafka's session timeout of 45 s, so the workers lose their partitions."""
LONG_SHARE = 0.25
"""Share of the long ones among the hangs of Kafka."""
SUSPENDED_TABLES = tuple(table.name for table in STORED if table.layer != "gold")


class ComponentFault(msgspec.Struct, frozen=True):
    """A fault of one component; `seconds` is how long it lasts, 0 for one that only the system itself ends."""

    kind: str
    component: str
    seconds: float = 0.0
    table: str = ""

    @property
    def label(self) -> str:
        """The component and the kind, under which faults are counted."""
        return f"{self.component} {self.kind}"


def labels() -> tuple[str, ...]:
    """The labels of all faults that `sequence` can draw."""
    every = [f"{name} {kind}" for kind in (KILLED, HANGS) for name in FALLIBLE]
    return (
        *every,
        f"kafka {HANGS_LONG}",
        f"valkey {REFUSES}",
        f"valkey {FULL}",
        f"questdb {SUSPENDED}",
        f"bronze {WAITS}",
    )


def sequence(draws: np.random.Generator) -> Iterator[ComponentFault]:
    """Endless faults; each comes once before any comes again, with Kafka's hang either short or long."""
    while True:
        seconds = draws.uniform(*HANGS_S, size=len(FALLIBLE) + 3).round(1).tolist()
        faults = [ComponentFault(KILLED, name) for name in FALLIBLE]
        faults += [ComponentFault(HANGS, name, seconds.pop()) for name in FALLIBLE if name != "kafka"]
        is_long = draws.random() < LONG_SHARE
        faults.append(
            ComponentFault(HANGS_LONG, "kafka", HANGS_LONG_S)
            if is_long
            else ComponentFault(HANGS, "kafka", seconds.pop())
        )
        faults += [ComponentFault(kind, "valkey", seconds.pop()) for kind in (REFUSES, FULL)]
        faults.append(ComponentFault(WAITS, "bronze", seconds.pop()))
        faults.append(ComponentFault(SUSPENDED, "questdb", table=str(draws.choice(SUSPENDED_TABLES))))
        yield from (faults[int(number)] for number in draws.permutation(len(faults)))


def inject(stack: Stack, fault: ComponentFault, process: psutil.Process) -> None:
    """Cause a fault and end it; returns when only the system's own recovery is left."""
    if fault.kind == SUSPENDED:
        with suppress(ServiceError), QuestDB(stack.settings.questdb) as db:
            db.execute(f"ALTER TABLE {fault.table} SUSPEND WAL")
    elif fault.kind == WAITS:
        _hold_up_the_group(stack, fault)
    elif fault.kind in {REFUSES, FULL}:
        _reconfigure_valkey(stack, fault)
    else:
        with suppress(psutil.NoSuchProcess):  # raised also when another process has its id by now
            if fault.kind == KILLED:
                process.send_signal(signal.SIGKILL)
                return
            process.suspend()
            time.sleep(fault.seconds)
            process.resume()


def pid_of(stack: Stack, component: str) -> int:
    """The process of a component, 0 while there is none."""
    if component == user_model.COMPONENT:
        return user_model.pid(stack)
    (now,) = stack.status((component,))
    return now.pid


def is_over(stack: Stack, fault: ComponentFault, old_pid: int) -> bool:
    """Whether the component is healthy again, in another process if it was killed, and with no table of it suspended."""
    if fault.component == user_model.COMPONENT:
        return user_model.pid(stack) not in ({0, old_pid} if fault.kind == KILLED else {0})
    (now,) = stack.status((fault.component,))
    if now.state != "healthy" or (fault.kind == KILLED and now.pid in {0, old_pid}):
        return False
    if fault.kind != SUSPENDED:
        return True
    try:
        with QuestDB(stack.settings.questdb) as db:
            rows = db.execute(f"SELECT suspended FROM wal_tables() WHERE name = '{fault.table}'")
    except ServiceError:
        return False
    return not any(suspended for (suspended,) in rows)


def _hold_up_the_group(stack: Stack, fault: ComponentFault) -> None:
    """Join the group of a worker that reads the events, and then neither take nor give up partitions for a while."""
    silent = consumer(stack.settings.kafka, fault.component)
    silent.subscribe([EVENTS_TOPIC])
    silent.poll(1.0)
    time.sleep(fault.seconds)
    silent.close()


def _reconfigure_valkey(stack: Stack, fault: ComponentFault) -> None:
    settings = stack.settings.redis
    password = settings.password.get_secret_value()
    faulty, right = {
        REFUSES: (("requirepass", "another"), ("requirepass", password)),
        FULL: (("maxmemory", "1"), ("maxmemory", f"{MAX_MEMORY_MB}mb")),
    }[fault.kind]
    with suppress(redis.ConnectionError), redis.Redis.from_url(settings.url, password=password) as client:
        client.config_set(*faulty)
        client.client_kill_filter(_type="normal", skipme=True)  # so that every client has to give a password again
        time.sleep(fault.seconds)
        client.config_set(*right)
