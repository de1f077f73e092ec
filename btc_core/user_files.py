"""The Python files of a user, models and features alike: reading one, and keeping it in the user's folder under its name.

What does not belong here: what such a file must hold (`btc_core.league`, `btc_core.features.user`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from btc_core.errors import InvalidInput
from btc_core.files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
"""What a model or a feature may be called."""
SUFFIX = ".py"
HASH_CHARACTERS = 12
"""How much of a SHA-256 is a version."""


def read(path: Path, kind: str, max_bytes: int) -> bytes:
    """The content of a file of some `kind`, such as "model"; raises `InvalidInput` if it cannot be read or is too large."""
    try:
        source = path.read_bytes()
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror or error}"
        raise InvalidInput(msg) from error
    if len(source) > max_bytes:
        msg = f"{path} has {len(source):,} bytes; a {kind} is a file of Python of at most {max_bytes:,} bytes"
        raise InvalidInput(msg)
    return source


def store(folder: Path, name: str, source: bytes) -> Path:
    """Write a file into the folder, whole or not at all; returns its path. Raises `InvalidInput`."""
    path = folder / f"{name}{SUFFIX}"
    with atomic_write(path) as file:
        file.write(source)
    return path


def remove(folder: Path, name: str, kind: str, known: Iterable[str]) -> Path:
    """Remove one of the `known` names of a folder; returns its former path. Raises `InvalidInput` for another name."""
    names = list(known)
    if name not in names:
        msg = f"there is no {kind} {name} in {folder}; " + (f"there are {', '.join(names)}" if names else "it has none")
        raise InvalidInput(msg)
    path = folder / f"{name}{SUFFIX}"
    path.unlink()
    return path
