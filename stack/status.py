"""The status of one component: its state, its process, and the reason when it is not healthy.

What does not belong here: the health checks (`stack/servers`), and how a status is shown (`btc_cli`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from stack.health_checks import problem_of

if TYPE_CHECKING:
    from stack.component import Component
    from stack.supervisor import ProcessState


@dataclass(frozen=True)
class Status:
    """The status of one component."""

    name: str
    title: str
    state: str
    """`healthy`, `degraded` (it answers and cannot do all of its work), `unhealthy`, `starting`, `restarting`, `failed` or
    `stopped`."""
    url: str
    pid: int
    memory_mb: int
    alive_s: int
    """How long the process has been running."""
    given: bool
    """Whether it is an external server, which the stack neither starts nor stops."""
    reason: str
    """Why it is not healthy; "" when it is healthy or was stopped."""
    after_forecasts: bool = False
    """Whether no forecast needs it, so that `btc up` starts it after the first forecast."""


def status_of(component: Component, process: ProcessState | None) -> Status:
    """Check a component now; `process` is None when supervisord does not know it."""
    state, reason = _state_and_reason(component, process)
    pid = process.pid if process else 0
    return Status(
        name=component.name,
        title=component.title,
        state=state,
        url=component.url,
        pid=pid,
        memory_mb=_memory_mb(pid),
        alive_s=process.uptime_s if process else 0,
        given=bool(component.given_by),
        reason=reason,
        after_forecasts=component.after_forecasts and not component.given_by,
    )


def _state_and_reason(component: Component, process: ProcessState | None) -> tuple[str, str]:
    if component.given_by:
        return _checked_given(component)
    if process is None or process.state in {"STOPPED", "STOPPING"}:
        return "stopped", ""
    if process.state == "BACKOFF":
        return "restarting", process.reason
    if process.state in {"FATAL", "EXITED", "UNKNOWN"}:
        return "failed", process.reason
    return _checked(component, process)


def _checked_given(component: Component) -> tuple[str, str]:
    """The state of an external server, from its checks."""
    for check, state in ((component.check, "unhealthy"), (component.work_check, "degraded")):
        problem = problem_of(check) if check else ""
        if problem:
            return state, problem
    return "healthy", ""


def _checked(component: Component, process: ProcessState) -> tuple[str, str]:
    """The state of a process that runs, from its checks."""
    if _is_suspended(process.pid):
        return "unhealthy", f"the process is suspended (SIGSTOP); `kill -CONT {process.pid}` lets it continue"
    problem = problem_of(component.check) if component.check else ""
    if problem:
        return ("starting" if process.uptime_s < component.start_timeout_s else "unhealthy"), problem
    if process.state == "STARTING" and component.check is None:
        return "starting", ""
    problem = problem_of(component.work_check) if component.work_check else ""
    return ("degraded", problem) if problem else ("healthy", "")


def _is_suspended(pid: int) -> bool:
    """Whether a process is stopped by a signal: it hangs, and no check of it would be answered."""
    try:
        return bool(pid) and psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return False


def _memory_mb(pid: int) -> int:
    """Proportional set size of a process and its children: each shared page is split among the processes that share it."""
    if not pid:
        return 0
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    return sum(_pss_bytes(each) for each in family) // 1_000_000


def _pss_bytes(process: psutil.Process) -> int:
    try:
        try:
            return int(process.memory_full_info().pss)
        except (psutil.AccessDenied, AttributeError):  # a process of another user, or not Linux
            return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
