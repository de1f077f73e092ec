"""A checkpoint is used only when it fits, and a restored worker makes the rows of one that never stopped, bit for bit."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import resource
import signal
from typing import TYPE_CHECKING

import msgspec
import pytest

from btc_core import metrics
from btc_core.features.engine import FeatureEngine
from btc_core.features.state import new_state
from btc_core.market.messages import decode_envelope
from streaming.bronze_rows import BronzeReader
from streaming.checkpoints import Checkpoint, Checkpoints
from streaming.forecast import ForecastHandler
from streaming.handler import UNUSABLE_STATE
from streaming.log_marks import LogMark
from tests.service.workers import market, trade_frame
from tests.unit.streaming.test_properties import records, rows_of, tables

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier
    from pathlib import Path

pytestmark = pytest.mark.unit

SYMBOL = "BTC/USD"
ROUNDS = 20


def signed(body: bytes) -> bytes:
    """A checkpoint file with this body and the digest that belongs to it."""
    return hashlib.sha256(body).digest() + body


MARK = LogMark("cluster/topic", 7, 1_000)


def saved(directory: Path, version: str = "v1", group: str = "features") -> Checkpoints:
    return Checkpoints(directory, group, "market.events", version)


def test_a_checkpoint_is_read_only_for_its_log_its_version_and_a_fitting_offset(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path)
    assert checkpoints.read(3, MARK.log, 0, 100) is None
    checkpoints.write(3, 42, MARK, b"state")
    found = checkpoints.read(3, MARK.log, 0, 100)
    assert found is not None
    assert (found.offset, found.mark, found.state) == (42, MARK, b"state")
    assert checkpoints.read(3, MARK.log, 0, 41) is None, "it is ahead of the committed offset"
    assert checkpoints.read(3, MARK.log, 43, 100) is None, "the log does not reach back that far"
    assert checkpoints.read(3, "cluster/another topic", 0, 100) is None
    assert checkpoints.read(2, MARK.log, 0, 100) is None
    assert saved(tmp_path, "v2").read(3, MARK.log, 0, 100) is None


def test_a_checkpoint_of_another_partition_or_group_in_its_place_is_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved(tmp_path).write(1, 42, MARK, b"state of partition 1")
    folder = tmp_path / "features"
    (folder / "market.events-1").rename(folder / "market.events-0")
    assert saved(tmp_path).read(0, MARK.log, 0, 100) is None
    assert "its partition is 1, and 0 is needed" in caplog.text
    folder.rename(tmp_path / "bronze")
    assert saved(tmp_path, group="bronze").read(1, MARK.log, 0, 100) is None


def write_in_turns(directory: Path, partition: int, barrier: Barrier) -> None:
    for number in range(ROUNDS):
        barrier.wait()
        saved(directory).write(partition, number, MARK, b"%d" % partition * 1_000_000)
        barrier.wait()


def test_processes_that_write_at_the_same_moment_do_not_mix_their_states(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(4)
    writers = [context.Process(target=write_in_turns, args=(tmp_path, part, barrier)) for part in (0, 1, 1)]
    for writer in writers:
        writer.start()
    for number in range(ROUNDS):
        barrier.wait(60)
        barrier.wait(60)
        for partition in (0, 1):
            found = saved(tmp_path).read(partition, MARK.log, 0, 100)
            assert found is not None
            assert (found.offset, found.state[:1]) == (number, b"%d" % partition)
    for writer in writers:
        writer.join(60)
    assert sorted(path.name for path in (tmp_path / "features").iterdir()) == ["market.events-0", "market.events-1"]


def test_the_draft_of_a_killed_process_is_deleted_later(tmp_path: Path) -> None:
    saved(tmp_path).write(1, 42, MARK, b"state")
    draft = tmp_path / "features" / ".market.events-1.999999.draft"
    draft.write_bytes(b"half")
    saved(tmp_path).write(1, 43, MARK, b"state")
    assert draft.exists(), "its process may still be writing"
    os.utime(draft, (0, 0))
    saved(tmp_path).write(1, 44, MARK, b"state")
    assert not draft.exists()


class OlderCheckpoint(msgspec.Struct):
    cluster: str
    version: str
    topic: str
    partition: int
    offset: int
    state: bytes


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"too short",
        signed(b""),
        signed(b"not msgpack"),
        signed(msgspec.msgpack.encode(OlderCheckpoint("cluster", "v1", "market.events", 0, 1, b""))),
        signed(msgspec.msgpack.encode(Checkpoint("features", "market.events", 0, "v1", 1, MARK, b"state")))[:-7],
    ],
)
def test_a_damaged_checkpoint_or_one_of_another_layout_is_ignored_with_a_warning(
    tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "market.events-0").write_bytes(data)
    assert saved(tmp_path).read(0, MARK.log, 0, 100) is None
    assert "is ignored, and the log is read instead" in caplog.text


def test_a_checkpoint_that_cannot_be_read_is_ignored_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "features" / "market.events-0").mkdir(parents=True)
    assert saved(tmp_path).read(0, MARK.log, 0, 100) is None
    assert "is ignored, and the log is read instead" in caplog.text


def test_a_checkpoint_that_cannot_be_written_is_counted_and_costs_nothing_else(tmp_path: Path) -> None:
    failures = metrics.CHECKPOINT_FAILURES.labels("features")
    before = failures._value.get()
    (tmp_path / "features").write_text("a file where a directory should be")
    saved(tmp_path).write(0, 1, MARK, b"state")
    assert failures._value.get() == before + 1
    (tmp_path / "features").unlink()
    (tmp_path / "features" / "market.events-0").mkdir(parents=True)
    saved(tmp_path).write(0, 1, MARK, b"state")
    assert failures._value.get() == before + 2


def test_a_disk_that_is_full_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    saved(tmp_path).write(0, 1, MARK, b"state")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        saved(tmp_path).write(0, 2, MARK, b"s" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    found = saved(tmp_path).read(0, MARK.log, 0, 100)
    assert found is not None
    assert found.offset == 1
    assert len(list((tmp_path / "features").iterdir())) == 1


@pytest.mark.parametrize("state", [b"", b"12345", bytes(2 * new_state().nbytes)])
def test_a_state_of_another_size_is_refused(state: bytes) -> None:
    saved_market = {"symbol": SYMBOL, "partition": 0, "state": state, "last_id": 1, "open_gaps": []}
    with pytest.raises(UNUSABLE_STATE):
        FeatureEngine().load(msgspec.msgpack.encode([saved_market]))


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


@pytest.mark.parametrize("state", [b"", b"12345", msgspec.msgpack.encode((0, {SYMBOL: [1, 2]}))])
def test_every_handler_refuses_bytes_that_are_no_state_of_it(state: bytes) -> None:
    loads = (FeatureEngine().load, BronzeReader().load, ForecastHandler.load.__get__(object()))
    for load in loads:
        with pytest.raises(UNUSABLE_STATE):
            load(state)
