"""Files: secrets, those that are there whole or not at all, and paths that another user must be able to pass.

What does not belong here: where files lie (`stack/layout.py`).
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from btc_core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

FOLLOW_POLL_S = 0.2


def write_secret(path: Path, text: str) -> None:
    """Write a file that nobody else can read, at no moment."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A file to write in the place of another, which stays as it was until this one is whole. Raises `InvalidInput`."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            try:
                yield file
                file.flush()
                draft.replace(path)
            except BaseException:
                draft.unlink()
                raise
    except OSError as error:
        msg = f"{path} cannot be written: {error.strerror or error}"
        raise InvalidInput(msg) from error


def let_pass(path: Path) -> None:
    """Let everybody pass through the directories above a path (not list them); only root needs it, for PostgreSQL."""
    for parent in path.absolute().parents:
        mode = parent.stat().st_mode
        if not mode & stat.S_IXOTH:
            parent.chmod(mode | stat.S_IXOTH)


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
