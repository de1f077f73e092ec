"""A copy of the object store at another place: a directory, or a bucket of another store.

`objects/<SHA-256>` holds each object once under the hash of its bytes, so an interrupted copy damages nothing, and a file can be
checked by itself. `copies/<UTC time>.json` is the manifest of one copy: it names every object of both buckets by its hash. The
manifest is written last. What does not belong here: what the objects are (`btc_core.days`, `btc_core.system_backup`).
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

import msgspec

from btc_core.clock import NS_PER_DAY, NS_PER_S, from_ns, now_ns
from btc_core.errors import InvalidInput, StoreError
from btc_core.files import atomic_write
from btc_core.stores.origin import OBJECT_KEY
from btc_core.stores.s3 import PIECE_BYTES, ObjectStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from btc_core.settings import Settings
    from btc_core.stores.s3 import Entry

log = logging.getLogger(__name__)

OBJECTS, COPIES = "objects", "copies"
MAX_LOOKS = 10
"""How often a bucket is listed again because something in it has changed."""
IN_MEMORY_BYTES = 32_000_000
"""A larger object is written to a temporary file while its hash is computed."""
MAX_AGE_S = 36 * 3_600
"""A copy is made every day if `BTC_BACKUP_COPY_TO` names a place. If the newest one is older than this, a copy has failed."""
_OWN_KEYS = f"{OBJECT_KEY.partition('/')[0]}/"
"""How keys begin that each store has of its own and that are not copied."""
RECORD_KEY = f"{_OWN_KEYS}offsite_copy"
"""The record of the newest copy at the scheduled place, on the object store: not everything that asks for its age can read the second place."""


class CopiedObject(msgspec.Struct, frozen=True):
    """An object of a copy."""

    bucket: str
    """`lake` or `mlflow`; another system may have other names for its buckets."""
    key: str
    size_bytes: int
    tag: str
    """That of the store when the object was copied; an object whose tag and size are the same is not read again."""
    sha256: str


class Copy(msgspec.Struct, frozen=True, kw_only=True):
    """The manifest of a copy."""

    made_at_ns: int
    origin: str
    """Whose data it is (`btc_core.stores.origin`)."""
    objects: tuple[CopiedObject, ...]
    settings_sha256: str
    """The encrypted settings, an object, too; empty if they were not copied."""

    @property
    def size_bytes(self) -> int:
        """The size of all objects."""
        return sum(each.size_bytes for each in self.objects)

    @property
    def hashes(self) -> set[str]:
        """The hashes of everything that the copy needs."""
        return {each.sha256 for each in self.objects} | ({self.settings_sha256} - {""})


class LastCopy(msgspec.Struct, frozen=True):
    """The record of the newest copy."""

    made_at_ns: int
    where: str
    objects: int
    size_bytes: int


class Place(Protocol):
    """Where copies are kept; its methods raise `StoreError` or `InvalidInput`."""

    def names(self, folder: str) -> dict[str, int]:
        """The sizes of the files in a folder by their names."""
        ...

    def pieces(self, path: str) -> Iterator[bytes]:
        """The bytes of a file, none if it does not exist."""
        ...

    def write(self, path: str, source: IO[bytes]) -> None:
        """Write a file whole or not at all."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file, if it exists."""
        ...


class Directory:
    """A directory, such as one on another disk."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self, folder: str) -> dict[str, int]:
        """As `Place`."""
        try:
            with os.scandir(self._path / folder) as entries:
                return {each.name: each.stat().st_size for each in entries if not each.name.startswith(".")}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StoreError(f"{self._path / folder} cannot be read: {error.strerror or error}") from error

    def pieces(self, path: str) -> Iterator[bytes]:
        """As `Place`."""
        try:
            with (self._path / path).open("rb") as file:
                while piece := file.read(PIECE_BYTES):
                    yield piece
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"{self._path / path} cannot be read: {error.strerror or error}") from error

    def write(self, path: str, source: IO[bytes]) -> None:
        """As `Place`."""
        with atomic_write(self._path / path) as file:
            while piece := source.read(PIECE_BYTES):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())  # the disk may be unplugged as soon as the command has ended

    def remove(self, path: str) -> None:
        """As `Place`."""
        try:
            (self._path / path).unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{self._path / path} cannot be removed: {error.strerror or error}") from error


class Bucket:
    """A bucket of an object store, or a part of one below a prefix."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store = store
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    def names(self, folder: str) -> dict[str, int]:
        """As `Place`."""
        start = f"{self._prefix}{folder}/"
        return {entry.key.removeprefix(start): entry.size_bytes for entry in self._store.entries(start)}

    def pieces(self, path: str) -> Iterator[bytes]:
        """As `Place`."""
        yield from self._store.pieces(self._prefix + path)

    def write(self, path: str, source: IO[bytes]) -> None:
        """As `Place`."""
        self._store.put_stream(self._prefix + path, source)

    def remove(self, path: str) -> None:
        """As `Place`."""
        self._store.delete(self._prefix + path)


