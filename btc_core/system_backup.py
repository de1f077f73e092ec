"""Backups of what is neither a day nor a model file: the databases of Dagster and MLflow, the settings, and the user's files.

`system_backup/<UTC time>/` holds the files of one backup, and its `manifest.json` names them with their sizes and hashes. The
manifest is written last, so a reader sees a whole backup or none. Settings are kept without secrets: a restored system has
new ones. What does not belong here: copies of days (`btc_core.days.lake`), and MLflow's artifacts, which are on the object
store already.
"""

from __future__ import annotations

import hashlib
import os
import re
from typing import TYPE_CHECKING

import msgspec
from dotenv import dotenv_values

from btc_core.clock import NS_PER_DAY, NS_PER_S, from_ns, now_ns
from btc_core.errors import StoreError
from btc_core.settings import variables
from btc_core.stores import origin, postgres_dump
from btc_core.version import git_commit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import IO

    from btc_core.settings import Settings
    from btc_core.stores.s3 import ObjectStore

PREFIX = "system_backup"
SETTINGS_FILE = "settings.json"
MAX_AGE_S = 36 * 3_600
"""A backup is made every day. If the newest one is older than this, a backup has failed."""
_STACK_PREFIX = "BTC_STACK_"
"""Settings of the native stack, which `Settings` does not name. None of them is secret."""
_CREDENTIALS = re.compile(r"://[^/\s]*@")


class BackedUpFile(msgspec.Struct, frozen=True):
    """One object of a backup."""

    name: str
    key: str
    size_bytes: int
    sha256: str


class SystemBackup(msgspec.Struct, frozen=True, kw_only=True):
    """The description of a backup."""

    made_at_ns: int
    commit: str
    """The commit of the program that made it; empty if it is not known."""
    files: tuple[BackedUpFile, ...]

    @property
    def size_bytes(self) -> int:
        """The size of all files."""
        return sum(file.size_bytes for file in self.files)

    def file(self, name: str) -> BackedUpFile:
        """One file by its name; raises `StoreError` if the backup has none."""
        for file in self.files:
            if file.name == name:
                return file
        raise StoreError(f"the backup of {from_ns(self.made_at_ns):%Y-%m-%d %H:%M} has no file {name}")


class _Hashed:
    """A file that hashes and counts what is read from it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def read(self, size: int = -1) -> bytes:
        """Read from the file."""
        found = self._file.read(size)
        self._digest.update(found)
        self.size_bytes += len(found)
        return found

    @property
    def sha256(self) -> str:
        """The hash of all bytes that were read."""
        return self._digest.hexdigest()


def back_up(settings: Settings, store: ObjectStore, values: Mapping[str, str] | None = None) -> SystemBackup:
    """Make a backup, read its files back, and write its manifest; raises `ServiceError` if any part fails.

    `values` are the variables of the system; without them, those of this process.
    """
    made_at_ns = now_ns()
    folder = f"{PREFIX}/{from_ns(made_at_ns):%Y-%m-%dT%H%M%S}"
    files = [
        _dump(settings, store, folder, database)
        for database in (settings.postgres.dagster_db, settings.postgres.mlflow_db)
    ]
    files += [
        _put(store, folder, name, body)
        for name, body in _own_files(settings, _variables() if values is None else values).items()
    ]
    for file in files:
        check(store, file)
    made = SystemBackup(made_at_ns=made_at_ns, commit=git_commit(), files=tuple(files))
    store.put(f"{folder}/manifest.json", msgspec.json.encode(made))
    return made


def newest(store: ObjectStore) -> SystemBackup | None:
    """The newest complete backup, or None if there is none; raises `StoreError`."""
    manifests = _manifests(store)
    if not manifests:
        return None
    body = store.get(manifests[-1])
    try:
        return msgspec.json.decode(body or b"", type=SystemBackup)
    except msgspec.MsgspecError as error:
        raise StoreError(f"{store.uri(manifests[-1])} is not a manifest: {error}") from error


def last_made_ns(store: ObjectStore) -> int | None:
    """When the newest backup was made. If there is none, when the object store was prepared."""
    backup = newest(store)
    return store.modified_ns(origin.OBJECT_KEY) if backup is None else backup.made_at_ns


def problem(store: ObjectStore, at_ns: int) -> str:
    """What is wrong with the age of the newest backup; empty if nothing is. Raises `StoreError`."""
    made_ns = last_made_ns(store)
    if made_ns is None or at_ns - made_ns <= MAX_AGE_S * NS_PER_S:
        return ""
    hours = (at_ns - made_ns) / (3_600 * NS_PER_S)
    how_old = f"the newest backup is {hours:.0f} hours old" if _manifests(store) else "there is no backup"
    return (
        f"{how_old}, and one is due every day: look at the asset system_backup in Dagster, and make one with "
        "`btc run dagster job launch -w workspace.yaml -j back_up_system`"
    )


def expire(store: ObjectStore, keep_days: int, at_ns: int) -> list[str]:
    """Remove backups older than `keep_days`, but never the newest, and what interrupted runs left; returns the keys removed."""
    oldest = f"{from_ns(at_ns - keep_days * NS_PER_DAY):%Y-%m-%dT%H%M%S}"
    complete = [key.split("/")[1] for key in _manifests(store)]
    kept = {name for name in complete if name >= oldest} | set(complete[-1:])
    removed = [
        key
        for key in store.keys(f"{PREFIX}/")
        # A folder without a manifest may belong to a backup that is being made now.
        if (name := key.split("/")[1]) not in kept and (name in complete or name < max(complete, default=""))
    ]
    for key in removed:
        store.delete(key)
    return removed


def restore_databases(settings: Settings, store: ObjectStore, backup: SystemBackup) -> None:
    """Restore the databases of Dagster and MLflow, which must be empty; raises `ServiceError`."""
    postgres = settings.postgres
    for database in (postgres.mlflow_db, postgres.dagster_db):
        file = backup.file(_dump_name(settings, database))
        check(store, file)
        postgres_dump.restore(postgres, database, store.pieces(file.key))
    postgres_dump.end_runs(postgres)


def read_file(store: ObjectStore, file: BackedUpFile) -> bytes:
    """The bytes of a file of a backup; raises `StoreError` if they are missing or damaged."""
    return b"".join(_verified(store, file))


def read_settings(store: ObjectStore, backup: SystemBackup) -> dict[str, str]:
    """The settings of a backup by variable, without secrets."""
    return msgspec.json.decode(read_file(store, backup.file(SETTINGS_FILE)), type=dict[str, str])


def check(store: ObjectStore, file: BackedUpFile) -> None:
    """Raise `StoreError` if a file of a backup is missing or damaged."""
    for _ in _verified(store, file):
        pass


def without_secrets(values: Mapping[str, str]) -> dict[str, str]:
    """The variables that hold no secret: known settings that are not secret, and those of the native stack.

    A value with credentials in an address is left out, too.
    """
    public = {name.upper() for name, is_secret in variables().items() if not is_secret}
    return {
        name: value
        for name, value in sorted(values.items())
        if (name in public or name.startswith(_STACK_PREFIX)) and not _CREDENTIALS.search(value)
    }


def user_folders(settings: Settings) -> dict[str, Path]:
    """The folders of the user's files, by their names in a backup."""
    return {"user/models": settings.user_models, "user/features": settings.user_features}


