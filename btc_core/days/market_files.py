"""Opening files of market data: CSV or Parquet, plain or packed by zip, gzip or zstd, as blocks of columns.

The content of a file decides how it is read, not its name. What does not belong here: what the columns mean
(`bar_files`, `trade_files`), or the conversion of their values (`file_columns`).
"""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from btc_core.days.bad_rows import BadRows
from btc_core.days.file_names import interval_named, markets_named, stem_of
from btc_core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

BLOCK_BYTES = 16 << 20
"""The size of a block of text. Its columns take about ten times as much memory while they are converted."""
BLOCK_ROWS = 500_000
"""The number of rows of a block of a Parquet file."""
HEAD_BYTES = 1 << 16
"""How much of the beginning of a text file is looked at to find its separator and its header."""
PARQUET_NAMES = (".parquet", ".pq")
_PARQUET, _GZIP, _ZSTD = b"PAR1", b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_ZIPS = (b"PK\x03\x04", b"PK\x05\x06")
"""The first bytes of a zip archive, and of one without files."""
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_MISSING = ["", "null", "NULL", "None", "nan", "NaN", "NA", "N/A"]
_SHOWN_MEMBERS = 5
MAX_LAYERS = 4
"""How often a file may be packed. There are gzip files that unpack to themselves."""


class Block(msgspec.Struct, frozen=True):
    """Consecutive rows of a file."""

    columns: tuple[pa.Array, ...]
    """The columns in the order of the file; all of them are strings if the file is text."""
    numbers: np.ndarray
    """The number of each row in the file, from 1."""


class MarketFile:
    """An open file with rows of market data."""

    def __init__(self, path: Path, member: str = "") -> None:
        self.path = path
        self.member = member
        """The file inside of a zip archive."""
        self.label = f"{path}, {member}" if member else str(path)
        self.names: tuple[str, ...] = ()
        """The names of the columns; empty if a text file has no header."""
        self.width = 0
        self.bad = BadRows("line")
        self.malformed_lines = 0
        """The number of lines that are in no block because they have another number of columns."""

    @property
    def file_names(self) -> tuple[str, ...]:
        """The names that may state the market of the file."""
        return (self.path.name, self.member) if self.member else (self.path.name,)

    @property
    def named_interval_min(self) -> int | None:
        """The length of the bars that the names state, in minutes."""
        return next((found for name in reversed(self.file_names) if (found := interval_named(stem_of(name)))), None)

    @contextmanager
    def blocks(self) -> Iterator[Iterator[Block]]:
        """Open the file and read it; `names` and `width` are known then. Raises `InvalidInput` when it is damaged."""
        with _named_errors(self.label), _unpacked(self.path, self.member) as stream:
            if stream.peek(4)[:4] in _ZIPS:
                msg = f"{self.label} holds a zip archive inside of another packed file. Unpack it and give one file"
                raise InvalidInput(msg)
            if stream.peek(4)[:4] == _PARQUET:
                yield self._parquet_blocks(stream)
            elif (self.member or self.path.name).lower().endswith(PARQUET_NAMES):
                msg = f"{self.label} is named as a Parquet file and is none. If it is CSV, rename it to .csv"
                raise InvalidInput(msg)
            else:
                yield self._text_blocks(stream)

    def _parquet_blocks(self, stream: io.BufferedReader) -> Iterator[Block]:
        file = pq.ParquetFile(pa.BufferReader(stream.read()) if self.member or not stream.seekable() else self.path)
        self.names = tuple(file.schema_arrow.names)
        self.width = len(self.names)
        self.bad = BadRows("row")
        return _batches(file)

    def _text_blocks(self, stream: io.BufferedReader) -> Iterator[Block]:
        dialect = _dialect(stream.peek(HEAD_BYTES)[:HEAD_BYTES], self.label)
        self.names, self.width = dialect.names, dialect.width
        return self._lines(stream, dialect)

    def _lines(self, stream: io.BufferedReader, dialect: _Dialect) -> Iterator[Block]:
        first_line, skipped_lines = 1, dialect.skipped_lines
        for text in _whole_lines(stream):
            block = self._parsed(text, dialect.separator, first_line, skipped_lines)
            first_line, skipped_lines = first_line + text.count(b"\n"), 0
            yield block

    def _parsed(self, text: bytes, separator: str, first_line: int, skipped_lines: int) -> Block:
        malformed: list[int] = []

        def note(row: pa_csv.InvalidRow) -> str:
            malformed.append(row.number)
            if row.text.strip():
                self.malformed_lines += 1
                fault = f"the line has another number of columns than the {row.expected_columns} of the file"
                self.bad.add(fault, [first_line + row.number - 1], lambda _: row.text[:60])
            return "skip"

        names = [str(place) for place in range(self.width)]
        table = pa_csv.read_csv(
            pa.BufferReader(text),
            # Only a single thread knows the numbers of malformed lines.
            pa_csv.ReadOptions(
                use_threads=False, block_size=len(text) + 1, skip_rows=skipped_lines, column_names=names
            ),
            pa_csv.ParseOptions(delimiter=separator, ignore_empty_lines=False, invalid_row_handler=note),
            pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=_MISSING
            ),
        )
        candidates = np.arange(skipped_lines + 1, skipped_lines + 1 + len(table) + len(malformed))
        lines = np.setdiff1d(candidates, malformed, assume_unique=True)[: len(table)]
        columns = [column.combine_chunks() for column in table.columns]
        is_blank = np.all([column.is_null().to_numpy(zero_copy_only=False) for column in columns], axis=0)
        if is_blank.any():
            columns = [column.filter(pa.array(~is_blank)) for column in columns]
        return Block(tuple(columns), (lines + first_line - 1)[~is_blank])


