"""The supervisor, with idle processes: a stopped process stays stopped, and a reload changes only what it must."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from stack.component import Component
from stack.layout import Layout
from stack.ports import free_ports
from stack.supervisor import Supervisor
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator


PROCESSES = tuple(f"idle_{number}" for number in range(30))
"""For about a millisecond supervisord reports an exited process before it restarts it. One request in seven falls into that
time, so with thirty processes some do."""


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    directory = Path(tempfile.mkdtemp(prefix="btc-supervisor-"))
    layout = Layout(directory)
    layout.create("sim", free_ports())
    started = Supervisor(layout)
    started.write_conf(Component(name, "Does nothing", ("sleep", "600"), stop_signal="KILL") for name in PROCESSES)
    started.start()
    try:
        yield started
    finally:
        started.shutdown()
        shutil.rmtree(layout.run_dir, ignore_errors=True)
        shutil.rmtree(directory, ignore_errors=True)


def test_a_process_that_has_just_exited_and_would_be_restarted_stays_stopped(supervisor: Supervisor) -> None:
    for name in PROCESSES:
        supervisor.start_process(name)
    wait_for(lambda: {each.state for each in supervisor.states().values()} == {"RUNNING"}, "processes that run")
    for name, running in supervisor.states().items():
        psutil.Process(running.pid).kill()
        supervisor.stop_process(name)
        assert supervisor.state(name).state == "STOPPED"
    assert {each.state for each in supervisor.states().values()} == {"STOPPED"}


def test_a_process_that_was_never_started_counts_as_stopped(supervisor: Supervisor) -> None:
    supervisor.stop_process(PROCESSES[0])
    assert supervisor.state(PROCESSES[0]).pid == 0


def test_reloading_one_process_leaves_the_others_running(supervisor: Supervisor) -> None:
    first, second, third = PROCESSES[:3]
    for name in (first, second, third):
        supervisor.start_process(name)
    before = {name: supervisor.state(name).pid for name in (first, second, third)}
    changed = (Component(name, "Does nothing", ("sleep", "601"), stop_signal="KILL") for name in (first, second))
    same = (Component(name, "Does nothing", ("sleep", "600"), stop_signal="KILL") for name in PROCESSES[2:])
    supervisor.write_conf([*changed, *same])
    supervisor.reload(first)
    assert supervisor.state(first).pid == 0
    assert {name: supervisor.state(name).pid for name in (second, third)} == {
        name: before[name] for name in (second, third)
    }
    supervisor.start_process(first)
    wait_for(lambda: psutil.Process(supervisor.state(first).pid).cmdline() == ["sleep", "601"], "the new command")
    supervisor.reload()
    assert supervisor.state(second).pid == 0
    assert supervisor.state(third).pid == before[third]
