"""What can be known to be wrong before anything starts: Python, disk, memory, ports, socket paths.

Each check returns a sentence that names the problem and the fix, or None. What does not belong here: asking servers.
"""

from __future__ import annotations

import random
import shutil
import socket
import sys
from typing import TYPE_CHECKING

import psutil

from btc_core.errors import StackError
from stack.layout import HOST, ports_from

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from stack.component import Component

GB = 1024**3
MIN_DISK_GB = 2
"""A day of live data takes 1 to 2 GB; below this QuestDB and SeaweedFS stop taking writes."""
MIN_MEMORY_GB = 3
"""The whole system takes up to 4 GB, of which a quarter is shared; below this the kernel kills the largest process."""
OLDEST_PYTHON = (3, 11)


def python_problem() -> str | None:
    """Too old a Python."""
    if sys.version_info >= OLDEST_PYTHON:
        return None
    return f"this is Python {sys.version.split()[0]}; 3.11 or newer is needed"


def disk_problem(path: Path) -> str | None:
    """Too little disk where the data goes."""
    place = next(parent for parent in (path, *path.parents) if parent.exists())
    free_gb = shutil.disk_usage(place).free / GB
    if free_gb >= MIN_DISK_GB:
        return None
    return (
        f"only {free_gb:.1f} GB of disk are free at {place}, at least {MIN_DISK_GB} GB are needed: "
        "free some, or name another place with --data-dir"
    )


def memory_problem(needed_gb: float = MIN_MEMORY_GB) -> str | None:
    """Too little memory for what is about to start."""
    available_gb = psutil.virtual_memory().available / GB
    if available_gb >= needed_gb:
        return None
    return f"only {available_gb:.1f} GB of memory are available, {needed_gb:.1f} GB are needed: end other programs"


def port_problem(component: Component) -> str | None:
    """A port of a component that somebody else uses."""
    taken = [port for port in component.ports if not _free(port)]
    if not taken:
        return None
    return (
        f"{component.name}: port {taken[0]} is in use{_owner(taken[0])}: "
        "end that program, or choose other ports with `btc up --ports-from N` (or in stack.env)"
    )


def duplicate_ports(components: Iterable[Component]) -> str | None:
    """Two components with the same port."""
    owners: dict[int, str] = {}
    for component in components:
        for port in component.ports:
            if port in owners:
                return f"{owners[port]} and {component.name} both have port {port}: change one in stack.env"
            owners[port] = component.name
    return None


def free_ports() -> dict[str, int]:
    """Ports for a stack that nobody uses now: for tests, and for a second stack beside the first."""
    for _ in range(100):
        # Below the range from which the system takes ports for outgoing connections.
        ports = ports_from(random.randrange(10_000, 32_000))  # noqa: S311 - no secret
        if all(_free(port) for port in ports.values()):
            return ports
    msg = f"no {len(ports)} consecutive free ports were found between 10000 and 32000"
    raise StackError(msg)


def _free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a port of a connection that was just closed counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _owner(port: int) -> str:
    """` by NAME (pid N)`, where the system lets us see it."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status != psutil.CONN_LISTEN or not connection.laddr or not connection.pid:
                continue
            if connection.laddr.port == port:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        pass
    return ""
