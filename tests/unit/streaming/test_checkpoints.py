"""A checkpoint is used only when it fits, and a restored worker makes the rows of one that never stopped, bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from btc_core.features.engine import FeatureEngine
from btc_core.market.messages import decode_envelope
from streaming.bronze_rows import BronzeReader
from streaming.checkpoints import Checkpoints
from tests.service.workers import market, trade_frame
from tests.unit.streaming.test_properties import records, rows_of, tables

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

SYMBOL = "BTC/USD"


def test_a_checkpoint_is_read_only_for_its_cluster_its_version_and_a_fitting_offset(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "features", "market.events", "v1")
    assert checkpoints.read("cluster", 3, 0, 100) is None
    checkpoints.write("cluster", 3, 42, b"state")
    found = checkpoints.read("cluster", 3, 0, 100)
    assert found is not None
    assert (found.offset, found.state) == (42, b"state")
    assert checkpoints.read("cluster", 3, 0, 41) is None, "it is ahead of the committed offset"
    assert checkpoints.read("cluster", 3, 43, 100) is None, "the log does not reach back that far"
    assert checkpoints.read("another cluster", 3, 0, 100) is None
    assert checkpoints.read("cluster", 2, 0, 100) is None
    assert Checkpoints(tmp_path, "features", "market.events", "v2").read("cluster", 3, 0, 100) is None


def test_a_damaged_checkpoint_is_ignored(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "features", "market.events", "v1")
    checkpoints.write("cluster", 0, 1, b"state" * 100)
    (path,) = (tmp_path / "features").iterdir()
    path.write_bytes(path.read_bytes()[:-7])
    assert checkpoints.read("cluster", 0, 0, 100) is None


def test_a_directory_that_cannot_be_written_costs_only_the_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "features").write_text("a file where a directory should be")
    Checkpoints(tmp_path, "features", "market.events", "v1").write("cluster", 0, 1, b"state")
    assert (tmp_path / "features").read_text() == "a file where a directory should be"


def test_rows_and_tables_after_a_checkpoint_equal_those_of_a_run_that_never_stopped() -> None:
    stream = list(market(SYMBOL, 90, seed=7))
    skipped = stream[300]
    stream[200] = type(skipped)(
        skipped.ts_recv_ns, 1, 1, "trade", "ws", trade_frame(SYMBOL, skipped.ts_recv_ns, 60_000.0, 900)
    )
    messages = records(stream)
    whole, whole_reader = FeatureEngine(), BronzeReader()
    for record in messages:
        whole.push(decode_envelope(record.value), 0, record.offset)
        whole_reader.read(record)

    first, first_reader = FeatureEngine(), BronzeReader()
    for record in messages[:500]:
        first.push(decode_envelope(record.value), 0, record.offset)
        first_reader.read(record)
    rows = rows_of(first.flush())
    second, second_reader = FeatureEngine(), BronzeReader()
    second.load(first.save(0))
    second_reader.load(first_reader.save(0))
    assert first.save(1) == FeatureEngine().save(1), "another partition has no state"
    for record in messages[500:]:
        second.push(decode_envelope(record.value), 0, record.offset)
        second_reader.read(record)
    assert rows | rows_of(second.flush()) == rows_of(whole.flush())
    found = tables(first_reader)
    for table, new_rows in tables(second_reader).items():
        found.setdefault(table, {}).update(new_rows)
    assert found == tables(whole_reader)
    assert found["gap_marks"], "the gap that was open at the checkpoint is still known"
