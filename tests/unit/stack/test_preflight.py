"""Problems that are found before a start, and the fix that each message names."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from stack import preflight
from stack.component import Component

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

LISTEN = "127.0.0.1"


def test_a_port_in_use_is_named_with_its_owner_and_the_fix() -> None:
    with socket.socket() as other:
        other.bind((LISTEN, 0))
        other.listen()
        port = other.getsockname()[1]
        problem = preflight.port_problem(Component("kafka", "the log", ("true",), ports=(port,)))
    assert problem is not None
    assert f"kafka: port {port} is in use by" in problem
    assert f"pid {os.getpid()}" in problem
    assert "--ports-from" in problem


def test_the_ports_of_another_stack_are_one_line_that_says_how_to_stop_it(tmp_path: Path) -> None:
    conf = tmp_path / "supervisord.conf"
    for file in (conf, tmp_path / "stack.env"):
        file.write_text("")
    # A shell stands for supervisord: it has the file in its command line, and the server is its child.
    server = "import socket, sys, time\nfor _ in range(2):\n s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); globals()[f's{_}'] = s\ntime.sleep(60)"
    command = ["sh", "-c", f'"{sys.executable}" -c "$1"; true', str(conf), server]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as shell:
        try:
            assert shell.stdout is not None
            first, second = (int(shell.stdout.readline()) for _ in range(2))
            components = [
                Component("kafka", "the log", ("true",), ports=(first,)),
                Component("api", "it", ("true",), ports=(second,)),
            ]
            (line,) = preflight.port_problems(components)
        finally:
            os.killpg(shell.pid, signal.SIGKILL)
    assert line.startswith(f"the stack in {tmp_path} runs and has 2 of the ports, from {min(first, second)} to ")
    assert f"btc down --data-dir {tmp_path}" in line
    assert "--ports-from" in line


def test_a_port_that_a_connection_has_is_reported_with_the_range_of_such_ports() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        port = client.getsockname()[1]
        problem = preflight.port_problem(Component("league", "the league", ("true",), ports=(port,)))
    assert problem is not None
    first, last = preflight.outgoing_ports()
    assert first <= port <= last
    assert f"gives to outgoing connections, {first} to {last}: " in problem


def test_too_little_disk_or_memory_is_named_with_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "MIN_DISK_GB", 10**9)
    assert "--data-dir" in (preflight.disk_problem(tmp_path / "not" / "there") or "")
    assert "memory" in (preflight.memory_problem(needed_gb=10**6) or "")
    assert preflight.memory_problem(needed_gb=0) is None
