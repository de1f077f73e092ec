"""Copies of days on the object store: making, verifying and restoring them, and deleting days that have one.

`<table>/<day>/<digest>.parquet` holds the rows and `<table>/<day>/manifest.json` describes them. The manifest is written
last and names its object, so a reader sees either the previous copy or the new one, never a part of one.
What does not belong here: when to back up (`btc_assets.backups`).
"""

from __future__ import annotations

import hashlib
import io
import itertools
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from btc_core.clock import NS_PER_DAY, now_ns
from btc_core.days.stored_days import count_rows, drop_days_through, read_day, stored_days
from btc_core.errors import SchemaError, StoreError
from btc_core.features.catalogue import FEATURE_VERSION
from btc_core.stores.questdb import write_rows
from btc_core.tables.arrow import arrow_schema, digest, read_parquet
from btc_core.tables.catalogue import STORED
from btc_core.utc_day import day_ns, day_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.stores.questdb import QuestDB
    from btc_core.stores.s3 import ObjectStore
    from btc_core.tables.form import Table

COMPRESSION_LEVEL = 3
"""The compression level of zstd. Level 9 makes a day a tenth smaller and takes four times as long."""
READ_BUFFER_BYTES = 1_000_000
"""How much of each column of a copy is read at once."""
DRILL_PREFIX = "restore_drill_"
DRILL_KEY = ".stack/restore_drill"
CLOSES_PREFIX = "minute_closes"
"""Where the rows at the closes of minutes of old days are kept (`closing_rows`); they are made of copies and can be again."""

LEAVES_FOLDER = "forecast_leaves"
"""Where the leaves of closed hours are kept (`forecast_hours`)."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The description of a copy of a day."""

    table: str
    day: str
    key: str
    """The key of the Parquet object."""
    rows: int
    size_bytes: int
    sha256: str
    """The hash of the object's bytes."""
    content_sha256: str
    """The hash of the rows (`tables.arrow.digest`), independent of the file format."""
    columns: tuple[tuple[str, str], ...]
    feature_version: str
    seal: str
    """The first seal of the day with which these rows were copied; empty for a day that was not sealed by then."""
    written_at_ns: int


def manifest_key(table: str, day: str) -> str:
    """The key of the manifest of a day."""
    return f"{table}/{day}/manifest.json"


def read_manifest(store: ObjectStore, table: str, day: str) -> Manifest | None:
    """The manifest of a day; None when there is no copy. Raises `StoreError`."""
    key = manifest_key(table, day)
    body = store.get(key)
    if body is None:
        return None
    try:
        return msgspec.json.decode(body, type=Manifest)
    except msgspec.MsgspecError as error:
        raise StoreError(f"{store.uri(key)} is not a manifest: {error}") from error


def kept_days(store: ObjectStore, table: str) -> list[str]:
    """The days that have a copy, oldest first."""
    return [key.split("/")[1] for key in store.keys(f"{table}/") if key.endswith("/manifest.json")]


def back_up(db: QuestDB, store: ObjectStore, table: Table, day: str, seal: str = "") -> Manifest | None:
    """Copy a day, read the copy back, and then write the manifest; None when the day has neither rows nor a copy.

    A copy of the same rows stays as it is; if it was made before the day was sealed, its manifest gets the seal. Raises `StoreError` when the day now has fewer rows than an undamaged copy,
    because a copy is never replaced by fewer rows.
    """
    rows = read_day(db, table, day)
    before = read_manifest(store, table.name, day)
    if before is None and not len(rows):
        return None
    content = digest(rows)
    if before is not None and before.content_sha256 == content and _undamaged(store, before):
        if before.seal or not seal:
            return before
        sealed = msgspec.structs.replace(before, seal=seal)
        store.put(manifest_key(table.name, day), msgspec.json.encode(sealed))
        return sealed
    if before is not None and len(rows) < before.rows and _undamaged(store, before):
        msg = f"{table.name} of {day} has {len(rows)} rows and its copy {before.rows}; restore the day, the copy stays"
        raise StoreError(msg)
    body = parquet_bytes(rows)
    sha256 = hashlib.sha256(body).hexdigest()
    manifest = Manifest(
        table=table.name,
        day=day,
        key=f"{table.name}/{day}/{sha256[:16]}.parquet",
        rows=len(rows),
        size_bytes=len(body),
        sha256=sha256,
        content_sha256=content,
        columns=tuple((field.name, str(field.type)) for field in arrow_schema(table)),
        feature_version=FEATURE_VERSION if table.name == "silver_features" else "",
        seal=seal,
        written_at_ns=now_ns(),
    )
    store.put(manifest.key, body)
    load(store, table, manifest)
    store.put(manifest_key(table.name, day), msgspec.json.encode(manifest))
    if before is not None and before.key != manifest.key:
        store.delete(before.key)
    return manifest