class _Dialect(msgspec.Struct, frozen=True):
    """How a text file is written."""

    separator: str
    names: tuple[str, ...]
    width: int
    skipped_lines: int
    """Comments and the header."""


def _batches(file: pq.ParquetFile) -> Iterator[Block]:
    first = 1
    for batch in file.iter_batches(BLOCK_ROWS, use_threads=False):
        yield Block(tuple(_plain(column) for column in batch.columns), np.arange(first, first + len(batch)))
        first += len(batch)


def _whole_lines(stream: io.BufferedReader) -> Iterator[bytes]:
    """The text of a stream in blocks that end with a line.

    pyarrow could cut the blocks itself, but it would call the stream from a thread of its own. Such a thread can abort
    the process when it ends at that moment.
    """
    rest = b""
    while text := stream.read(BLOCK_BYTES):
        end = text.rfind(b"\n") + 1
        if end:
            yield rest + text[:end]
            rest = text[end:]
        else:
            rest += text
    if rest:
        yield rest


def open_market_file(path: Path, symbol: str | None) -> MarketFile:
    """Find the file to read: `path`, or the member of a zip archive that holds the wanted market.

    Raises `InvalidInput` when there is no such file, or several may be meant.
    """
    if not path.is_file():
        msg = f"{path} is not a file"
        raise InvalidInput(msg)
    with path.open("rb") as file:
        if file.read(4) not in _ZIPS:
            return MarketFile(path)
    with _named_errors(str(path)), zipfile.ZipFile(path) as archive:
        members = [
            info.filename
            for info in archive.infolist()
            if not info.is_dir() and not info.filename.startswith("__MACOSX/")
        ]
    return MarketFile(path, _chosen_member(path, members, symbol))


def _chosen_member(path: Path, members: Sequence[str], symbol: str | None) -> str:
    if len(members) == 1:
        return members[0]
    fitting = [
        name
        for name in members
        if symbol in markets_named(stem_of(name)) and interval_named(stem_of(name)) in (None, 1)
    ]
    if len(fitting) == 1:
        return fitting[0]
    shown = ", ".join((fitting or list(members))[:_SHOWN_MEMBERS])
    msg = (
        f"{path} holds {len(members)} files, and {len(fitting)} of them are named as minute bars or trades of "
        f"{symbol or 'one market'}: {shown}, …. Unpack it and give one file"
    )
    raise InvalidInput(msg)


@contextmanager
def _unpacked(path: Path, member: str) -> Iterator[io.BufferedReader]:
    """The content of a file, unpacked as often as it is packed."""
    with path.open("rb") as file:
        if not member:
            yield _decompressed(file)
            return
        with zipfile.ZipFile(file) as archive, archive.open(member) as packed:
            yield _decompressed(io.BufferedReader(cast("io.RawIOBase", packed)))


def _decompressed(file: io.BufferedReader) -> io.BufferedReader:
    for _ in range(MAX_LAYERS):
        magic = file.peek(4)[:4]
        if magic.startswith(_GZIP):
            raw = cast("io.RawIOBase", gzip.GzipFile("", "rb", fileobj=file))
        elif magic == _ZSTD:
            raw = cast("io.RawIOBase", pa.CompressedInputStream(pa.PythonFile(file), "zstd"))
        else:
            return file
        file = io.BufferedReader(raw, HEAD_BYTES)
    msg = f"it is packed more than {MAX_LAYERS - 1} times"
    raise OSError(msg)


@contextmanager
def _named_errors(label: str) -> Iterator[None]:
    """Turn the errors of the libraries that read files into `InvalidInput` with the name of the file."""
    try:
        yield
    except (EOFError, OSError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        msg = f"{label} cannot be unpacked: {error}. Download it again"
        raise InvalidInput(msg) from error
    except pa.ArrowException as error:
        msg = f"{label} cannot be read: {error}"
        raise InvalidInput(msg) from error


def _dialect(head: bytes, label: str) -> _Dialect:
    """Find the separator, the header and the width of a text file in its first lines; raises `InvalidInput`."""
    if head.startswith(_UTF16) or b"\0" in head:
        msg = f"{label} is no text in UTF-8 and no Parquet file. Save it as CSV in UTF-8"
        raise InvalidInput(msg)
    lines = head.decode("utf-8-sig", errors="replace").splitlines()
    first = next((place for place, line in enumerate(lines) if line.strip() and not _is_comment(line)), None)
    if first is None:
        msg = f"{label} is empty"
        raise InvalidInput(msg)
    separator = max(",;\t", key=lines[first].count)
    if separator not in lines[first]:
        msg = f"{label}, line {first + 1} has no columns that a comma, a semicolon or a tab separates: {lines[first][:60]!r}"
        raise InvalidInput(msg)
    fields = next(csv.reader([lines[first]], delimiter=separator))
    is_header = not fields[0].strip()[:1].isdigit()
    names = tuple(field.strip() for field in fields) if is_header else ()
    return _Dialect(separator, names, len(fields), first + is_header)


def _is_comment(line: str) -> bool:
    """Whether a line before the header is a remark, as CryptoDataDownload's address."""
    return line.startswith(("#", "http"))


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
