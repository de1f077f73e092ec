"""The folder of a user's features, `features` in `BTC_USER_DIR`: only files that passed the check are features.

`btc features add` checks a file and leaves a mark beside it. A file that somebody copied into the folder has no mark, and is
checked when a process reads the folder, in a process of its own with a deadline. The mark also keeps a refusal, so that every
process has the same set of features and no start waits twice for an endless loop.
What does not belong here: what a file must hold (`files`), and what the check does (`check`).
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

import msgspec

from btc_core import user_files
from btc_core.errors import InvalidInput
from btc_core.features.user.check import CHECK_REVISION, check
from btc_core.features.user.files import FeatureFile, read_feature
from btc_core.files import atomic_write
from btc_core.user_files import SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

MAX_FEATURES = 16
"""Most features of a user. Each is computed at every minute close of every market, in the process of the features worker."""
MARK_SUFFIX = ".checked"


class Mark(msgspec.Struct, frozen=True):
    """What a check said about a file; it holds for this content and this check alone."""

    file_version: str
    check_revision: int
    refusal: str = ""
    """Why the file is no feature; empty if it passed."""


_decoder = msgspec.json.Decoder(Mark)
_lock = threading.Lock()
_checking: dict[str, threading.Lock] = {}
"""A lock for the check of each version of a file."""
_refusals: dict[str, str] = {}
"""What checks of this process said, by the version of the file: a folder that cannot be written to has no marks."""


def features_in(folder: Path) -> list[FeatureFile]:
    """The features in a folder by name. A file that `btc features add` would refuse is left out, and the log says why.

    A file without a mark is checked first, which takes seconds, and for an endless loop a minute. Raises `ServiceError` if a check
    could not be made, for example on an overloaded machine: without its result, processes would disagree about the features.
    """
    found: list[FeatureFile] = []
    for file in _readable(folder):
        if len(found) == MAX_FEATURES:
            break
        refusal = _refusal(file)
        if refusal:
            log.error(
                "%s; %s is left out of the stream, of data sets and of models: correct it, and install it with "
                "`btc features add %s`",
                *(refusal, file.path, file.path),
            )
        else:
            found.append(file)
    return found


def store(folder: Path, file: FeatureFile) -> Path:
    """Write a feature that passed the check into the folder, whole or not at all, with its mark; returns its path.

    Raises `InvalidInput` if there are too many.
    """
    names = {each.name for each in features_in(folder)}
    if file.name not in names and len(names) >= MAX_FEATURES:
        msg = (
            f"there are {len(names)} features, and room for {MAX_FEATURES}: remove one with `btc features remove NAME`"
        )
        raise InvalidInput(msg)
    path = folder / f"{file.name}{SUFFIX}"
    _write_mark(path, file.version, "")  # first, so that no process sees the new file without it
    return user_files.store(folder, file.name, file.source)


def remove(folder: Path, name: str) -> Path:
    """Remove a feature; its stored values stay. Raises `InvalidInput` if there is no such feature."""
    path = user_files.remove(folder, name, "feature", sorted(path.stem for path in folder.glob(f"*{SUFFIX}")))
    path.with_suffix(MARK_SUFFIX).unlink(missing_ok=True)
    return path


def _readable(folder: Path) -> Iterator[FeatureFile]:
    """The files of the right form by name; for any other, the log has a warning."""
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            file = read_feature(path)
        except InvalidInput as error:
            log.warning("%s; it is left out of %s", error, folder)
            continue
        if file.name == path.stem:
            yield file
        else:
            log.warning(
                "%s has the NAME %s and is left out; `btc features add` installs it under that name", path, file.name
            )


def _refusal(file: FeatureFile) -> str:
    """Why a file is no feature, from its mark, or else from a check now; empty if it passed."""
    with _lock:
        checking = _checking.setdefault(file.version, threading.Lock())
    with checking:  # one check of a file at a time, which delays no other file
        mark = _mark_of(file.path)
        if mark is not None and (mark.file_version, mark.check_revision) == (file.version, CHECK_REVISION):
            return mark.refusal
        if file.version not in _refusals:
            log.info("checking %s, which was not installed by `btc features add`", file.path)
            _refusals[file.version] = _checked(file)
            try:
                _write_mark(file.path, file.version, _refusals[file.version])
            except InvalidInput as error:
                log.info("each process checks %s when it starts, because its mark is missing: %s", file.path, error)
        return _refusals[file.version]


def _checked(file: FeatureFile) -> str:
    try:
        check(file)
    except InvalidInput as error:
        return str(error)
    return ""


def _mark_of(path: Path) -> Mark | None:
    try:
        return _decoder.decode(path.with_suffix(MARK_SUFFIX).read_bytes())
    except (OSError, msgspec.DecodeError):
        return None


def _write_mark(path: Path, file_version: str, refusal: str) -> None:
    with atomic_write(path.with_suffix(MARK_SUFFIX)) as file:
        file.write(msgspec.json.encode(Mark(file_version, CHECK_REVISION, refusal)))
