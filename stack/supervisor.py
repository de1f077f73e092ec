"""A client of supervisord: it starts supervisord and talks to it over its Unix socket.

What does not belong here: order and health (`stack/runtime.py`). supervisord only restarts processes that exit.
"""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import xmlrpc.client
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

from btc_core import horizons
from btc_core.errors import StackError
from btc_core.files import raise_open_files
from btc_core.waiting import wait_until
from stack.files import write_secret
from stack.layout import python_path
from stack.limits import OPEN_FILES
from stack.logs import tail
from stack.supervisor_conf import conf_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stack.component import Component
    from stack.layout import Layout

SUPERVISOR_TIMEOUT_S = 10.0
"""supervisord answers within half a second of its start."""
SUPERVISOR_POLL_S = 0.05
STOP_TIMEOUT_S = 60.0
"""supervisord kills a process at most 35 s after its stop signal (`Component.stop_wait_s`)."""
STOP_POLL_S = 0.1
LOG_LINES = 10
"""Last lines of supervisord's log that are shown when it does not start."""

RUNNING_STATES = frozenset({"STARTING", "RUNNING", "STOPPING"})
FINAL_STATES = frozenset({"STOPPED", "FATAL"})
"""supervisord leaves the process stopped. EXITED is not among them: it starts such a process again within a second."""


@dataclass(frozen=True)
class ProcessState:
    """What supervisord knows about one process."""

    name: str
    state: str
    pid: int
    started_s: int
    now_s: int
    reason: str

    @property
    def uptime_s(self) -> int:
        """How long it has been running; 0 when it is not."""
        return self.now_s - self.started_s if self.state in RUNNING_STATES else 0


class _SocketConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("supervisor", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._path)
        except OSError:
            self.sock.close()
            raise


class _SocketTransport(xmlrpc.client.Transport):
    """XML-RPC over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = _SocketConnection(self._path)
        self._connection = host, connection  # the base class closes it
        return connection


class Supervisor:
    """The supervisord of one stack; every call opens its own connection, so threads may share this object."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def write_conf(self, components: Iterable[Component]) -> None:
        """Write `supervisord.conf` with mode 0600, because it holds secrets."""
        write_secret(self._layout.supervisor_conf, conf_text(self._layout, components))

    def is_running(self) -> bool:
        """Whether supervisord answers."""
        try:
            self._call("supervisor.getPID")
        except (OSError, http.client.HTTPException):
            return False
        return True

    def start(self) -> None:
        """Start supervisord in the background; when it runs already, make it read its configuration again."""
        if self.is_running():
            self.reload()
            return
        raise_open_files(OPEN_FILES)
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(self._layout.supervisor_conf)]
        env = _environment(self._layout)
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd="/")
        if done.returncode == 0 and wait_until(self.is_running, SUPERVISOR_TIMEOUT_S, SUPERVISOR_POLL_S):
            return
        lines = "\n".join([done.stderr.strip(), *tail(self._layout.log("supervisord"), LOG_LINES)])
        msg = f"the supervisor did not start:\n{lines}"
        raise StackError(msg)

    def states(self) -> dict[str, ProcessState]:
        """The state of every process; empty when supervisord is not running."""
        try:
            found: Any = self._call("supervisor.getAllProcessInfo")
        except (OSError, http.client.HTTPException):
            return {}
        return {each["name"]: _state(each) for each in found}

    def state(self, name: str) -> ProcessState:
        """The state of one process."""
        return _state(self._call("supervisor.getProcessInfo", name))

    def start_process(self, name: str) -> None:
        """Start a process unless it runs, and return at once."""
        try:
            self._call("supervisor.startProcess", name, False)
        except xmlrpc.client.Fault as fault:
            if "ALREADY_STARTED" not in fault.faultString:
                msg = f"{name} cannot be started: {fault.faultString}"
                raise StackError(msg) from fault

    def stop_process(self, name: str) -> None:
        """Stop a process and return when it will stay stopped; raises `StackError` when it does not stop.

        A process that has just exited cannot be stopped, and supervisord is about to start it again, so the request is
        repeated until the state is final.
        """

        def has_stopped() -> bool:
            try:
                self._call("supervisor.stopProcess", name, False)
            except xmlrpc.client.Fault as fault:
                if "NOT_RUNNING" not in fault.faultString:
                    raise
            return self.state(name).state in FINAL_STATES

        if not wait_until(has_stopped, STOP_TIMEOUT_S, STOP_POLL_S):
            msg = f"{name} still runs {STOP_TIMEOUT_S:g} s after the request to stop it"
            raise StackError(msg)

    def shutdown(self) -> None:
        """Stop all processes that still run, and supervisord itself."""
        try:
            pid = int(self._call("supervisor.getPID"))
            self._call("supervisor.shutdown")
        except (OSError, http.client.HTTPException):
            return
        wait_until(lambda: _has_exited(pid), SUPERVISOR_TIMEOUT_S, SUPERVISOR_POLL_S)

    def reload(self, only: str = "") -> None:
        """Apply a changed configuration, of all processes or `only` of one; the processes that it changes are stopped."""
        ((added, changed, removed),) = self._call("supervisor.reloadConfig")
        for name in [*changed, *removed]:
            if only in ("", name):
                self.stop_process(name)
                self._call("supervisor.removeProcessGroup", name)
        for name in [*added, *changed]:
            if only in ("", name):
                self._call("supervisor.addProcessGroup", name)

    def _call(self, method: str, *arguments: Any) -> Any:
        transport = _SocketTransport(str(self._layout.supervisor_socket))
        with xmlrpc.client.ServerProxy("http://supervisor", transport=transport) as proxy:
            call: Any = proxy
            for part in method.split("."):
                call = getattr(call, part)
            return call(*arguments)


def _state(found: dict[str, Any]) -> ProcessState:
    return ProcessState(
        name=found["name"],
        state=found["statename"],
        pid=found["pid"],
        started_s=found["start"],
        now_s=found["now"],
        reason=found["spawnerr"] or (found["description"] if found["state"] >= 100 else ""),
    )


def _has_exited(pid: int) -> bool:
    """Whether a process has ended; in a container whose first process reaps no children it stays as a zombie."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _environment(layout: Layout) -> dict[str, str]:
    """The environment that every process of the stack inherits.

    The processes read `stack.env` themselves, and variables win over that file; so in sim mode variables with the
    addresses of an exchange are left out.
    """
    settings = layout.settings()
    inherited = {
        key: value
        for key, value in os.environ.items()
        if not (settings.simulated and key.startswith("BTC_EXCHANGE_")) and key not in {"BTC_ENV_FILE", "PYTHONHOME"}
    }
    return inherited | {
        "BTC_ENV_FILE": str(layout.env_file),
        horizons.VARIABLE: horizons.text_of(settings.horizons_min),
        horizons.FORMER_VARIABLE: horizons.former_text(settings.former_horizons_min),
        "BTC_DISK_PATH": settings.disk.path,
        "PYTHONPATH": python_path(),
        "PYTHONUNBUFFERED": "1",
    }
