"""Problems that are found before a start, and the fix that each message names."""

from __future__ import annotations

import os
import socket
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
