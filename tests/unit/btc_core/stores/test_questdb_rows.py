"""A few rows are encoded one by one, to the same bytes as a data frame."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import pyarrow as pa
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from questdb.ingress import Buffer

from btc_core.stores.questdb import _encoded
from btc_core.stores.questdb_rows import MOST_ROWS, can_encode, encode
from btc_core.tables.arrow import arrow_schema
from btc_core.tables.catalogue import TABLES

START_NS = 1_790_000_000_000_000_000
UTC = pa.timestamp("ns", "UTC")
PROTOCOL = 2
"""The version in which numbers are sent as their eight bytes."""


class Sender:
    """Gives buffers, and sends nothing."""

    def establish(self) -> None:
        """Connect to nothing."""

    def new_buffer(self) -> Buffer:
        return Buffer(PROTOCOL)

    def flush(self, buffer: Buffer) -> None:
        """Forget the rows."""


def encoded(rows: pa.Table, most: int = MOST_ROWS) -> bytes:
    return bytes(_encoded(Sender(), "a_table", rows, "ts_event", most))  # type: ignore[arg-type]


def one_by_one(rows: pa.Table) -> bytes:
    buffer = Buffer(PROTOCOL)
    encode(buffer, "a_table", rows, "ts_event")
    return bytes(buffer)


def as_frame(rows: pa.Table) -> bytes:
    frame = rows.to_pandas()
    naive = {name: frame[name].dt.tz_convert(None) for name in frame.select_dtypes("datetimetz")}
    return bytes(
        Buffer(PROTOCOL).dataframe(frame.assign(**naive), table_name="a_table", at="ts_event")  # type: ignore[arg-type]
    )


def times(count: int, step_ns: int = 1) -> pa.Array:
    return pa.array(range(START_NS, START_NS + count * step_ns, step_ns)).cast(UTC)


def with_values(values: pa.Array) -> pa.Table:
    return pa.table({"ts_event": times(len(values)), "symbol": symbols(len(values)), "value": values})


def symbols(count: int) -> pa.Array:
    return pa.array(["BTC/USD", "an=odd, symbol"] * count)[:count].dictionary_encode()


def made_up(kind: pa.DataType, count: int) -> pa.Array:
    if pa.types.is_floating(kind):
        return pa.array([index * 0.1 - 3 for index in range(count)], kind)
    if pa.types.is_boolean(kind):
        return pa.array([index % 3 == 0 for index in range(count)], kind)
    if pa.types.is_timestamp(kind):
        return times(count, 1_000)
    if pa.types.is_integer(kind):
        return pa.array([index - 5 for index in range(count)], kind)
    return pa.array([f'a "quoted"\nline {index} \\ é' for index in range(count)], kind)


@pytest.mark.parametrize("name", [name for name, table in TABLES.items() if not table.view])
def test_rows_of_every_table_have_the_bytes_of_a_frame(name: str) -> None:
    table = TABLES[name]
    columns = {}
    for column, field in zip(table.columns, arrow_schema(table), strict=True):
        is_symbol = column.type == "SYMBOL"
        columns["ts_event" if field.name == table.timestamp else field.name] = (
            symbols(30) if is_symbol else made_up(field.type, 30)
        )
    rows = pa.table(columns)
    assert can_encode(rows)
    assert one_by_one(rows) == as_frame(rows)


@pytest.mark.parametrize(
    "values",
    [[0.1 + 0.2, float("inf"), -0.0, 5e-324], [2**62, -1, 0, 7], [True, False, True, True], ["", " ", "a\tb", '\\"']],
)
def test_unusual_values_have_the_bytes_of_a_frame(values: list[Any]) -> None:
    rows = with_values(pa.array(values))
    assert one_by_one(rows) == as_frame(rows)


@pytest.mark.parametrize("kind", [pa.float64(), pa.int64(), pa.string(), UTC])
def test_a_missing_value_is_not_sent(kind: pa.DataType) -> None:
    lines = one_by_one(with_values(pa.array([None, 1], pa.int64()).cast(kind))).split(b"\n")
    assert lines[0] == b"a_table,symbol=BTC/USD %dn" % START_NS
    assert b"value=" in lines[1]


def test_a_large_integer_beside_a_missing_one_keeps_its_last_digit() -> None:
    large = 2**53 + 1
    rows = with_values(pa.array([None, large]))
    assert b"value=%di" % large in encoded(rows)
    assert b"value=%di" % large not in as_frame(rows)


def test_more_rows_are_encoded_as_a_frame() -> None:
    rows = with_values(pa.array(range(MOST_ROWS + 1)))
    assert can_encode(rows[:MOST_ROWS])
    assert not can_encode(rows)
    assert encoded(rows) == as_frame(rows)


@pytest.mark.parametrize(
    "rows",
    [
        pa.table({"ts_event": pa.array([START_NS, -1]).cast(UTC), "value": [1, 2]}),
        pa.table({"ts_event": times(2), "value": pa.array([True, None])}),
    ],
)
def test_what_cannot_be_stored_gives_the_error_of_a_frame(rows: pa.Table) -> None:
    with pytest.raises(Exception, match=r".") as of_frame:
        as_frame(rows)
    with pytest.raises(type(of_frame.value)) as found:
        encoded(rows)
    assert str(found.value) == str(of_frame.value)


def test_rows_without_a_time_are_encoded_as_a_frame() -> None:
    rows = pa.table({"ts_event": pa.array([START_NS, None]).cast(UTC), "value": [1, 2]})
    assert encoded(rows) == as_frame(rows)


WITHOUT_PANDAS = """
import sys
from btc_core.tables.lazy_pandas import leave_out_pandas
leave_out_pandas()
from tests.unit.btc_core.stores.test_questdb_rows import MOST_ROWS, as_frame, encoded, pa, with_values
few, many = (with_values(pa.array([0.5] * count)) for count in (MOST_ROWS, MOST_ROWS + 1))
in_one = encoded(few), encoded(many, MOST_ROWS + 1)
assert "pandas" not in sys.modules
assert encoded(many) == as_frame(many) == in_one[1]
assert "pandas" in sys.modules
"""


def test_pandas_is_loaded_only_for_the_first_frame() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_PANDAS], check=True)


BACKLOG = """
import sys
from btc_core.tables.lazy_pandas import leave_out_pandas
leave_out_pandas()
from btc_core.service_settings import QuestdbSettings
from btc_core.stores import questdb
from tests.unit.btc_core.stores.test_questdb_rows import Sender, pa, with_values
Sender.from_conf = classmethod(lambda cls, _conf: cls())
questdb.Sender = Sender
db = questdb.QuestDB(QuestdbSettings())
half = with_values(pa.array([0.5] * (questdb.BACKLOG_ROWS // 2)))
many = with_values(pa.array([0.5] * (10 * questdb.BACKLOG_ROWS)))
db.write("a_table", many, once=True)
db.write("a_table", half)
db.write("a_table", half)
db.write("a_table", half[:10])
assert "pandas" not in sys.modules
db.write("a_table", half)
assert "pandas" in sys.modules
"""


def test_the_backlog_of_a_start_is_written_without_pandas() -> None:
    subprocess.run([sys.executable, "-c", BACKLOG], check=True)
