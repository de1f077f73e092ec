"""What Kafka and QuestDB still hold after a loss of power, with each mode of `BTC_STACK_DURABILITY`.

The servers run on a file system in a file. The file is copied at one moment: what the kernel has not written to the device
by then is not in the copy, as after a loss of power. The servers then start on the copy.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil
import pyarrow as pa
import pytest

from btc_core.clock import now_ns
from btc_core.names import EVENTS_TOPIC
from btc_core.stores.kafka import read_topic
from btc_core.stores.questdb import QuestDB, append, wait_until_applied
from btc_core.tables.catalogue import BRONZE_STATUS
from stack import preflight
from stack.layout import DURABILITY_MODES, Durability
from stack.ports import free_ports
from stack.runtime import Stack
from streaming.publisher import Publisher
from tests.faults.small_disk import MB, SmallDisk, small_disk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.settings import Settings

pytestmark = pytest.mark.timeout(600)

DISK_MB = 1_500
SERVERS = ("kafka", "questdb")
WRITES = 40
"""Writes to each server in the last moments before the power is lost."""


@contextmanager
def running(disk: SmallDisk, mode: Durability) -> Iterator[Stack]:
    """Kafka and QuestDB on a disk; at the end they are killed, and not stopped in order."""
    stack = Stack(disk.path / "data")
    if not stack.layout.exists:
        stack.create("sim", free_ports())
    stack.layout.set_durability(mode)
    try:
        stack.up(only=SERVERS)
        yield stack
        for status in stack.status(SERVERS):
            psutil.Process(status.pid).kill()
    finally:
        stack.down()
        shutil.rmtree(stack.layout.run_dir, ignore_errors=True)


def write(settings: Settings) -> None:
    """Write messages and rows one by one; each is acknowledged before the next."""
    publisher = Publisher(settings.kafka, "test")
    with QuestDB(settings.questdb) as db:
        for number in range(WRITES):
            publisher.publish(EVENTS_TOPIC, "BTC/USD", f"message {number}".encode(), now_ns())
            publisher.flush()
            kinds = {
                "TIMESTAMP_NS": pa.array([now_ns()], pa.timestamp("ns", "UTC")),
                "SYMBOL": pa.array(["online"]),
                "VARCHAR": pa.array(["2"]),
            }
            columns = {column.name: kinds.get(column.type, pa.array([number])) for column in BRONZE_STATUS.columns}
            append(db, BRONZE_STATUS, pa.table(columns))


def held(settings: Settings) -> tuple[int, int]:
    """Messages in the log, and rows in the table."""
    with QuestDB(settings.questdb) as db:
        wait_until_applied(db, BRONZE_STATUS.name)
        rows = db.execute(f"SELECT count() FROM {BRONZE_STATUS.name}")[0][0]
    return sum(1 for _ in read_topic(settings.kafka, EVENTS_TOPIC)), int(rows)


@pytest.mark.parametrize("mode", DURABILITY_MODES)
def test_with_fsync_everything_acknowledged_survives_a_loss_of_power(
    mode: Durability, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "MIN_DISK_GB", 0.2)
    monkeypatch.setenv("BTC_DISK_KAFKA_STOPS_BELOW_BYTES", str(100 * MB))
    with small_disk(DISK_MB) as disk:
        with running(disk, mode) as stack:
            os.sync()  # what the first start has created is long since on the disk
            servers = [psutil.Process(status.pid) for status in stack.status(SERVERS)]
            (disk.path / "cached").touch()
            write(stack.settings)
            with (disk.path / "synced").open("wb") as file:
                file.write(b"x")
                file.flush()
                os.fsync(file.fileno())
            (disk.path / "cached").write_bytes(b"x")
            for server in servers:
                server.suspend()
            after = disk.lose_power()
        after.mount()
        try:
            assert (after.path / "synced").read_bytes() == b"x"
            assert (after.path / "cached").read_bytes() == b"", "what was only in the page cache is lost"
            with running(after, mode) as again:
                messages, rows = held(again.settings)
        finally:
            after.unmount()
    if mode == "fsync":
        assert (messages, rows) == (WRITES, WRITES)
    else:
        assert messages <= WRITES >= rows, "this mode promises nothing for the last half minute"