def load(store: ObjectStore, table: Table, manifest: Manifest) -> pa.Table:
    """The rows of a copy, verified against its manifest; raises `StoreError` when they are not what was written.

    A copy made under an older catalogue lacks the columns that were added later. Columns that the catalogue no longer has
    are left out.
    """
    body = object_bytes(store, manifest)
    rows = read_parquet(body)
    if len(rows) != manifest.rows or digest(rows) != manifest.content_sha256:
        raise StoreError(f"{store.uri(manifest.key)} does not hold the {manifest.rows} rows that its manifest names")
    return rows.select([column.name for column in table.columns if column.name in rows.column_names])


def restore(db: QuestDB, store: ObjectStore, table: Table, day: str, name: str = "") -> int:
    """Write the copy of a day back, compare what QuestDB then holds, and return the number of rows; 0 without a copy.

    Rows that are only in QuestDB stay. Raises `StoreError` for a damaged copy, and `SchemaError` when the table does not
    hold the rows of the copy afterwards.
    """
    manifest = read_manifest(store, table.name, day)
    if manifest is None:
        return 0
    rows = load(store, table, manifest)
    before = count_rows(db, table, day, name)
    write_rows(db, table, rows, name)
    held = read_day(db, table, day, name)
    if before == 0 and digest(held.select(rows.column_names)) != digest(rows):
        msg = f"{name or table.name} of {day} holds {len(held)} rows after its restore, not the {manifest.rows} of the copy"
        raise SchemaError(msg)
    if len(held) < manifest.rows:
        msg = f"{name or table.name} of {day} holds {len(held)} rows after its restore; the copy has {manifest.rows}"
        raise SchemaError(msg)
    return manifest.rows


def drill(db: QuestDB, store: ObjectStore, table: Table, day: str) -> int:
    """Restore a day into a scratch table, compare it, drop the table, and return the number of rows."""
    for (left,) in db.execute(f"SELECT table_name FROM tables() WHERE table_name LIKE '{DRILL_PREFIX}%'"):  # noqa: S608 - names made here
        db.execute(f"DROP TABLE IF EXISTS {left}")
    name = f"{DRILL_PREFIX}{table.name}_{now_ns()}"  # QuestDB lists a dropped table of the same name for a while
    try:
        db.execute(table.ddl(db.settings, name))
        return restore(db, store, table, day, name)
    finally:
        db.execute(f"DROP TABLE IF EXISTS {name}")


class Drill(msgspec.Struct, frozen=True):
    """The result of restoring copies of all tables as a test."""

    at_ns: int
    tried: int
    failed: int


def write_drill(store: ObjectStore, tried: int, failed: int) -> None:
    """Keep the result of a test that ends now, for `last_drill`."""
    store.put(DRILL_KEY, msgspec.json.encode(Drill(now_ns(), tried, failed)))


def last_drill(store: ObjectStore) -> Drill | None:
    """The result of the last test, or None if there was none; raises `StoreError`."""
    body = store.get(DRILL_KEY)
    try:
        return None if body is None else msgspec.json.decode(body, type=Drill)
    except msgspec.MsgspecError as error:
        raise StoreError(f"{store.uri(DRILL_KEY)} cannot be read: {error}") from error


class Retention(msgspec.Struct, frozen=True):
    """The days that are older than the TTL of their table: those that were dropped, and those that had to stay."""

    dropped: tuple[tuple[str, str], ...]
    """Table and day."""
    blocked: tuple[tuple[str, str, str], ...]
    """Table, day, and the reason why the day stays in QuestDB."""


