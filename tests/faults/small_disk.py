"""A disk of a test's own: a file system in a file, which can be filled, and copied as a loss of power would leave it.

The test is skipped with the reason where it may not mount.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from btc_core.stores.disk import free_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

MB = 1_000_000


class SmallDisk:
    """A mounted ext4 file system whose file is sparse."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._image = directory / "image"
        self._fillers: list[Path] = []
        self.path = directory / "disk"

    def fill_to(self, left_mb: int) -> None:
        """Take room until only so much is left."""
        path = self.path / f"filler-{len(self._fillers)}"
        self._fillers.append(path)
        # The servers write meanwhile, so the last bytes may be gone; what could be taken stays taken.
        with path.open("wb") as file, suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, max(1, free_bytes(self.path) - left_mb * MB))

    def empty(self) -> None:
        """Give back the room."""
        while self._fillers:
            self._fillers.pop().unlink()

    def lose_power(self) -> SmallDisk:
        """What a disk would hold after a loss of power now: what is only in the page cache is not in the file."""
        after = SmallDisk(self._directory / "after")
        after.path.mkdir(parents=True)
        _run("cp", "--sparse=always", str(self._image), str(after._image))
        return after

    def mount(self) -> None:
        """Mount the file system; ext4 repeats its journal, as it does after a loss of power."""
        _run("mount", "-o", "loop", str(self._image), str(self.path))

    def unmount(self) -> None:
        """Take the file system away, whether or not a process still uses it."""
        subprocess.run(["umount", "--lazy", str(self.path)], check=False, capture_output=True)  # noqa: S607 - the system's own


@contextmanager
def small_disk(size_mb: int) -> Iterator[SmallDisk]:
    """A mounted disk of this size for the length of a block."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk of its own")
    directory = Path(tempfile.mkdtemp(prefix="btc-disk-"))
    disk = SmallDisk(directory)
    disk.path.mkdir()
    with disk._image.open("wb") as file:
        file.truncate(size_mb * MB)
    try:
        _run("mkfs.ext4", "-q", "-m", "0", str(disk._image))
        disk.mount()
        yield disk
    finally:
        disk.unmount()
        shutil.rmtree(directory)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a disk of its own needs the right to mount one: {' '.join(command)}: {done.stderr.strip()}")