@contextmanager
def open_place(settings: Settings, where: str) -> Iterator[Place]:
    """The place that a setting or an option names. Raises `InvalidInput` for one that does not exist or is the object store itself."""
    if not where.startswith("s3://"):
        directory = Path(where).expanduser()
        if not directory.is_dir():
            raise InvalidInput(f"{directory} is not a directory: create it, or mount the disk on which it lies")
        if settings.disk.path and directory.resolve().is_relative_to(Path(settings.disk.path).resolve()):
            raise InvalidInput(
                f"{where} lies in {settings.disk.path}, whose loss the copy must survive; name another place"
            )
        yield Directory(directory.resolve())
        return
    bucket, _, prefix = where.removeprefix("s3://").partition("/")
    given = settings.offsite
    if (
        given.endpoint_url.rstrip("/") == settings.store.endpoint_url.rstrip("/")
        and bucket in buckets(settings).values()
    ):
        raise InvalidInput(f"{bucket} is a bucket of this system and not a second place; name another one")
    own_key = settings.store.access_key
    if own_key and not given.access_key and os.environ.get("AWS_ACCESS_KEY_ID") == own_key:
        raise InvalidInput(
            "BTC_OFFSITE_ACCESS_KEY is empty, and AWS_ACCESS_KEY_ID holds the key of the system's own object store, which would be "
            f"sent to {given.place}: set BTC_OFFSITE_ACCESS_KEY and BTC_OFFSITE_SECRET_KEY"
        )
    with ObjectStore(given, bucket) as store:
        yield Bucket(store, prefix)


def require_earlier(settings: Settings, store: ObjectStore, place: Place) -> None:
    """Refuse the scheduled place if it has lost all copies that were made there; raises `InvalidInput`.

    The mount point of a disk that is not mounted is a directory, too, on the very disk whose loss the copy must survive.
    """
    last = last_copy(settings, store)
    if last is not None and not place.names(COPIES):
        raise InvalidInput(
            f"{last.where} has no copy, although one was made there at {from_ns(last.made_at_ns):%Y-%m-%d %H:%M} UTC: mount the "
            f"disk, or, if the place is meant to be empty, begin again with `btc backup --to {last.where}`"
        )


def make(settings: Settings, place: Place, sealed_settings: bytes | None) -> Copy:
    """Copy what the place lacks, read it back, write the manifest, and remove old copies; raises `BtcError`.

    `sealed_settings` are the encrypted settings, empty for none. With None, those of the copy before stay.
    """
    origin = _origin_of(settings)
    before = newest(place)
    if before is not None and before.origin != origin:
        raise InvalidInput(
            f"the second place has copies of {before.origin!r}, and this system is {origin!r}: name another place"
        )
    earlier = () if before is None else before.objects
    known = {(each.bucket, each.key, each.size_bytes, each.tag): each for each in earlier}
    held = place.names(OBJECTS)
    objects: list[CopiedObject] = []
    for name, bucket in buckets(settings).items():
        with ObjectStore(settings.store, bucket) as store:
            objects += _copied(place, held, store, name, known)
    sealed = _keep(place, held, iter([sealed_settings]))[0] if sealed_settings else ""
    if sealed_settings is None and before is not None:
        sealed = before.settings_sha256
    copy = Copy(made_at_ns=now_ns(), origin=origin, objects=tuple(objects), settings_sha256=sealed)
    if not copy.hashes <= place.names(OBJECTS).keys():
        raise StoreError("another command removed objects from the second place meanwhile: repeat the copy")
    _write(place, f"{COPIES}/{from_ns(copy.made_at_ns):%Y-%m-%dT%H%M%S}.json", msgspec.json.encode(copy))
    _expire(place, copy.made_at_ns, settings.backup.copy_days)
    return copy


