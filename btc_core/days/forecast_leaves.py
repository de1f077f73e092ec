"""The bytes that are hashed: a canonical form of table rows, and the leaf of a forecast in the tree of its hour.

The canonical bytes of a row are, one after the other:

1. `btc-forecast row 1`, a line feed, the name of the table, a line feed;
2. SHA-256 of the names of the columns that have a value, joined by line feeds: numbers first, then texts, each by name;
3. the values in this order: a time (ns since 1970) or an integer as int64, a number as float64, both little-endian; a text
   as its length in bytes (uint32) and UTF-8.

A null, a NaN and an infinite number are no value, so a column that is added later does not change the bytes of old rows.
The leaf of a forecast is `btc-forecast leaf 1`, a line feed, and five SHA-256 hashes: of its row in
`gold_bid_price_prediction`, of its row in `gold_volatility_prediction`, of its feature row in `silver_features`, and of the
`bundle.json` of both models. `bundle.json` names the hashes of all other files of a model.
What does not belong here: trees (`merkle`), and reading rows (`forecast_roots`).
"""

from __future__ import annotations

import struct
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from btc_core.days.merkle import HASH_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from btc_core.tables.form import Table

ROW_MARK, LEAF_MARK = b"btc-forecast row 1\n", b"btc-forecast leaf 1\n"
UNKNOWN = bytes(HASH_BYTES)
"""Stands for the hash of a feature row or of a model that was not stored when the hour was closed."""
_TEXT_TYPES = frozenset({"SYMBOL", "VARCHAR"})


def row_hashes(table: Table, rows: pa.Table) -> list[bytes]:
    """SHA-256 of the canonical bytes of each row."""
    return [sha256(each).digest() for each in canonical_rows(table, rows)]


def canonical_rows(table: Table, rows: pa.Table) -> Iterator[bytes]:
    """Yield the canonical bytes of each row of a table of the catalogue. Columns that `rows` lacks have no value."""
    present = sorted((column.name, column.type) for column in table.columns if column.name in rows.column_names)
    numbers = [name for name, kind in present if kind not in _TEXT_TYPES]
    texts = [name for name, kind in present if kind in _TEXT_TYPES]
    words, known = _words([rows[name] for name in numbers], len(rows))
    values: list[list[str | None]] = [rows[name].cast(pa.string()).to_pylist() for name in texts]
    head = ROW_MARK + table.name.encode() + b"\n"
    names_of: dict[tuple[bytes, tuple[bool, ...]], bytes] = {}
    texts_of: dict[tuple[str | None, ...], bytes] = {}
    for at in range(len(rows)):
        mask = known[at]
        text = tuple(each[at] for each in values)
        key = mask.tobytes(), tuple(each is not None for each in text)
        names = names_of.get(key)
        if names is None:
            chosen = [name for name, has in zip(numbers, mask.tolist(), strict=True) if has]
            chosen += [name for name, each in zip(texts, text, strict=True) if each is not None]
            names = names_of[key] = sha256("\n".join(chosen).encode()).digest()
        encoded = texts_of.get(text)
        if encoded is None:
            encoded = texts_of[text] = b"".join(_text(each) for each in text if each is not None)
        yield head + names + words[at][mask].tobytes() + encoded


def leaf_of(bid_row: bytes, volatility_row: bytes, feature_row: bytes, bundles: Sequence[bytes]) -> bytes:
    """The entry of a forecast from the hashes of its rows and of the bundles of the bid and the volatility."""
    return LEAF_MARK + bid_row + volatility_row + feature_row + b"".join(bundles)


def _words(columns: list[pa.ChunkedArray], rows: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The columns as 64-bit words, (rows, columns), and which of them are values."""
    words = np.zeros((rows, len(columns)), "<i8")
    known = np.zeros((rows, len(columns)), np.bool_)
    for place, column in enumerate(columns):
        known[:, place] = np.asarray(pc.is_valid(column))
        if pa.types.is_floating(column.type):
            values = column.cast(pa.float64()).to_numpy(zero_copy_only=False).astype("<f8")
            known[:, place] &= np.isfinite(values)
            words[:, place] = values.view("<i8")
            continue
        plain = column.cast(pa.timestamp("ns")).cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
        words[:, place] = np.asarray(pc.fill_null(plain.cast(pa.int64()), 0))
    return words, known


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<I", len(data)) + data
