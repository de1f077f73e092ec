"""The feature rows at the closes of minutes of sealed days, from which models learn what the stream computes.

A day is read from `silver_features` in QuestDB, or, once it has been dropped there, from its copy on the object store. One
day is in memory at a time, and only the rows at the closes are kept.
What does not belong here: labels and the rows of days that nobody sealed, which come from minute bars (`models.dataset`).
"""

from __future__ import annotations

import hashlib
import io
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, column_ns
from btc_core.days.lake import CLOSES_PREFIX, kept_days, object_bytes, read_manifest
from btc_core.errors import StoreError
from btc_core.features.catalogue import FEATURE_VERSION, MODEL_FEATURES
from btc_core.models.dataset import StreamRows, step_min
from btc_core.names import FRESH_ROW_NS
from btc_core.tables.catalogue import GOLD_1MIN_SEALED, SILVER_FEATURES
from btc_core.tables.sql import of_symbol, on_day
from btc_core.utc_day import day_ns, day_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from btc_core.days.lake import Manifest
    from btc_core.stores.questdb import QuestDB
    from btc_core.stores.s3 import ObjectStore

    Longs = npt.NDArray[np.int64]

BATCH_ROWS = 50_000
"""Rows of a copy that are decoded at once: 25 MB."""
_PLACE = ("ts_event", "kafka_partition", "kafka_offset", "frame_item", "trade_id")
_log = logging.getLogger(__name__)


def rows_for_bars(db: QuestDB, store: ObjectStore | None, symbol: str, bars: npt.NDArray[Any]) -> StreamRows:
    """The rows at the closes that a frame of these bars (dtype `bars.BARS`, sorted) has as origins."""
    if not len(bars):
        return StreamRows.none()
    return closing_rows(db, store, symbol, int(bars["ts_ns"][0]), step_min(len(bars)))


def closing_rows(db: QuestDB, store: ObjectStore | None, symbol: str, since_ns: int, every_min: int = 1) -> StreamRows:
    """The rows of one market at every `every_min`th close of the sealed days since `since_ns`, oldest first.

    Without a `store`, and for days whose copy cannot be read, only the days that QuestDB still has are returned. Rows of
    another feature version are left out.
    """
    in_database = _days_in_database(db, symbol, since_ns)
    copies = _copies(store, since_ns, in_database) if store is not None else []
    parts = []
    for day in sorted({*in_database, *copies}):
        if day in in_database:
            rows = _of_database(db, symbol, day, every_min)
        else:
            assert store is not None  # noqa: S101 - there are no copies without a store, and mypy does not see it
            rows = _of_copy(store, symbol, day)
        parts.append(_every(rows, every_min))
    joined = [rows for rows in parts if len(rows.origin_ns)]
    if not joined:
        return StreamRows.none()
    return StreamRows(
        np.concatenate([rows.origin_ns for rows in joined]), np.concatenate([rows.matrix for rows in joined])
    )


