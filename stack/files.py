"""Writing files: whole or not at all, readable by their owner only, and reachable by another user.

What does not belong here: where files lie (`stack/layout.py`), and reading logs (`stack/logs.py`).
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

SECRET_MODE = 0o600
DEFAULT_MODE = 0o666
"""The umask still takes permissions from it."""


@contextmanager
def atomic_write(path: Path, mode: int = DEFAULT_MODE) -> Iterator[BinaryIO]:
    """Open a draft that replaces `path` once the block has ended; after an error `path` stays as it was.

    Raises `InvalidInput` when the file cannot be written.
    """
    draft = path.with_name(f".{path.name}.draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
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