def _copied(
    place: Place,
    held: dict[str, int],
    store: ObjectStore,
    name: str,
    known: Mapping[tuple[str, str, int, str], CopiedObject],
) -> list[CopiedObject]:
    """The objects of a bucket, all of which are at the place; raises `StoreError`.

    The system writes and deletes objects meanwhile, so the bucket is listed again until nothing has changed. Otherwise a manifest
    of a day could be copied without the files that it names.
    """
    done: dict[str, CopiedObject] = {}
    for _ in range(MAX_LOOKS):
        entries = [entry for entry in store.entries("") if not is_own(entry.key)]
        done = {entry.key: done[entry.key] for entry in entries if entry.key in done}
        left = [entry for entry in entries if not _is_of(done.get(entry.key), entry)]
        if not left:
            return list(done.values())
        for entry in left:
            found = known.get((name, entry.key, entry.size_bytes, entry.tag))
            if found is None or held.get(found.sha256) != found.size_bytes:
                sha256, size_bytes = _keep(place, held, store.pieces(entry.key))
                found = CopiedObject(name, entry.key, size_bytes, entry.tag, sha256)
            if found.size_bytes == entry.size_bytes:  # otherwise it was deleted or written meanwhile
                done[entry.key] = found
    raise StoreError(
        f"the objects of {name} changed {MAX_LOOKS} times while they were copied: repeat the copy at a quieter time"
    )


def _is_of(found: CopiedObject | None, entry: Entry) -> bool:
    """Whether an object was copied as it is listed."""
    return found is not None and (found.size_bytes, found.tag) == (entry.size_bytes, entry.tag)


def is_scheduled(settings: Settings, where: str) -> bool:
    """Whether this is the place of the nightly copies, however it is written."""
    scheduled = settings.backup.copy_to
    if not scheduled or where.startswith("s3://") or scheduled.startswith("s3://"):
        return bool(scheduled) and where.rstrip("/") == scheduled.rstrip("/")
    return Path(where).expanduser().resolve() == Path(scheduled).expanduser().resolve()


def record(store: ObjectStore, copy: Copy, where: str) -> None:
    """Keep on the object store that a copy was made at the scheduled place; raises `StoreError`."""
    store.put(RECORD_KEY, msgspec.json.encode(LastCopy(copy.made_at_ns, where, len(copy.objects), copy.size_bytes)))


def last_copy(settings: Settings, store: ObjectStore) -> LastCopy | None:
    """The record of the newest copy at the scheduled place, None if none was made there; raises `StoreError`."""
    body = store.get(RECORD_KEY)
    try:
        found = None if body is None else msgspec.json.decode(body, type=LastCopy)
    except msgspec.MsgspecError as error:
        raise StoreError(f"{store.uri(RECORD_KEY)} cannot be read: {error}") from error
    return found if found is not None and found.where == settings.backup.copy_to else None


def last_made_ns(settings: Settings, store: ObjectStore) -> int | None:
    """When the newest copy at the scheduled place was made. If there is none, when the object store was prepared."""
    last = last_copy(settings, store)
    return store.modified_ns(OBJECT_KEY) if last is None else last.made_at_ns


def problem(settings: Settings, store: ObjectStore, at_ns: int) -> str:
    """What is wrong with the age of the newest copy; empty if nothing is, or if no copy is scheduled. Raises `StoreError`."""
    made_ns = last_made_ns(settings, store) if settings.backup.copy_to else None
    if made_ns is None or at_ns - made_ns <= MAX_AGE_S * NS_PER_S:
        return ""
    hours = (at_ns - made_ns) / (3_600 * NS_PER_S)
    how_old = "there is no copy" if last_copy(settings, store) is None else f"the newest copy is {hours:.0f} hours old"
    return (
        f"{how_old}, and one is due every day at {settings.backup.copy_to}: look at the asset offsite_copy in Dagster, and make one "
        "with `btc run dagster job launch -w workspace.yaml -j copy_offsite`"
    )


def named(place: Place, name: str) -> Copy:
    """The copy whose manifest has a name; raises `InvalidInput` with the names that there are if it does not exist."""
    there = sorted(each.removesuffix(".json") for each in place.names(COPIES))
    if name not in there:
        raise InvalidInput(f"there is no copy {name!r}; the copies are {', '.join(there) or 'none'}")
    return _read(place, f"{name}.json")


