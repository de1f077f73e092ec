"""Reading the log files of components: the last lines of one, and what is added to it.

What does not belong here: where logs lie (`stack/layout.py`), and their rotation, which supervisord does.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOLLOW_POLL_S = 0.2
TAIL_BYTES = 65_536
"""Holds 200 long lines."""


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a log, from its last `TAIL_BYTES`; empty when the file cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            return file.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        return []


def follow(path: Path) -> Iterator[str]:
    """Yield what is added to a log, without end; continue with the new file after a rotation."""
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
            rotated = False  # the old file has been renamed and the new one does not exist yet
        if rotated:
            file.close()
            file = path.open(errors="replace")
        time.sleep(FOLLOW_POLL_S)