def deletion_blocker(db: QuestDB, store: ObjectStore, table: Table, day: str) -> str:
    """Why a day must not be deleted from QuestDB; empty when its copy is undamaged and holds every row."""
    try:
        manifest = read_manifest(store, table.name, day)
        if manifest is None:
            return "it has no copy"
        object_bytes(store, manifest)
    except StoreError as error:
        return str(error)
    rows = read_day(db, table, day)
    copied = [name for name, _ in manifest.columns if name in rows.column_names]
    added = [name for name in rows.column_names if name not in copied]
    if digest(rows.select(copied)) != manifest.content_sha256:
        return "its rows have changed since the copy"
    if any(_has_values(rows[name]) for name in added):
        return f"its copy was made before the columns {', '.join(added)} had values"
    return ""


def drop_old(db: QuestDB, store: ObjectStore, today_ns: int) -> Retention:
    """Drop days beyond their TTL from QuestDB, oldest first, up to the first whose copy is damaged or incomplete.

    The newest days of a table stay, however old they are (`drop_days_through`).
    """
    dropped: list[tuple[str, str]] = []
    blocked: list[tuple[str, str, str]] = []
    for table in STORED:
        oldest = day_of(today_ns - table.ttl_days(db.settings) * NS_PER_DAY)
        past = [day for day in stored_days(db, table) if day < oldest]
        reasons = {day: deletion_blocker(db, store, table, day) for day in past}
        blocked += [(table.name, day, why) for day, why in reasons.items() if why]
        free = list(itertools.takewhile(lambda day: not reasons[day], past))  # noqa: B023 - `takewhile` is consumed in this iteration
        if free:
            dropped += [(table.name, day) for day in drop_days_through(db, table, free[-1])]
    return Retention(tuple(dropped), tuple(blocked))


def expire(store: ObjectStore, keep_days: int, today_ns: int) -> list[str]:
    """Remove copies older than `keep_days`; returns the keys removed."""
    removed = []
    for prefix in (*(table.name for table in STORED), CLOSES_PREFIX, LEAVES_FOLDER):
        for key in store.keys(f"{prefix}/"):
            if day_ns(key.split("/")[1]) < today_ns - keep_days * NS_PER_DAY:
                store.delete(key)
                removed.append(key)
    return removed


def _has_values(column: pa.ChunkedArray) -> bool:
    """Whether a column that was added later holds anything; QuestDB fills it with null, NaN or the smallest integer."""
    if pa.types.is_floating(column.type):
        return not np.isnan(column.to_numpy()).all()
    if pa.types.is_string(column.type):
        return any(column.to_pylist())
    return bool(column.null_count < len(column))


def parquet_bytes(rows: pa.Table) -> bytes:
    """Rows as a Parquet file of the form of the copies."""
    sink = io.BytesIO()
    pq.write_table(rows, sink, compression="zstd", compression_level=COMPRESSION_LEVEL)
    return sink.getvalue()


@contextmanager
def open_copy(store: ObjectStore, manifest: Manifest) -> Iterator[pq.ParquetFile]:
    """The copy of a day as a Parquet file on disk, for readers that need a part of it and not all of it in memory.

    Raises `StoreError` before the first row when its bytes are missing or are not those that the manifest names.
    """
    with tempfile.TemporaryFile(prefix="btc-copy-") as file:
        digest_of_bytes = hashlib.sha256()
        for piece in store.pieces(manifest.key):
            digest_of_bytes.update(piece)
            file.write(piece)
        if digest_of_bytes.hexdigest() != manifest.sha256:
            msg = f"{store.uri(manifest.key)} is missing or damaged; its manifest names {manifest.rows} rows"
            raise StoreError(msg)
        file.seek(0)
        yield pq.ParquetFile(file, buffer_size=READ_BUFFER_BYTES, pre_buffer=False)


def object_bytes(store: ObjectStore, manifest: Manifest) -> bytes:
    """The bytes of a copy; raises `StoreError` when they are missing or are not those that the manifest names."""
    body = store.get(manifest.key)
    if body is None or hashlib.sha256(body).hexdigest() != manifest.sha256:
        what = "is missing" if body is None else "is damaged"
        raise StoreError(f"{store.uri(manifest.key)} {what}; its manifest names {manifest.rows} rows")
    return body


def _undamaged(store: ObjectStore, manifest: Manifest) -> bool:
    """Whether the copy exists and is undamaged; raises `StoreError` when the store does not answer."""
    body = store.get(manifest.key)
    return body is not None and hashlib.sha256(body).hexdigest() == manifest.sha256
