"""Writing a file whole or not at all, and how many files a process may have open.

What does not belong here: what is in a file, or where it lies.
"""

from __future__ import annotations

import os
import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING

from btc_core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

DEFAULT_MODE = 0o666
"""The umask still takes permissions from it."""


def raise_open_files(wanted: int) -> None:
    """Raise the soft limit of open files of this process, and so of everything that it starts, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


@contextmanager
def atomic_write(path: Path, mode: int = DEFAULT_MODE) -> Iterator[BinaryIO]:
    """Open a draft that replaces `path` once the block has ended; after an error `path` stays as it was.

    Every process has a draft of its own, so processes may write the same file at the same time. Raises `InvalidInput`
    when the file cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            try:
                yield file
                file.flush()
                draft.replace(path)
            except BaseException:
                draft.unlink(missing_ok=True)
                raise
    except OSError as error:
        msg = f"{path} cannot be written: {error.strerror or error}"
        raise InvalidInput(msg) from error