def _variables() -> dict[str, str]:
    """The variables of this process, or of its env file."""
    env_file = os.environ.get("BTC_ENV_FILE")
    found = dotenv_values(env_file, interpolate=False) if env_file else os.environ
    return {key: value or "" for key, value in found.items()}


def _own_files(settings: Settings, values: Mapping[str, str]) -> dict[str, bytes]:
    """The settings without secrets, and the user's models and features."""
    files = {SETTINGS_FILE: msgspec.json.encode(without_secrets(values))}
    for name, folder in user_folders(settings).items():
        for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
            if path.is_file() and "__pycache__" not in path.parts:
                files[f"{name}/{path.relative_to(folder)}"] = path.read_bytes()
    return files


def _dump_name(settings: Settings, database: str) -> str:
    """The name of a dump. It does not depend on the name of the database here, so another system can restore it."""
    return "dagster.dump" if database == settings.postgres.dagster_db else "mlflow.dump"


def _dump(settings: Settings, store: ObjectStore, folder: str, database: str) -> BackedUpFile:
    name = _dump_name(settings, database)
    key = f"{folder}/{name}"
    with postgres_dump.dump(settings.postgres, database) as stream:
        hashed = _Hashed(stream)
        store.put_stream(key, hashed)
    return BackedUpFile(name, key, hashed.size_bytes, hashed.sha256)


def _put(store: ObjectStore, folder: str, name: str, body: bytes) -> BackedUpFile:
    key = f"{folder}/{name}"
    store.put(key, body)
    return BackedUpFile(name, key, len(body), hashlib.sha256(body).hexdigest())


def _verified(store: ObjectStore, file: BackedUpFile) -> Iterator[bytes]:
    """The pieces of a file; raises `StoreError` after the last one if they are not what was written."""
    digest = hashlib.sha256()
    for piece in store.pieces(file.key):
        digest.update(piece)
        yield piece
    if digest.hexdigest() != file.sha256:
        raise StoreError(f"{store.uri(file.key)} is missing or damaged; its manifest names {file.size_bytes} bytes")


def _manifests(store: ObjectStore) -> list[str]:
    """The keys of the manifests, oldest first."""
    return [key for key in store.keys(f"{PREFIX}/") if key.endswith("/manifest.json")]
