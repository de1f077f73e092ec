"""Files: secrets, those that are there whole or not at all, and paths that another user must be able to pass.

What does not belong here: where files lie (`stack/layout.py`).
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from btc_core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO


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
