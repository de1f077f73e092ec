"""What can be known to be wrong before anything starts: Python, disk, memory, ports.

Each check returns a sentence that names the problem and the fix, or None when there is no problem. What does not belong
here: asking servers.
"""

from __future__ import annotations

import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from stack.layout import SUPERVISOR_CONF, Layout
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
    return next(iter(port_problems([component])), None)


def port_problems(components: Iterable[Component]) -> list[str]:
    """Which ports other programs use: a line for each other stack that has some, and one for each component otherwise."""
    taken = {each.name: [port for port in each.ports if not is_free(port)] for each in components}
    owners = _owners({port for ports in taken.values() for port in ports})
    stacks: dict[Path, list[int]] = {}
    lines = []
    for name, ports in taken.items():
        for port in ports:
            stack = _stack_of(owners.get(port))
            if stack is None:
                lines.append(_used_by(name, port, owners.get(port)))
                break  # the other ports of a component have the same owner
            stacks.setdefault(stack, []).append(port)
    of_stacks = [
        f"the stack in {place} runs and has {_ports_text(sorted(ports))}: stop it with `btc down --data-dir {place}`, or choose other ports with "
        "`btc up --ports-from N`"
        for place, ports in stacks.items()
    ]
    return of_stacks + lines


def _ports_text(ports: list[int]) -> str:
    return f"port {ports[0]}" if len(ports) == 1 else f"{len(ports)} of the ports, from {ports[0]} to {ports[-1]}"


def _used_by(name: str, port: int, owner: psutil.Process | None) -> str:
    """That a port is in use, and by whom as far as the system shows it."""
    first, last = outgoing_ports()
    by = ""
    if owner is not None:
        by = f" by {owner.name()} (pid {owner.pid})"
    elif first <= port <= last:
        by = f" by a connection: it is one of the ports that Linux gives to outgoing connections, {first} to {last}"
    return f"{name}: port {port} is in use{by}: end that program, or choose other ports with `btc up --ports-from N` (or in stack.env)"


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


def _owners(ports: set[int]) -> dict[int, psutil.Process]:
    """The programs that listen on these ports, as far as the system shows them."""
    found: dict[int, psutil.Process] = {}
    if not ports:
        return found
    with suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.status != psutil.CONN_LISTEN or not connection.laddr or not connection.pid:
                continue
            if connection.laddr.port in ports:
                found[connection.laddr.port] = psutil.Process(connection.pid)
    return found


def _stack_of(process: psutil.Process | None) -> Path | None:
    """The data directory of the stack whose supervisor started a process; None if none did."""
    if process is None:
        return None
    with suppress(psutil.Error):
        for parent in process.parents():
            for argument in parent.cmdline():
                folder = Path(argument).parent
                if argument.endswith(f"/{SUPERVISOR_CONF}") and Layout(folder).exists:
                    return folder
    return None
