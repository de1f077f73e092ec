"""The feature rows at the closes of minutes of sealed days, from which models learn what the stream computes.

A day is read from `silver_features` in QuestDB, or, once it has been dropped there, from its copy on the object store. No
day is in memory as a whole, and only the rows at the closes are kept. Which row of a minute is the newest is decided in
`btc_core.stores.newest_rows`.
What does not belong here: labels and the rows of days that nobody sealed, which come from minute bars (`models.dataset`).
"""

from __future__ import annotations

import hashlib
import io
import logging
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, column_ns
from btc_core.days.lake import CLOSES_PREFIX, kept_days, open_copy, read_manifest
from btc_core.errors import StoreError
from btc_core.features.catalogue import FEATURE_VERSION, MODEL_FEATURES
from btc_core.models.dataset import StreamRows
from btc_core.names import FRESH_ROW_NS
from btc_core.stores.newest_rows import MINUTE_END, PLACE, newest_of_minutes, newest_rows
from btc_core.tables.arrow import read_parquet
from btc_core.tables.bar_tables import GOLD_1MIN_SEALED
from btc_core.tables.catalogue import SILVER_FEATURES
from btc_core.tables.sql import of_symbol, within
from btc_core.utc_day import day_ns, day_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from btc_core.days.lake import Manifest
    from btc_core.stores.questdb import QuestDB
    from btc_core.stores.s3 import ObjectStore

BATCH_ROWS = 50_000
"""Rows of a copy that are decoded at once: 25 MB."""
ALWAYS_NS = 2**62
"""A time after all rows."""
ROWS = "rows"
"""The kind of what is kept of a copy: the rows at its closes."""
_log = logging.getLogger(__name__)


def closing_rows(  # noqa: PLR0913, PLR0917 - where rows are, and which of them
    db: QuestDB, store: ObjectStore | None, symbol: str, since_ns: int, every_min: int = 1, until_ns: int = ALWAYS_NS
) -> StreamRows:
    """The rows of one market at every `every_min`th close of the sealed days since `since_ns`, oldest first.

    Days that begin at `until_ns` or later are left out. Without a `store`, and for days whose copy cannot be read, only the
    days that QuestDB still has are returned. Rows of another feature version are left out.
    """
    parts = []
    for day, place in sealed_days(db, store, symbol, since_ns, until_ns):
        rows = _of_database(db, symbol, day, every_min) if place is None else _of_copy(place, symbol, day)
        parts.append(_every(rows, every_min))
    joined = [rows for rows in parts if len(rows.origin_ns)]
    if not joined:
        return StreamRows.none()
    return StreamRows(
        np.concatenate([rows.origin_ns for rows in joined]), np.concatenate([rows.matrix for rows in joined])
    )


def sealed_days(
    db: QuestDB, store: ObjectStore | None, symbol: str, since_ns: int, until_ns: int
) -> Iterator[tuple[str, ObjectStore | None]]:
    """The sealed days of a time, oldest first, each with the store that has its copy; None if QuestDB has the day."""
    in_database = days_in_database(db, symbol, since_ns, until_ns)
    copies = copied_days(store, since_ns, until_ns, in_database) if store is not None else []
    for day in sorted({*in_database, *copies}):
        yield day, None if day in in_database else store


def newest_rows_of_copy(  # noqa: PLR0913 - the file, and limits that callers combine
    file: pq.ParquetFile,
    symbol: str,
    names: Sequence[str],
    *,
    max_age_ns: int = NS_PER_MIN,
    version: str = "",
    until_ns: int = ALWAYS_NS,
    after_ns: int = 0,
) -> pa.Table:
    """What `newest_rows` gives for a day, from its copy: rows of minutes that end after `after_ns` and not after `until_ns`.

    Columns that the copy lacks are left out. The columns in `names` are decoded `BATCH_ROWS` rows at a time.
    """
    places = file.read(columns=[*PLACE, "symbol", "feature_version"])
    own = pc.equal(places["symbol"], symbol)
    if version:
        own = pc.and_(own, pc.equal(places["feature_version"], version))
    own_rows = np.flatnonzero(own.to_numpy())
    ends_ns, chosen = newest_of_minutes(places.take(own_rows), max_age_ns)
    asked = (ends_ns > after_ns) & (ends_ns <= until_ns)
    ends_ns, wanted = ends_ns[asked], own_rows[chosen[asked]]
    present = [name for name in names if name in file.schema_arrow.names]
    parts = [pa.schema([file.schema_arrow.field(name) for name in present]).empty_table()]
    places_of_parts = []
    first = 0
    for batch in file.iter_batches(BATCH_ROWS, columns=present):
        inside = np.flatnonzero((wanted >= first) & (wanted < first + len(batch)))
        if len(inside):
            parts.append(pa.Table.from_batches([batch]).take(wanted[inside] - first))
            places_of_parts.append(inside)
        first += len(batch)
    rows = pa.concat_tables(parts)
    if places_of_parts:
        rows = rows.take(np.argsort(np.concatenate(places_of_parts)))
    return rows.add_column(0, MINUTE_END, pa.array(ends_ns, pa.timestamp("ns")))


