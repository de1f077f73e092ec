"""Files of a stack: readable by their owner only, reachable by another user, and locks between processes.

What does not belong here: where files lie (`stack/layout.py`), and reading logs (`stack/logs.py`).
"""

from __future__ import annotations

import fcntl
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from btc_core.files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET_MODE = 0o600


def write_secret(path: Path, text: str) -> None:
    """Write a file that no other user can read, not even while it is being written."""
    with atomic_write(path, SECRET_MODE) as file:
        file.write(text.encode())


def allow_traversal(path: Path) -> None:
    """Let every user pass through the directories above a path, without listing them."""
    for parent in path.absolute().parents:
        mode = parent.stat().st_mode
        if not mode & stat.S_IXOTH:
            parent.chmod(mode | stat.S_IXOTH)


@contextmanager
def one_process_at_a_time(lock_file: Path) -> Iterator[None]:
    """Wait until no other process is in a block with this file, and keep others out during the block."""
    with lock_file.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
