"""Encoding a few rows for QuestDB one by one, which for them takes a tenth of the time of a data frame.

The client encodes a pandas frame in 2 to 14 ms, however few rows it has: most of that is spent on each of its columns, while
the thread keeps the interpreter's lock. What does not belong here: sending (`questdb`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
from questdb import TimestampNanos

if TYPE_CHECKING:
    from questdb.ingress import Buffer

MOST_ROWS = 200
"""From about 250 rows of `silver_features` on, and 500 of a table with few columns, a data frame is faster."""


def can_encode(rows: pa.Table, most: int = MOST_ROWS) -> bool:
    """Whether these are not more rows than `most`, and have only values that `encode` knows."""
    return len(rows) <= most and all(map(_is_known, rows.columns))


def _is_known(column: pa.ChunkedArray) -> bool:
    kind = column.type
    if pa.types.is_boolean(kind):
        return bool(column.null_count == 0)  # a BOOLEAN of QuestDB is never null
    if pa.types.is_dictionary(kind):
        return bool(pa.types.is_string(kind.value_type))
    if pa.types.is_timestamp(kind):
        return str(kind.unit) == "ns"
    return any(is_kind(kind) for is_kind in (pa.types.is_float64, pa.types.is_integer, pa.types.is_string))


def encode(buffer: Buffer, table: str, rows: pa.Table, timestamp: str) -> None:
    """Add rows to `buffer`; a column of dictionaries is one of symbols. A value that is null is not sent.

    Raises `ValueError` for a value that the client cannot encode, such as a time before 1970; the buffer is then of no use.
    """
    symbols = [name for name in rows.column_names if pa.types.is_dictionary(rows.column(name).type)]
    others = [name for name in rows.column_names if name not in symbols and name != timestamp]
    if rows.column(timestamp).null_count:
        msg = f"a row of {table} has no time"
        raise ValueError(msg)
    for start in range(0, len(rows), MOST_ROWS):  # so that many rows take little memory as objects
        part = rows.slice(start, MOST_ROWS)
        parts = _values(part.column(timestamp)), _by_row(part, symbols), _by_row(part, others)
        for at, symbol_values, values in zip(*parts, strict=True):
            buffer.row(
                table,
                symbols=dict(zip(symbols, symbol_values, strict=True)),
                columns=dict(zip(others, values, strict=True)),
                at=at,
            )


def _by_row(rows: pa.Table, names: list[str]) -> list[tuple[Any, ...]]:
    columns = [_values(rows.column(name)) for name in names]
    return list(zip(*columns, strict=True)) if columns else [()] * len(rows)


def _values(column: pa.ChunkedArray) -> list[Any]:
    if not pa.types.is_timestamp(column.type):
        return column.to_pylist()  # type: ignore[no-any-return]
    return [None if ts_ns is None else TimestampNanos(ts_ns) for ts_ns in column.cast(pa.int64()).to_pylist()]
