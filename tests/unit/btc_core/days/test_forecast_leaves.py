"""The canonical bytes of rows: what they are, and what does and does not change them."""

from __future__ import annotations

import math
import struct
from hashlib import sha256

import pyarrow as pa
import pytest

from btc_core.days.forecast_leaves import canonical_rows, leaf_of, row_hashes
from btc_core.tables.form import Column, Table

pytestmark = pytest.mark.unit

TABLE = Table(
    "gold_example",
    "gold",
    "",
    (
        Column("ts_event", "TIMESTAMP_NS", "", ""),
        Column("symbol", "SYMBOL", "", ""),
        Column("b", "DOUBLE", "", ""),
        Column("a", "LONG", "", ""),
        Column("note", "VARCHAR", "", ""),
        Column("offset", "INT", "", ""),
    ),
    ("ts_event", "symbol"),
)


def rows(**changes: object) -> pa.Table:
    values = {"ts_event": 7, "symbol": "BTC/USD", "b": 0.1, "a": -1, "note": None, "offset": 3} | changes
    kinds = {"ts_event": pa.timestamp("ns"), "b": pa.float64(), "a": pa.int64(), "offset": pa.int32()}
    return pa.table({name: pa.array([value], kinds.get(name, pa.string())) for name, value in values.items()})


def test_the_bytes_are_those_that_the_documentation_states() -> None:
    names = sha256(b"a\nb\noffset\nts_event\nsymbol").digest()
    numbers = struct.pack("<qdqq", -1, 0.1, 3, 7)
    expected = b"btc-forecast row 1\ngold_example\n" + names + numbers + struct.pack("<I", 7) + b"BTC/USD"
    assert list(canonical_rows(TABLE, rows())) == [expected]
    assert row_hashes(TABLE, rows()) == [sha256(expected).digest()]


@pytest.mark.parametrize("none", [None, math.nan, math.inf])
def test_a_number_that_is_no_value_is_as_if_the_column_did_not_exist(none: float | None) -> None:
    assert list(canonical_rows(TABLE, rows(b=none))) == list(canonical_rows(TABLE, rows().drop_columns(["b"])))


def test_the_order_of_columns_and_other_rows_change_nothing() -> None:
    one, other = rows(), rows(b=math.nan, note="late", a=5)
    both = pa.concat_tables([one, other]).select(sorted(one.column_names, reverse=True))
    assert list(canonical_rows(TABLE, both)) == [*canonical_rows(TABLE, one), *canonical_rows(TABLE, other)]


@pytest.mark.parametrize(
    ("name", "value"),
    [("ts_event", 8), ("symbol", "BTC/USE"), ("b", math.nextafter(0.1, 1)), ("a", 1), ("note", ""), ("offset", 4)],
)
def test_every_value_changes_the_hash(name: str, value: object) -> None:
    assert row_hashes(TABLE, rows(**{name: value})) != row_hashes(TABLE, rows())


def test_a_leaf_is_its_mark_and_five_hashes() -> None:
    hashes = [bytes([each]) * 32 for each in range(5)]
    leaf = leaf_of(hashes[0], hashes[1], hashes[2], hashes[3:])
    assert leaf == b"btc-forecast leaf 1\n" + b"".join(hashes)
