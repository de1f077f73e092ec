"""The stored rows of one market over time, in chunks: from QuestDB, and from the copies of days that have left it.

A day leaves QuestDB as a whole, so every day is read from one of the two places and no row comes twice. What does not
belong here: the series that a client may ask for (`series`), and their file formats (`table_formats`).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NoReturn

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, column_ns, now_ns
from btc_core.days import lake
from btc_core.errors import StoreError
from btc_core.tables.arrow import arrow_schema
from btc_core.tables.sql import of_symbol, within
from btc_core.utc_day import day_ns, day_of, days_between

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    import pyarrow.parquet as pq

    from btc_core.stores.questdb import QuestDB
    from btc_core.stores.s3 import ObjectStore
    from btc_core.tables.form import Table

CHUNK_BYTES = 8_000_000
"""Size of a chunk, with 8 bytes for each value. An export of feature rows takes 220 MB of memory with 6 MB and 500 MB with
16 MB, and is a fifth faster with 16 MB."""
MANIFEST_THREADS = 8
"""Manifests that are read in parallel. One takes 2 to 5 ms, and a year has 365."""

COUNTED_DAYS = 31
"""Days whose rows are counted in one query, which maps every column of every one of these days into memory."""


class StoredDay(msgspec.Struct, frozen=True):
    """A day of a table, and where its rows are."""

    day: str
    rows: int
    """Rows of the market if QuestDB has the day; rows of all markets if only the object store has it."""
    copy: lake.Manifest | None = None
    """The copy to read, None if QuestDB has the day."""


class Span(msgspec.Struct, frozen=True):
    """A time that is read from one place: a part of a day, or several days of QuestDB."""

    begin_ns: int
    end_ns: int
    rows: int
    """Rows of the market that QuestDB had when the span was planned; 0 for a copy."""
    copy: lake.Manifest | None = None


class History:
    """Reads rows of tables. `open_store` is called when a day may have left QuestDB, and its client is kept."""

    def __init__(self, db: QuestDB, open_store: Callable[[], ObjectStore]) -> None:
        self.db = db
        self._open_store = open_store
        self._opened: ObjectStore | None = None

    def close(self) -> None:
        """Close the client of the object store. That of QuestDB belongs to the caller."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def days(self, table: Table, symbol: str, begin_ns: int, end_ns: int) -> list[StoredDay]:
        """The days from `begin_ns` until before `end_ns` that have rows, oldest first.

        The object store is asked only about a day that has no rows in QuestDB or is older than the table's TTL. Raises
        `ServiceError`, also if QuestDB has only a part of such a day.
        """
        if end_ns - begin_ns > COUNTED_DAYS * NS_PER_DAY:
            begin_ns = self.begin_of_rows(table, begin_ns, end_ns)
        if end_ns <= begin_ns:
            return []
        wanted = days_between(day_of(begin_ns), day_of(end_ns - 1))
        first_ns, last_ns = day_ns(wanted[0]), day_ns(wanted[-1]) + NS_PER_DAY
        held = self._counts(table, "", first_ns, last_ns, "1d")
        own = self._counts(table, symbol, begin_ns, end_ns, "1d")
        oldest = day_of(now_ns() - (table.ttl_days(self.db.settings) - 1) * NS_PER_DAY)
        copies = self._copies(table, [day for day in wanted if not held.get(day_ns(day)) or day < oldest])
        found = []
        for day in wanted:
            in_questdb, copy = held.get(day_ns(day), 0), copies.get(day)
            if copy is not None and copy.rows > in_questdb:
                if in_questdb:
                    _refuse_partial_day(table, copy, in_questdb)
                found.append(StoredDay(day, copy.rows, copy))
            elif in_questdb:
                found.append(StoredDay(day, own.get(day_ns(day), 0)))
        return found

    def begin_of_rows(self, table: Table, begin_ns: int, end_ns: int) -> int:
        """`begin_ns`, or the begin of the first later day that QuestDB or the object store has of any market; `end_ns` if none.

        A read that begins years before the first row need not ask about every month in between. Raises `ServiceError`.
        """
        found = self.db.execute(f"SELECT cast(min({table.timestamp}) AS LONG) FROM {table.name}")  # noqa: S608 - names of the catalogue
        first_ns = found[0][0] if found else None  # QuestDB may answer no row at all for a table without rows
        if first_ns is not None and int(first_ns) <= begin_ns:
            return begin_ns
        days = lake.kept_days(self.store(), table.name)[:1]
        if first_ns is not None:
            days.append(day_of(int(first_ns)))
        return max(begin_ns, day_ns(min(days))) if days else end_ns

    def spans(self, table: Table, symbol: str, begin_ns: int, end_ns: int, chunk_rows: int) -> Iterator[Span]:
        """The days as spans of at most `chunk_rows` rows in QuestDB, in the order of time. A copy is one span.

        A span is never shorter than a minute, so a minute with more rows makes it longer than `chunk_rows`.
        """
        waiting: Span | None = None
        for found in self.days(table, symbol, begin_ns, end_ns):
            first = max(begin_ns, day_ns(found.day))
            last = min(end_ns, day_ns(found.day) + NS_PER_DAY)
            if found.copy is not None:
                new = [Span(first, last, 0, found.copy)]
            elif found.rows > chunk_rows:
                counts = self._counts(table, symbol, first, last, "1m")
                new = _parts_of_day(counts, first, last, chunk_rows)
            else:
                new = [Span(first, last, found.rows)] if found.rows else []
            for span in new:
                if waiting is not None and _fit(waiting, span, chunk_rows):
                    waiting = Span(waiting.begin_ns, span.end_ns, waiting.rows + span.rows)
                    continue
                if waiting is not None:
                    yield waiting
                waiting = span
        if waiting is not None:
            yield waiting

    def chunks(
        self, table: Table, symbol: str, begin_ns: int, end_ns: int, names: Sequence[str] = ()
    ) -> Iterator[pa.Table]:
        """The rows of a market from `begin_ns` until before `end_ns` in the order of the table's keys.

        Chunks have the catalogue's types, or only the columns `names`, and about `CHUNK_BYTES`. Raises `StoreError` for a
        damaged copy, and if rows leave QuestDB while they are read.
        """
        wanted = tuple(names or (column.name for column in table.columns))
        read = tuple(dict.fromkeys((*table.keys, *wanted)))
        for span in self.spans(table, symbol, begin_ns, end_ns, chunk_rows(len(read))):
            if span.copy is None:
                yield self._from_questdb(table, symbol, span, read).select(wanted)
            else:
                for rows in self._from_copy(table, symbol, span, read):
                    yield rows.select(wanted)

    def open_copy(self, copy: lake.Manifest) -> AbstractContextManager[pq.ParquetFile]:
        """The copy of a day, verified, as a file (`lake.open_copy`)."""
        return lake.open_copy(self.store(), copy)

    def _from_copy(self, table: Table, symbol: str, span: Span, names: Sequence[str]) -> Iterator[pa.Table]:
        assert span.copy is not None  # noqa: S101 - the caller has looked
        with self.open_copy(span.copy) as stored:
            present = [name for name in names if name in stored.schema_arrow.names]
            begin, end = (pa.scalar(ns, pa.timestamp("ns")) for ns in (span.begin_ns, span.end_ns))
            for batch in stored.iter_batches(chunk_rows(len(names)), columns=present):
                times = batch[table.timestamp].cast(pa.timestamp("ns"))
                inside = pc.and_(pc.greater_equal(times, begin), pc.less(times, end))
                ours = pc.and_(inside, pc.equal(batch["symbol"], pa.scalar(symbol)))
                rows = pa.Table.from_batches([batch]).filter(ours)
                if len(rows):
                    yield in_types(rows, table, names)

    def _from_questdb(self, table: Table, symbol: str, span: Span, names: Sequence[str]) -> pa.Table:
        condition = f"{of_symbol(symbol)} AND {within(table.timestamp, span.begin_ns, span.end_ns)}"
        rows = self.db.query(f"SELECT {selected(table, names)} FROM {table.name} WHERE {condition}")  # noqa: S608 - names of the catalogue
        if len(rows) < span.rows:
            msg = (
                f"{span.rows - len(rows)} rows of {table.name} left QuestDB between {day_of(span.begin_ns)} and "
                f"{day_of(span.end_ns - 1)} while they were read; ask again"
            )
            raise StoreError(msg)
        return in_order(in_types(rows, table, names), table)

    def _counts(self, table: Table, symbol: str, begin_ns: int, end_ns: int, step: str) -> dict[int, int]:
        """The number of rows by the begin of each step; of all markets if `symbol` is empty."""
        own = f"{of_symbol(symbol)} AND " if symbol else ""
        counts: dict[int, int] = {}
        for first_ns in range(begin_ns, end_ns, COUNTED_DAYS * NS_PER_DAY):
            span = within(table.timestamp, first_ns, min(first_ns + COUNTED_DAYS * NS_PER_DAY, end_ns))
            counted = self.db.execute(
                f"SELECT cast({table.timestamp} AS LONG), count() FROM {table.name} WHERE {own}{span} SAMPLE BY {step}"  # noqa: S608 - names of the catalogue
            )
            for step_ns, rows in counted:
                if rows:  # two spans can share a step
                    counts[int(step_ns)] = counts.get(int(step_ns), 0) + int(rows)
        return counts

    def _copies(self, table: Table, days: list[str]) -> dict[str, lake.Manifest]:
        if not days:
            return {}
        store = self.store()
        kept = sorted(set(lake.kept_days(store, table.name)) & set(days))
        with ThreadPoolExecutor(MANIFEST_THREADS) as pool:
            manifests = pool.map(lambda day: lake.read_manifest(store, table.name, day), kept)
            return {each.day: each for each in manifests if each is not None}

    def store(self) -> ObjectStore:
        """The client of the object store, opened at its first use."""
        if self._opened is None:
            self._opened = self._open_store()
        return self._opened


