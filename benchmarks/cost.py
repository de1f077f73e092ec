"""The cost of running workers: processor time, memory, and the time that a restart takes.

What does not belong here: their throughput and latency (`servers`).
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil

from benchmarks.registry import Figure
from btc_core.errors import NotReady
from btc_core.stores.redis_connection import connect
from btc_core.stores.redis_rows import read_features, read_forecast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stack.runtime import Stack

SYMBOL = "BTC/USD"
RESTART_PATIENCE_S = 60.0


class Usage:
    """What components used during the block of `usage_of`; filled at its end."""

    def __init__(self) -> None:
        self.cores_of: dict[str, float] = {}
        """Processor seconds per second, by component."""
        self.memory_mb: dict[str, int] = {}
        """Resident memory at the end, by component."""

    @property
    def cores(self) -> float:
        """Processor seconds per second of all components together."""
        return sum(self.cores_of.values())

    @property
    def largest(self) -> str:
        """Name of the component with the most memory."""
        return max(self.memory_mb, key=lambda name: self.memory_mb[name])


@contextmanager
def usage_of(stack: Stack, names: tuple[str, ...]) -> Iterator[Usage]:
    """Measure what components use during a block."""
    usage = Usage()
    processes = {each.name: psutil.Process(each.pid) for each in stack.status(names)}

    def used_s() -> dict[str, float]:
        return {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}

    begin_s, before_s = time.perf_counter(), used_s()
    yield usage
    took_s = time.perf_counter() - begin_s
    usage.cores_of = {name: (after_s - before_s[name]) / took_s for name, after_s in used_s().items()}
    usage.memory_mb = memory_mb(stack, names)


def memory_mb(stack: Stack, names: tuple[str, ...]) -> dict[str, int]:
    """Resident memory of each component now."""
    return {each.name: each.memory_mb for each in stack.status(names)}


def restarts(stack: Stack, names: tuple[str, ...]) -> list[Figure]:
    """Seconds from `kill -9` of a worker until Redis holds a row that it made after its restart."""
    return [Figure(f"{name}, kill -9 to its next row", _restart_s(stack, name), "s", 5.0) for name in names]


def _restart_s(stack: Stack, name: str) -> float:
    (status,) = stack.status((name,))
    client = connect(stack.settings.redis)
    read = read_features if name == "features" else read_forecast
    os.kill(status.pid, signal.SIGKILL)
    killed_s = time.perf_counter()
    before = read(client, SYMBOL)
    while time.perf_counter() - killed_s < RESTART_PATIENCE_S:
        now = read(client, SYMBOL)
        if now is not None and (before is None or now.ts_recv_ns > before.ts_recv_ns):
            return time.perf_counter() - killed_s
        time.sleep(0.01)
    msg = f"{name} made no row within {RESTART_PATIENCE_S:.0f} s of being killed"
    raise NotReady(msg)
