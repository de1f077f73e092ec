"""Writing a file whole or not at all.

What does not belong here: what is in a file, or where it lies.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from btc_core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

DEFAULT_MODE = 0o666
"""The umask still takes permissions from it."""


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
