"""The folder of the user's models: the entries of the league are the files `models/NAME.py` in `BTC_USER_DIR`.

What does not belong here: whether a file is a usable model (`check`).
"""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

import msgspec

from btc_core import user_files
from btc_core.errors import InvalidInput
from btc_core.user_files import HASH_CHARACTERS, NAME, SUFFIX

RESERVED = frozenset({"champion", "challenger", "harx", "har", "ewma", "naive", "random_walk"})
"""Names that stand for the champion and the baselines in the same table."""
BUILTIN = "btc_core.league.builtin"
MAX_FILE_BYTES = 1_000_000


class EntryFile(msgspec.Struct, frozen=True):
    """A user's file as it was read."""

    name: str
    path: Path
    source: bytes

    @property
    def version(self) -> str:
        """The first characters of the SHA-256 of the file: a changed file is another version."""
        return hashlib.sha256(self.source).hexdigest()[:HASH_CHARACTERS]


def entries_in(folder: Path) -> list[EntryFile]:
    """All entries in a folder by name; empty if there is no such folder."""
    found = sorted(
        path for path in folder.glob(f"*{SUFFIX}") if NAME.fullmatch(path.stem) and path.stem not in RESERVED
    )
    return [EntryFile(path.stem, path, path.read_bytes()) for path in found]


def read_entry(path: Path, name: str = "") -> EntryFile:
    """A file that is to become the entry `name`, by default that of the file; raises `InvalidInput`."""
    chosen = name or path.stem
    if not NAME.fullmatch(chosen):
        msg = (
            f"{chosen!r} cannot be the name of a model: use up to 31 lower-case letters, digits and underscores, beginning "
            "with a letter, or choose one with --name"
        )
        raise InvalidInput(msg)
    if chosen in RESERVED:
        msg = f"{chosen} is the name of the champion or of a baseline in the league; choose another one with --name"
        raise InvalidInput(msg)
    return EntryFile(chosen, path, user_files.read(path, "model", MAX_FILE_BYTES))


def builtin_names() -> list[str]:
    """The names of the models that ship with the package."""
    files = (Path(each.name) for each in resources.files(BUILTIN).iterdir())
    return sorted(path.stem for path in files if path.suffix == SUFFIX and path.stem != "__init__")


def read_builtin(name: str) -> EntryFile:
    """A model that ships with the package; raises `InvalidInput` with the names that there are."""
    if name not in builtin_names():
        msg = f"there is no built-in model {name!r}; there are {', '.join(builtin_names())}"
        raise InvalidInput(msg)
    file = resources.files(BUILTIN) / f"{name}{SUFFIX}"
    return EntryFile(name, Path(f"{name}{SUFFIX}"), file.read_bytes())


def store(folder: Path, entry: EntryFile) -> Path:
    """Write the entry into the folder, whole or not at all; returns its path. Raises `InvalidInput`."""
    return user_files.store(folder, entry.name, entry.source)


def remove(folder: Path, name: str) -> Path:
    """Remove an entry; its trained models and its forecasts stay stored. Raises `InvalidInput` if there is no such entry."""
    return user_files.remove(folder, name, "model", (entry.name for entry in entries_in(folder)))