def last_before_closes(rows: pa.Table) -> tuple[Longs, Longs]:
    """The closes of minutes, ns, and the index of the newest row before each; `rows` has the columns of a row's place.

    The newest row is the last one in the order of the log. A row that came after the clock had passed its minute is left
    out: it holds what happened after the close. A close without a row that is younger than `FRESH_ROW_NS` is left out, too.
    """
    ts_ns = column_ns(rows["ts_event"])
    partition, offset, item, trade_id = (rows[name].to_numpy() for name in _PLACE[1:])
    logged = partition >= 0
    order = np.lexsort((item, offset))
    in_log = order[logged[order]]
    clock_ns = ts_ns.copy()
    clock_ns[in_log] = np.maximum.accumulate(ts_ns[in_log])
    rank = np.where(logged, 0, trade_id)  # imported trades of one time are in the order of their ids
    rank[in_log] = np.arange(len(in_log))
    minute = ts_ns // NS_PER_MIN
    usable = np.flatnonzero(clock_ns // NS_PER_MIN == minute)
    newest = usable[np.lexsort((rank[usable], ~logged[usable], clock_ns[usable], minute[usable]))]
    last = np.append(np.flatnonzero(np.diff(minute[newest])), len(newest) - 1) if len(newest) else newest
    chosen = newest[last]
    closes_ns = (minute[chosen] + 1) * NS_PER_MIN
    fresh = closes_ns - ts_ns[chosen] <= FRESH_ROW_NS
    return closes_ns[fresh], chosen[fresh]


def _days_in_database(db: QuestDB, symbol: str, since_ns: int) -> set[str]:
    """Sealed days of the market of which QuestDB has feature rows of the present version."""
    where = f"{of_symbol(symbol)} AND {{}} >= cast({since_ns} AS TIMESTAMP_NS)"
    sealed = db.execute(
        f"SELECT cast(ts AS LONG), count() FROM {GOLD_1MIN_SEALED.name} WHERE {where.format('ts')} SAMPLE BY 1d"  # noqa: S608 - names of the catalogue
    )
    silver = db.execute(
        f"SELECT cast(ts_event AS LONG), count() FROM {SILVER_FEATURES.name} WHERE {where.format('ts_event')} "  # noqa: S608 - names of the catalogue
        f"AND feature_version = '{FEATURE_VERSION}' SAMPLE BY 1d"
    )
    return {day_of(int(begin)) for begin, rows in sealed if rows} & {
        day_of(int(begin)) for begin, rows in silver if rows
    }


def _copies(store: ObjectStore, since_ns: int, in_database: set[str]) -> list[str]:
    """The other days since `since_ns` that have a copy; none if the store does not answer."""
    try:
        days = kept_days(store, SILVER_FEATURES.name)
    except StoreError as error:
        _log.warning("the copies of sealed days cannot be read, so their minutes are those of bars: %s", error)
        return []
    return [day for day in days if day_ns(day) + NS_PER_DAY > since_ns and day not in in_database]


def _of_database(db: QuestDB, symbol: str, day: str, every_min: int) -> StreamRows:
    where = f"{of_symbol(symbol)} AND {on_day(SILVER_FEATURES, day)} AND feature_version = '{FEATURE_VERSION}'"
    places = db.query(f"SELECT {', '.join(_PLACE)} FROM {SILVER_FEATURES.name} WHERE {where}")  # noqa: S608 - names of the catalogue
    closes_ns, chosen = last_before_closes(places)
    # every chosen row is among the fresh ones, which are a sixth of a day or less
    ts = "cast(ts_event AS LONG)"
    fresh = f"{ts} % {NS_PER_MIN} >= {NS_PER_MIN - FRESH_ROW_NS} AND ({ts} / {NS_PER_MIN} + 1) % {every_min} = 0"
    features = db.query(
        f"SELECT {', '.join((*_PLACE, *MODEL_FEATURES))} FROM {SILVER_FEATURES.name} WHERE {where} AND {fresh}"  # noqa: S608 - names of the catalogue
    )
    keys, wanted = _keys(features), _keys(places)[chosen]
    order = np.argsort(keys)
    at = np.searchsorted(keys[order], wanted).clip(0, max(len(keys) - 1, 0))
    found = keys[order][at] == wanted if len(keys) else np.zeros(len(wanted), bool)
    return StreamRows(closes_ns[found], _matrix(features)[order[at[found]]])


def _of_copy(store: ObjectStore, symbol: str, day: str) -> StreamRows:
    """The rows at the closes of a day's copy, which are then kept on the store: a whole day has a thousand times more rows."""
    try:
        manifest = read_manifest(store, SILVER_FEATURES.name, day)
        if manifest is None or not manifest.seal or manifest.feature_version != FEATURE_VERSION:
            return StreamRows.none()
        key = _closes_key(manifest, symbol)
        kept = store.get(key)
        if kept is not None:
            table = pq.read_table(io.BytesIO(kept))
            return StreamRows(column_ns(table["close"]), _matrix(table))
        rows = _closes_of(object_bytes(store, manifest), symbol)
        columns: dict[str, Any] = {"close": pa.array(rows.origin_ns, pa.timestamp("ns"))}
        columns |= {name: np.ascontiguousarray(rows.matrix[:, place]) for place, name in enumerate(MODEL_FEATURES)}
        sink = io.BytesIO()
        pq.write_table(pa.table(columns), sink, compression="zstd")
        store.put(key, sink.getvalue())
    except StoreError as error:
        _log.warning("the copy of %s cannot be read, so its minutes are those of bars: %s", day, error)
        return StreamRows.none()
    return rows


def _closes_key(manifest: Manifest, symbol: str) -> str:
    """The key of the rows at the closes; it changes with the copy, so that they are never those of another one."""
    market = hashlib.sha256(symbol.encode()).hexdigest()[:8]
    return f"{CLOSES_PREFIX}/{manifest.day}/{market}-{manifest.content_sha256[:16]}-{FEATURE_VERSION}.parquet"


def _closes_of(body: bytes, symbol: str) -> StreamRows:
    """The rows at the closes of all minutes of one market in a copy; decodes its features `BATCH_ROWS` rows at a time."""
    file = pq.ParquetFile(io.BytesIO(body))
    versions = ("symbol", "feature_version")
    places = file.read(columns=[*_PLACE, *versions])
    own = np.flatnonzero(
        pc.and_(pc.equal(places["symbol"], symbol), pc.equal(places["feature_version"], FEATURE_VERSION)).to_numpy()
    )
    closes_ns, chosen = last_before_closes(places.take(own))
    wanted = own[chosen]
    matrix = np.empty((len(wanted), len(MODEL_FEATURES)))
    first = 0
    for batch in file.iter_batches(BATCH_ROWS, columns=list(MODEL_FEATURES)):
        inside = np.flatnonzero((wanted >= first) & (wanted < first + len(batch)))
        matrix[inside] = _matrix(pa.table(batch).take(wanted[inside] - first))
        first += len(batch)
    return StreamRows(closes_ns, matrix)


def _every(rows: StreamRows, every_min: int) -> StreamRows:
    chosen = (rows.origin_ns // NS_PER_MIN) % every_min == 0
    return StreamRows(rows.origin_ns[chosen], rows.matrix[chosen])


def _keys(rows: pa.Table) -> npt.NDArray[Any]:
    """A number for the place of each row, unique within a day of one market."""
    partition, offset, item = (rows[name].to_numpy().astype(np.int64) for name in _PLACE[1:4])
    return np.asarray((offset << 17) + (item << 1) + (partition >= 0))


def _matrix(rows: pa.Table) -> npt.NDArray[np.float64]:
    columns = [rows[name].to_numpy() for name in MODEL_FEATURES]
    return np.column_stack(columns) if len(rows) else np.empty((0, len(MODEL_FEATURES)))