def newest(place: Place) -> Copy | None:
    """The newest copy whose manifest can be read, None if there is none; raises `StoreError`, and `InvalidInput` if none can."""
    names = sorted(place.names(COPIES), reverse=True)
    for name in names[:-1]:
        try:
            return _read(place, name)
        except InvalidInput as error:
            log.warning("%s; an older copy is used", error)
    return _read(place, names[-1]) if names else None


def verify(place: Place, copy: Copy) -> None:
    """Read everything that a copy needs; raises `StoreError` for the first file that is missing or damaged."""
    for sha256 in sorted(copy.hashes):
        for _ in pieces(place, sha256):
            pass


def pieces(place: Place, sha256: str) -> Iterator[bytes]:
    """The bytes of an object; raises `StoreError` after the last piece if they are not those of the hash."""
    digest = hashlib.sha256()
    for piece in place.pieces(f"{OBJECTS}/{sha256}"):
        digest.update(piece)
        yield piece
    if digest.hexdigest() != sha256:
        raise StoreError(
            f"{OBJECTS}/{sha256} is missing or damaged at the second place. If the system still runs, remove the file and make "
            "a new copy; to restore, use a copy at another place"
        )


def fill(settings: Settings, place: Place, copy: Copy) -> None:
    """Write the objects of a copy into the buckets of a system that has none of them; raises `StoreError`."""
    for name, bucket in buckets(settings).items():
        with ObjectStore(settings.store, bucket) as store:
            for each in copy.objects:
                if each.bucket == name:
                    with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES) as file:
                        file.writelines(pieces(place, each.sha256))
                        file.seek(0)
                        store.put_stream(each.key, file)


def is_own(key: str) -> bool:
    """Whether a key is one that each store has of its own, so that no copy has it."""
    return key.startswith(_OWN_KEYS)


def buckets(settings: Settings) -> Mapping[str, str]:
    """The buckets of a system by what they hold."""
    return {"lake": settings.store.lake_bucket, "mlflow": settings.store.mlflow_bucket}


def _origin_of(settings: Settings) -> str:
    with ObjectStore(settings.store) as store:
        return (store.get(OBJECT_KEY) or b"").decode()


def _keep(place: Place, held: dict[str, int], source: Iterator[bytes]) -> tuple[str, int]:
    """Write an object under its hash unless it is `held` already, and read it back; returns its hash and its size in bytes."""
    digest, size_bytes = hashlib.sha256(), 0
    with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES) as file:
        for piece in source:
            digest.update(piece)
            size_bytes += len(piece)
            file.write(piece)
        sha256 = digest.hexdigest()
        if held.get(sha256) != size_bytes:
            file.seek(0)
            place.write(f"{OBJECTS}/{sha256}", file)
            try:
                for _ in pieces(place, sha256):
                    pass
            except StoreError:
                place.remove(f"{OBJECTS}/{sha256}")  # the next copy would take it for a good one
                raise
            held[sha256] = size_bytes
    return sha256, size_bytes


def _read(place: Place, name: str) -> Copy:
    try:
        return msgspec.json.decode(b"".join(place.pieces(f"{COPIES}/{name}")), type=Copy)
    except msgspec.MsgspecError as error:
        raise InvalidInput(f"{COPIES}/{name} at the second place is no manifest: {error}") from error


def _write(place: Place, path: str, body: bytes) -> None:
    with tempfile.SpooledTemporaryFile(len(body) + 1) as file:
        file.write(body)
        file.seek(0)
        place.write(path, file)


def _expire(place: Place, at_ns: int, keep_days: int) -> None:
    """Remove copies older than `keep_days` except the newest, with the objects that only they name. Those that no copy names may be of a copy that is being made."""
    names = sorted(place.names(COPIES))
    oldest = f"{from_ns(at_ns - keep_days * NS_PER_DAY):%Y-%m-%dT%H%M%S}"
    kept = [name for name in names if name >= oldest or name == names[-1]]
    old = sorted(set(names) - set(kept))
    if not old:
        return
    needed = {sha256 for name in kept for sha256 in _read(place, name).hashes}
    for sha256 in {sha256 for name in old for sha256 in _read(place, name).hashes} - needed:
        place.remove(f"{OBJECTS}/{sha256}")
    for name in old:  # last, so that an interrupted removal goes on at the next copy
        place.remove(f"{COPIES}/{name}")