def chunk_rows(columns: int) -> int:
    """The number of rows of a chunk."""
    return max(1_000, CHUNK_BYTES // (8 * max(1, columns)))


def selected(table: Table, names: Sequence[str], prefix: str = "") -> str:
    """The columns of a SELECT whose answer is Parquet.

    Without the cast, QuestDB 9.3.4 exports a VARCHAR of up to nine bytes to Parquet as null.
    """
    kinds = {column.name: column.type for column in table.columns}
    return ", ".join(
        f"{prefix}{name}::STRING {name}" if kinds[name] == "VARCHAR" else f"{prefix}{name} {name}" for name in names
    )


def in_types(rows: pa.Table, table: Table, names: Sequence[str]) -> pa.Table:
    """Rows with the catalogue's types, and null in place of NaN and in columns that an old copy lacks."""
    schema = arrow_schema(table)
    columns = []
    for name in names:
        kind = schema.field(name).type
        if name not in rows.column_names:
            columns.append(pa.nulls(len(rows), kind))
            continue
        column = rows[name].cast(kind)
        if pa.types.is_floating(kind):
            column = pc.if_else(pc.is_nan(column), None, column)
        columns.append(column)
    return pa.table(columns, names=list(names))


def in_order(rows: pa.Table, table: Table) -> pa.Table:
    """Rows that are sorted by time, sorted by all keys. Rows without two of the same time stay as they are."""
    times = column_ns(rows[table.timestamp])
    if (np.diff(times) > 0).all():
        return rows
    return rows.sort_by([(key, "ascending") for key in table.keys])


def _parts_of_day(counts: dict[int, int], begin_ns: int, end_ns: int, most: int) -> list[Span]:
    """Cut a day between minutes into spans of at most `most` rows."""
    parts: list[Span] = []
    start_ns, rows = begin_ns, 0
    for minute_ns, count in sorted(counts.items()):
        if rows and rows + count > most:
            cut_ns = max(begin_ns, minute_ns // NS_PER_MIN * NS_PER_MIN)
            parts.append(Span(start_ns, cut_ns, rows))
            start_ns, rows = cut_ns, 0
        rows += count
    return [*parts, Span(start_ns, end_ns, rows)] if rows else parts


def _fit(one: Span, other: Span, most: int) -> bool:
    return one.copy is None and other.copy is None and one.rows + other.rows <= most


def _refuse_partial_day(table: Table, copy: lake.Manifest, in_questdb: int) -> NoReturn:
    msg = (
        f"QuestDB has {in_questdb} of the {copy.rows} rows of {table.name} of {copy.day} that the object store has. "
        f"Restore the day first: btc restore --from {copy.day} --to {copy.day}"
    )
    raise StoreError(msg)
