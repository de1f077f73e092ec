"""The supervisor: its configuration file, and talking to it over its Unix socket.

What does not belong here: order and health (`stack/runtime.py`). supervisord only restarts what dies.
"""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
import xmlrpc.client
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

from btc_core.errors import StackError
from stack.files import write_secret
from stack.layout import python_path
from stack.logs import tail
from stack.supervisor_conf import conf_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stack.component import Component
    from stack.layout import Layout

SUPERVISOR_PATIENCE_S = 10.0
"""It answers within half a second of its start."""

ALIVE = frozenset({"STARTING", "RUNNING", "STOPPING"})
DOWN = frozenset({"STOPPED", "FATAL"})
"""It stays down. One that is EXITED does not: the supervisor starts it again within a second."""


@dataclass(frozen=True)
class ProcessState:
    """What the supervisor knows about one process."""

    name: str
    state: str
    pid: int
    started_s: int
    now_s: int
    reason: str

    @property
    def alive_s(self) -> int:
        """How long it has been running."""
        return self.now_s - self.started_s if self.state in ALIVE else 0


class _SocketConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket; the host name is the socket's path."""

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
        self._connection = host, connection  # what `close` closes
        return connection


class Supervisor:
    """One supervisord; every call opens its own connection, so threads may share it."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def write_conf(self, components: Iterable[Component]) -> None:
        """Write `supervisord.conf`; it holds secrets and gets mode 0600."""
        write_secret(self._layout.supervisor_conf, conf_text(self._layout, components))

    def answers(self) -> bool:
        """True when it runs."""
        try:
            self._call("supervisor.getPID")
        except (OSError, http.client.HTTPException):
            return False
        return True

    def start(self) -> None:
        """Start supervisord in the background, or make a running one read its configuration again."""
        if self.answers():
            self.reload()
            return
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(self._layout.supervisor_conf)]
        env = _environment(self._layout)
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd="/")
        deadline_s = time.monotonic() + SUPERVISOR_PATIENCE_S
        while done.returncode == 0 and time.monotonic() < deadline_s:
            if self.answers():
                return
            time.sleep(0.05)
        lines = "\n".join([done.stderr.strip(), *tail(self._layout.log("supervisord"), 10)])
        msg = f"the supervisor did not start:\n{lines}"
        raise StackError(msg)

    def states(self) -> dict[str, ProcessState]:
        """The state of every process; empty when the supervisor is not running."""
        try:
            found: Any = self._call("supervisor.getAllProcessInfo")
        except (OSError, http.client.HTTPException):
            return {}
        return {each["name"]: _state(each) for each in found}

    def state(self, name: str) -> ProcessState:
        """The state of one process."""
        return _state(self._call("supervisor.getProcessInfo", name))

    def start_process(self, name: str) -> None:
        """Start it and return at once; one that is running stays as it is."""
        try:
            self._call("supervisor.startProcess", name, False)
        except xmlrpc.client.Fault as fault:
            if "ALREADY_STARTED" not in fault.faultString:
                msg = f"{name} cannot be started: {fault.faultString}"
                raise StackError(msg) from fault

    def stop_process(self, name: str) -> None:
        """Stop it and return when it has stopped for good, also when it died a moment ago and is about to come back."""
        while True:
            try:
                self._call("supervisor.stopProcess", name, False)
            except xmlrpc.client.Fault as fault:
                if "NOT_RUNNING" not in fault.faultString:
                    raise
            if self.state(name).state in DOWN:
                return
            time.sleep(0.1)

    def shutdown(self) -> None:
        """Stop what still runs, and supervisord itself."""
        try:
            pid = int(self._call("supervisor.getPID"))
            self._call("supervisor.shutdown")
        except (OSError, http.client.HTTPException):
            return
        deadline_s = time.monotonic() + SUPERVISOR_PATIENCE_S
        while _runs(pid) and time.monotonic() < deadline_s:
            time.sleep(0.05)

    def reload(self, only: str = "") -> None:
        """Take over programs that changed, which stops them, or `only` this one; those that did not are left alone."""
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


def _runs(pid: int) -> bool:
    """A process that has ended stays as a zombie in containers whose first process collects none."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _environment(layout: Layout) -> dict[str, str]:
    """What every process of the stack inherits.

    `stack.env` comes by name. In sim mode the exchange's addresses in our own environment must not win over it.
    """
    simulated = layout.settings().simulated
    ours = {
        key: value
        for key, value in os.environ.items()
        if not (simulated and key.startswith("BTC_EXCHANGE_")) and key not in {"BTC_ENV_FILE", "PYTHONHOME"}
    }
    return ours | {"BTC_ENV_FILE": str(layout.env_file), "PYTHONPATH": python_path(), "PYTHONUNBUFFERED": "1"}
