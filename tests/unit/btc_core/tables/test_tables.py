"""The catalogue of tables."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from btc_core.features.catalogue import FEATURE_NAMES, FEATURES
from btc_core.service_settings import QuestdbSettings
from btc_core.tables.catalogue import TABLES

if TYPE_CHECKING:
    from btc_core.tables.form import Table

pytestmark = pytest.mark.unit

EVERY_TABLE = pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))


@EVERY_TABLE
def test_the_statement_of_a_table_has_each_column_once(table: Table) -> None:
    names = [column.name for column in table.columns]
    assert len(names) == len(set(names))
    ddl = table.ddl(QuestdbSettings())
    if table.view:
        outputs = [*re.findall(r" AS (\w+)", table.view), "symbol"]
        outputs += [] if "ts_event AS ts" in table.view else ["ts"]
        assert sorted(outputs) == sorted(names)
    else:
        inside = re.search(r"\((.*?)\) TIMESTAMP", ddl)
        assert inside is not None
        assert [part.split()[0] for part in inside[1].split(", ")] == names
        assert f"TIMESTAMP({names[0]})" in ddl
        assert set(table.keys) <= set(names)
    assert bool(re.search(r"TTL \d+ DAYS", ddl)) == bool(table.view), "days of tables are dropped only once backed up"


@EVERY_TABLE
def test_every_column_says_what_it_means_and_every_number_its_unit(table: Table) -> None:
    assert table.meaning.endswith((".", "?"))
    for column in table.columns:
        assert column.meaning, column.name
        assert column.type != "DOUBLE" or column.unit or "side" in column.name, column.name
        assert column.type != "TIMESTAMP_NS" or column.unit == "UTC", column.name


@EVERY_TABLE
def test_every_upstream_column_is_in_the_catalogue_or_the_exchanges(table: Table) -> None:
    known = {f"{other.name}.{column.name}" for other in TABLES.values() for column in other.columns}
    for column in table.columns:
        for upstream in column.upstream:
            outside = r"(kraken\.(ticker|trade|book|status|ohlc)|log|model\.\w+_models?)\.\w+"
            assert upstream in known or re.fullmatch(outside, upstream), upstream
        from_code_or_clock = column.name in {"feature_version", "made_at", "import_id", "taken_at", "closed_at"}
        assert column.upstream or from_code_or_clock, f"{table.name}.{column.name} comes from nowhere"


def test_every_feature_is_described_once_and_derives_from_bronze() -> None:
    assert len(set(FEATURE_NAMES)) == len(FEATURES)
    for feature in FEATURES:
        assert feature.unit, feature.name
        assert feature.meaning, feature.name
        assert feature.upstream, feature.name
        assert all(name.startswith("bronze_") for name in feature.upstream)
    assert {column.name for column in TABLES["silver_features"].columns} >= set(FEATURE_NAMES)


READS_AND_ENDS = """
import io, sys
import pyarrow as pa, pyarrow.parquet as pq
from btc_core.tables.arrow import read_parquet

sink, table = io.BytesIO(), pa.table({f"c{place}": [1.0, 2.0, 3.0] for place in range(40)})
pq.write_table(table, sink)
assert read_parquet(sink.getvalue()).equals(table)
"""


def test_a_process_that_ends_right_after_reading_parquet_is_not_aborted() -> None:
    ended = [
        subprocess.run([sys.executable, "-c", READS_AND_ENDS], capture_output=True, text=True, timeout=120, check=False)
        for _ in range(6)
    ]
    assert [(each.returncode, each.stderr) for each in ended] == [(0, "")] * 6