def days_in_database(db: QuestDB, symbol: str, since_ns: int, until_ns: int) -> set[str]:
    """Sealed days of the market of which QuestDB has feature rows of the present version."""
    sealed = db.execute(
        f"SELECT cast(ts AS LONG), count() FROM {GOLD_1MIN_SEALED.name} "  # noqa: S608 - names of the catalogue
        f"WHERE {of_symbol(symbol)} AND {within('ts', since_ns, until_ns)} SAMPLE BY 1d"
    )
    silver = db.execute(
        f"SELECT cast(ts_event AS LONG), count() FROM {SILVER_FEATURES.name} "  # noqa: S608 - names of the catalogue
        f"WHERE {of_symbol(symbol)} AND {within('ts_event', since_ns, until_ns)} "
        f"AND feature_version = '{FEATURE_VERSION}' SAMPLE BY 1d"
    )
    return {day_of(int(begin)) for begin, rows in sealed if rows} & {
        day_of(int(begin)) for begin, rows in silver if rows
    }


def copied_days(store: ObjectStore, since_ns: int, until_ns: int, in_database: set[str]) -> list[str]:
    """The other days of a time that have a copy; none if the store does not answer."""
    try:
        days = kept_days(store, SILVER_FEATURES.name)
    except StoreError as error:
        _log.warning("the copies of sealed days cannot be read, so their minutes are those of bars: %s", error)
        return []
    return [day for day in days if since_ns - NS_PER_DAY < day_ns(day) < until_ns and day not in in_database]


def _of_database(db: QuestDB, symbol: str, day: str, every_min: int) -> StreamRows:
    begin_ns = day_ns(day)
    rows = newest_rows(
        db, symbol, begin_ns, begin_ns + NS_PER_DAY, MODEL_FEATURES,
        max_age_ns=FRESH_ROW_NS, version=FEATURE_VERSION, every_min=every_min,
    )  # fmt: skip
    return next((_stream_rows(table) for table in rows), StreamRows.none())


def _of_copy(store: ObjectStore, symbol: str, day: str) -> StreamRows:
    """The rows at the closes of a day's copy; none if it cannot be read."""

    def make(file: pq.ParquetFile) -> pa.Table:
        return newest_rows_of_copy(file, symbol, MODEL_FEATURES, max_age_ns=FRESH_ROW_NS, version=FEATURE_VERSION)

    try:
        rows = kept_of_copy(store, symbol, day, ROWS, make)
    except StoreError as error:
        _log.warning("the copy of %s cannot be read, so its minutes are those of bars: %s", day, error)
        rows = None
    return StreamRows.none() if rows is None else _stream_rows(rows)


def kept_of_copy(
    store: ObjectStore, symbol: str, day: str, kind: str, make: Callable[[pq.ParquetFile], pa.Table]
) -> pa.Table | None:
    """What `make` makes of the copy of a day, which is then kept on the store: a copy takes seconds to read.

    Returns None if there is no sealed copy of the present feature version. Raises `StoreError`.
    """
    manifest = read_manifest(store, SILVER_FEATURES.name, day)
    if manifest is None or not manifest.seal or manifest.feature_version != FEATURE_VERSION:
        return None
    key = closes_key(manifest, symbol, kind)
    kept = store.get(key)
    if kept is not None:
        return read_parquet(kept)
    with open_copy(store, manifest) as file:
        made = make(file)
    sink = io.BytesIO()
    pq.write_table(made, sink, compression="zstd")
    store.put(key, sink.getvalue())
    return made


def closes_key(manifest: Manifest, symbol: str, kind: str = ROWS) -> str:
    """The key of what is kept of the closes of a copy; it changes with the copy, so that it is never that of another one."""
    market = hashlib.sha256(symbol.encode()).hexdigest()[:8]
    return f"{CLOSES_PREFIX}/{manifest.day}/{market}-{manifest.content_sha256[:16]}-{FEATURE_VERSION}-{kind}.parquet"


def _every(rows: StreamRows, every_min: int) -> StreamRows:
    chosen = (rows.origin_ns // NS_PER_MIN) % every_min == 0
    return StreamRows(rows.origin_ns[chosen], rows.matrix[chosen])


def _stream_rows(rows: pa.Table) -> StreamRows:
    columns = [rows[name].to_numpy() for name in MODEL_FEATURES]
    return StreamRows(column_ns(rows[MINUTE_END]), np.column_stack(columns))
