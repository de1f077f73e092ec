"""What can be known to be wrong before anything starts: Python, disk, memory, ports.

Each check returns a sentence that names the problem and the fix, or None when there is no problem. What does not belong
here: asking servers.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from stack.limits import open_files
from stack.ports import is_free

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stack.component import Component

GB = 1024**3
MIN_DISK_GB = 2
"""A day of live data takes 1 to 2 GB; with less free space QuestDB and SeaweedFS soon refuse writes."""
MIN_MEMORY_GB = 3
"""The whole system takes 2.4 to 2.6 GB, and a training adds a process; with less the kernel kills the largest process."""
MIN_OPEN_FILES = 4_096
"""Twice what QuestDB has open after its first days with one market."""
OLDEST_PYTHON = (3, 11)


def python_problem() -> str | None:
    """Whether this Python is too old."""
    if sys.version_info >= OLDEST_PYTHON:
        return None
    return f"this is Python {sys.version.split()[0]}; 3.11 or newer is needed"


def disk_problem(path: Path) -> str | None:
    """Whether the disk of the data directory has too little space; the directory need not exist yet."""
    place = next(parent for parent in (path, *path.parents) if parent.exists())
    free_gb = shutil.disk_usage(place).free / GB
    if free_gb >= MIN_DISK_GB:
        return None
    return (
        f"only {free_gb:.1f} GB of disk are free at {place}, at least {MIN_DISK_GB} GB are needed: "
        "free some, or name another place with --data-dir"
    )


def memory_problem(needed_gb: float = MIN_MEMORY_GB) -> str | None:
    """Whether there is too little memory for what is about to start."""
    available_gb = psutil.virtual_memory().available / GB
    if available_gb >= needed_gb:
        return None
    return f"only {available_gb:.1f} GB of memory are available, {needed_gb:.1f} GB are needed: end other programs"


def open_files_problem() -> str | None:
    """Whether this account may open too few files for QuestDB and Kafka; `btc up` raises the soft limit by itself."""
    allowed = open_files()
    if allowed >= MIN_OPEN_FILES:
        return None
    return (
        f"at most {allowed} files may be open, at least {MIN_OPEN_FILES} are needed: raise the hard limit, with "
        "`ulimit -Hn`, /etc/security/limits.conf or LimitNOFILE of the service that runs `btc up`"
    )


def port_problem(component: Component) -> str | None:
    """Whether another program uses a port of this component."""
    taken = [port for port in component.ports if not is_free(port)]
    if not taken:
        return None
    owner = _owner(taken[0])
    first, last = outgoing_ports()
    if not owner and first <= taken[0] <= last:
        owner = f" by a connection: it is one of the ports that Linux gives to outgoing connections, {first} to {last}"
    return (
        f"{component.name}: port {taken[0]} is in use{owner}: "
        "end that program, or choose other ports with `btc up --ports-from N` (or in stack.env)"
    )


def outgoing_ports() -> tuple[int, int]:
    """The range from which Linux takes the local ports of outgoing connections; a server there may find its port taken."""
    first, last = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    return int(first), int(last)


def duplicate_ports(components: Iterable[Component]) -> str | None:
    """Whether two components have the same port."""
    owners: dict[int, str] = {}
    for component in components:
        for port in component.ports:
            if port in owners:
                return f"{owners[port]} and {component.name} both have port {port}: change one in stack.env"
            owners[port] = component.name
    return None


def _owner(port: int) -> str:
    """` by NAME (pid N)`; "" where the system does not show whose port it is."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status != psutil.CONN_LISTEN or not connection.laddr or not connection.pid:
                continue
            if connection.laddr.port == port:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        pass
    return ""
