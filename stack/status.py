"""How one component is: its state, its process, and why it is not healthy.

What does not belong here: what a component is asked (`stack/servers`), and what a person sees (`btc_cli`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable

    from stack.component import Component
    from stack.supervisor import ProcessState


@dataclass(frozen=True)
class Status:
    """How one component is."""

    name: str
    title: str
    state: str
    """`healthy`, `unhealthy`, `starting`, `restarting`, `failed` or `stopped`."""
    url: str
    pid: int
    memory_mb: int
    alive_s: int
    reason: str


def problem_of(check: Callable[[], None]) -> str:
    """Ask a server; "" when it is healthy. Whatever a client library raises means the same here: not healthy (yet)."""
    try:
        check()
    except Exception as error:  # noqa: BLE001 - seven client libraries, each with its own tree of errors
        return f"{type(error).__name__}: {error}".strip()
    return ""


def status_of(component: Component, process: ProcessState | None) -> Status:
    """Ask a component how it is now; `process` is None when the supervisor does not run it."""
    state, reason = _judge(component, process)
    pid = process.pid if process else 0
    return Status(
        name=component.name,
        title=component.title,
        state=state,
        url=component.url,
        pid=pid,
        memory_mb=_memory_mb(pid),
        alive_s=process.alive_s if process else 0,
        reason=reason,
    )


def _judge(component: Component, process: ProcessState | None) -> tuple[str, str]:
    if process is None or process.state in {"STOPPED", "STOPPING"}:
        return "stopped", ""
    if process.state == "BACKOFF":
        return "restarting", process.reason
    if process.state in {"FATAL", "EXITED", "UNKNOWN"}:
        return "failed", process.reason
    why = problem_of(component.check) if component.check else ""
    if why:
        return ("starting" if process.alive_s < component.start_timeout_s else "unhealthy"), why
    return ("starting" if process.state == "STARTING" and component.check is None else "healthy"), ""


def _memory_mb(pid: int) -> int:
    """Proportional set size of a process and its children: pages that processes share are split among them."""
    if not pid:
        return 0
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    return sum(_pss(each) for each in family) // 1_000_000


def _pss(process: psutil.Process) -> int:
    try:
        try:
            return int(process.memory_full_info().pss)
        except (psutil.AccessDenied, AttributeError):  # another user's process, or not Linux
            return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
