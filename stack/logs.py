"""Reading the log files of components: their last lines, and what is added to them.

What does not belong here: where logs lie (`stack/layout.py`), and their rotation, which the supervisor does.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOLLOW_POLL_S = 0.2


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a log; empty when there is none.

    Reads at most 64 KB, which is 200 long lines.
    """
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 65_536))
            return file.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        return []


def follow(path: Path) -> Iterator[str]:
    """What is added to a log, for ever; goes on in the new file when the log is rotated."""
    file = path.open(errors="replace")
    file.seek(0, os.SEEK_END)
    while True:
        text = file.read()
        if text:
            yield text
            continue
        try:
            rotated = path.stat().st_ino != os.fstat(file.fileno()).st_ino
        except FileNotFoundError:
            rotated = False  # between the two steps of a rotation
        if rotated:
            file.close()
            file = path.open(errors="replace")
        time.sleep(FOLLOW_POLL_S)
