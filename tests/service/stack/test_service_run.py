"""`btc service run`, which systemd runs: it starts the stack, stays with it, and stops it in order."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from stack.ports import free_ports
from stack.runtime import Stack
from tests.paths import ROOT
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

UP_S = 300.0


@pytest.fixture
def stack() -> Iterator[Stack]:
    directory = Path(tempfile.mkdtemp(prefix="btc-service-"))
    made = Stack(directory)
    made.create("sim", free_ports())
    yield made
    made.down()
    shutil.rmtree(made.layout.run_dir, ignore_errors=True)
    shutil.rmtree(directory, ignore_errors=True)


def _start(stack: Stack) -> subprocess.Popen[bytes]:
    """Run the service with one server, and return once that server runs."""
    command = [sys.executable, "-m", "btc_cli", "service", "run", "--only", "valkey"]
    process = subprocess.Popen(
        [*command, "--data-dir", str(stack.layout.data_dir)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )
    wait_for(lambda: stack.running and stack.status(("valkey",))[0].state == "healthy", "a healthy server", UP_S)
    wait_for(lambda: _is_unlocked(stack), "the end of the start", UP_S)
    return process


def _is_unlocked(stack: Stack) -> bool:
    """Whether no command is starting or stopping components."""
    with (stack.layout.data_dir / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_a_stop_signal_stops_every_process_in_order(stack: Stack) -> None:
    service = _start(stack)
    (valkey,) = stack.status(("valkey",))
    service.terminate()
    assert service.wait(UP_S) == 0
    assert not stack.running
    assert not psutil.pid_exists(valkey.pid)


def test_a_failure_of_the_supervisor_is_a_failure_of_the_service_and_btc_down_is_none(stack: Stack) -> None:
    service = _start(stack)
    stack.down()
    assert service.wait(UP_S) == 0, "systemd must not start it again"
    service = _start(stack)
    (valkey,) = stack.status(("valkey",))
    supervisor = psutil.Process(int((stack.layout.run_dir / "supervisord.pid").read_text()))
    supervisor.kill()
    assert service.wait(UP_S) == 1, "systemd starts it again"
    psutil.Process(valkey.pid).kill()
