"""Arrow tables as bytes of an Arrow stream, a Parquet file or a CSV file, while they are read.

What does not belong here: which rows they are (`series`).
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Format = Literal["arrow", "parquet", "csv"]
MEDIA: dict[Format, str] = {
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
    "csv": "text/csv; charset=utf-8",
}
"""The registered media types."""
PIECE_BYTES = 262_144
"""Bytes that are passed on at once. Waitress keeps up to four such pieces in memory for a client that reads slowly."""


class _Outbox(io.BytesIO):
    """A file that is only written: `take` returns what was written since the last call, and forgets it."""

    def __init__(self) -> None:
        super().__init__()
        self._taken = 0

    def tell(self) -> int:
        """The position in the whole file: a Parquet file refers to its row groups by it."""
        return self._taken + super().tell()

    def take(self) -> Iterator[bytes]:
        """The bytes in pieces of at most `PIECE_BYTES`."""
        size = super().tell()
        with self.getbuffer() as written:
            for begin in range(0, size, PIECE_BYTES):
                yield bytes(written[begin : min(begin + PIECE_BYTES, size)])
        self._taken += size
        self.seek(0)
        self.truncate()


def encoded(chunks: Iterable[pa.Table], schema: pa.Schema, form: Format) -> Iterator[bytes]:
    """The bytes of a file of the tables, which have the schema. A Parquet file gets a row group for each table."""
    outbox = _Outbox()
    with _writer(outbox, schema, form) as writer:
        yield from outbox.take()
        for chunk in chunks:
            writer.write_table(chunk) if form == "parquet" else writer.write(chunk)
            yield from outbox.take()
    yield from outbox.take()


def _writer(outbox: _Outbox, schema: pa.Schema, form: Format) -> Any:
    match form:
        case "arrow":
            return pa.ipc.new_stream(outbox, schema)
        case "parquet":
            return pq.ParquetWriter(outbox, schema, compression="zstd", compression_level=1)
        case "csv":
            return pa_csv.CSVWriter(outbox, schema)
