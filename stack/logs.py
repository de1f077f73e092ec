"""Reading the log files of components: the last lines of one, and what is added to it.

What does not belong here: where logs lie (`stack/layout.py`), and their rotation, which supervisord does.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOLLOW_POLL_S = 0.2
START_SUFFIX = ".start"
"""The suffix of a file beside each log. It says where the log ended when its process was last started."""
TAIL_BYTES = 65_536
"""Holds 200 long lines."""


def mark_start(log: Path) -> None:
    """Remember where a log ends now, because its process is about to start. On a full disk, nothing is remembered."""
    file = log.stat() if log.exists() else None
    with suppress(OSError):
        log.with_suffix(START_SUFFIX).write_text(f"{file.st_ino} {file.st_size}" if file else "0 0")


def _start_of(log: Path) -> int:
    """Where the lines since the last start begin; 0 if that was before the log was rotated, or is not known."""
    try:
        inode, size = map(int, log.with_suffix(START_SUFFIX).read_text().split())
    except (OSError, ValueError):
        return 0
    return size if log.stat().st_ino == inode else 0


def tail(path: Path, lines: int, *, since_start: bool = False) -> list[str]:
    """The last lines of a log, from its last `TAIL_BYTES`; empty when the file cannot be read.

    With `since_start`, only lines that were written since `mark_start`.
    """
    try:
        begin = _start_of(path) if since_start else 0
        with path.open("rb") as file:
            file.seek(max(begin, path.stat().st_size - TAIL_BYTES))
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
