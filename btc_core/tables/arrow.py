"""Rows of a table as Arrow: the schema that the catalogue gives them, bringing rows into it, and a digest of them.

What does not belong here: how an event becomes a row (`rows`).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from btc_core.errors import SchemaError

if TYPE_CHECKING:
    from btc_core.tables.form import ColumnType, Table

_ARROW: dict[ColumnType, pa.DataType] = {
    "TIMESTAMP_NS": pa.timestamp("ns"),
    "SYMBOL": pa.string(),
    "VARCHAR": pa.string(),
    "DOUBLE": pa.float64(),
    "LONG": pa.int64(),
    "INT": pa.int32(),
    "BOOLEAN": pa.bool_(),
}


def arrow_schema(table: Table) -> pa.Schema:
    """The Arrow schema of a table's rows."""
    return pa.schema([(column.name, _ARROW[column.type]) for column in table.columns])


def in_form(rows: pa.Table, table: Table) -> pa.Table:
    """Rows with the catalogue's columns and types, sorted by the table's keys.

    Raises `SchemaError` when a column is missing or has values of another type.
    """
    schema = arrow_schema(table)
    missing = [name for name in schema.names if name not in rows.column_names]
    if missing:
        msg = f"rows of {table.name} lack {', '.join(missing)}; the catalogue has changed since they were written"
        raise SchemaError(msg)
    try:
        cast = pa.table([rows[field.name].cast(field.type) for field in schema], schema=schema)
    except pa.ArrowInvalid as error:
        msg = f"rows of {table.name} do not have the catalogue's types: {error}"
        raise SchemaError(msg) from error
    return cast.sort_by([(key, "ascending") for key in table.keys])


def read_parquet(body: bytes) -> pa.Table:
    """The rows of a Parquet file.

    `pyarrow.parquet.read_table` reads with threads, and a process that ends right after it is often aborted by them
    ("terminate called without an active exception").
    """
    return pq.ParquetFile(pa.BufferReader(body)).read(use_threads=False)


def values_of(rows: pa.Table, place: int = 0) -> dict[str, Any]:
    """The values of one row by column, without its times: Python's own have no nanoseconds, and those of pandas need pandas."""
    times = [field.name for field in rows.schema if pa.types.is_timestamp(field.type)]
    (values,) = rows.slice(place, 1).drop_columns(times).to_pylist()
    return dict(values)


def digest(rows: pa.Table) -> str:
    """The SHA-256 of the values of rows in the form of `in_form`. Equal rows give equal digests, however they were stored."""
    total = hashlib.sha256()
    for name in rows.column_names:
        column = rows[name].combine_chunks()
        total.update(name.encode())
        if pa.types.is_string(column.type):
            total.update("\0".join(pc.fill_null(column, "").to_pylist()).encode())
        elif pa.types.is_boolean(column.type):
            total.update(np.asarray(pc.fill_null(column, pa.scalar(False))).tobytes())
        elif pa.types.is_floating(column.type):
            values = column.to_numpy(zero_copy_only=False)  # a null reads as NaN
            total.update(np.where(np.isnan(values), np.nan, values).tobytes())
        else:
            plain = column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
            total.update(pc.fill_null(plain, 0).to_numpy().tobytes())
    return total.hexdigest()
