"""A server runs only while its disk has room, and its process id stays its own. The disk is a folder whose size is played."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.paths import ROOT
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BOUND = 1_000_000
PLAYED = """
import signal
import sys
from collections import namedtuple
from pathlib import Path
from stack import disk_guard
Usage = namedtuple("Usage", "total used free")
disk_guard.shutil.disk_usage = lambda path: Usage(0, 0, int((Path(path) / "free").read_text()))
disk_guard.WAIT_S = 0.05
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sys.argv[0] = "disk_guard"
disk_guard.main()
"""
"""Runs the guard on a disk whose free bytes are in a file. Its parent ignores SIGTERM, which a program inherits."""


class Guarded:
    """A guard that is to run `sleep`."""

    def __init__(self, directory: Path, free: int) -> None:
        self._free = directory / "free"
        self._log = directory / "log"
        self.set_free(free)
        command = [sys.executable, "-c", PLAYED, "--path", str(directory), "--stop-below", str(BOUND)]
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, "--", "sleep", "60"], stdout=log, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
            )

    def set_free(self, free: int) -> None:
        draft = self._free.with_suffix(".new")
        draft.write_text(str(free))
        draft.replace(self._free)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def is_server(self) -> bool:
        return psutil.Process(self.process.pid).name() == "sleep"

    def end(self) -> None:
        self.process.kill()
        self.process.wait(10)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    before = psutil.Process().children()
    yield tmp_path
    left = [each for each in psutil.Process().children() if each not in before]
    assert not [each for each in left if each.status() != psutil.STATUS_ZOMBIE]


def test_the_server_is_stopped_before_the_disk_is_full_and_its_log_says_so(directory: Path) -> None:
    guarded = Guarded(directory, 5 * BOUND)
    try:
        wait_for(guarded.is_server, "the server runs under the process id of the guard")
        guarded.set_free(BOUND - 1)
        assert guarded.process.wait(10) == -15, "it got the signal to end in order"
    finally:
        guarded.end()
    assert guarded.log.splitlines() == [
        f"disk guard: only 1 MB are free at {directory}: the server is stopped before the disk is full"
    ]


def test_the_server_starts_only_when_there_is_room(directory: Path) -> None:
    guarded = Guarded(directory, 2 * BOUND - 1)
    try:
        wait_for(lambda: guarded.log, "it says what it waits for")
        assert not guarded.is_server()
        guarded.set_free(2 * BOUND)
        wait_for(guarded.is_server, "the server runs")
    finally:
        guarded.end()
    assert guarded.log.splitlines() == [
        f"disk guard: only 2 MB are free at {directory}; the server starts when 2 MB are free"
    ]


def test_the_watching_child_ends_with_a_server_that_was_killed(directory: Path) -> None:
    guarded = Guarded(directory, 5 * BOUND)
    try:
        wait_for(guarded.is_server, "the server runs")
        (watching,) = psutil.Process(guarded.process.pid).children()
    finally:
        guarded.end()
    wait_for(lambda: not watching.is_running(), "the child has ended")
