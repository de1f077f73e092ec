"""Benchmark of the disk: how many bytes a quote or a trade takes in Kafka, in QuestDB, and in the copies on the object store.

What does not belong here: what grows without quotes and trades (`growth`, `nightly`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from benchmarks.registry import Figure, Plan, benchmark
from benchmarks.servers import RATE, stack_for_now
from btc_core.days import lake
from btc_core.days.stored_days import stored_days
from btc_core.names import EVENTS_TOPIC, FEATURES_TOPIC, PREDICTIONS_TOPIC
from btc_core.stores.questdb import QuestDB
from btc_core.stores.s3 import ObjectStore
from btc_core.tables.catalogue import STORED
from stack.runtime import Stack

if TYPE_CHECKING:
    from pathlib import Path

    from btc_core.settings import Settings

STREAM_S = 120.0
TARGET_BYTES = 800.0
SMALL_BYTES = 20.0
"""Tables that take less for each quote or trade are left out of the list, but not of the sum."""
NOT_STREAMED = frozenset({"minute_bars", "gold_forecast_minutes"})
"""Tables that a new system fills with its past."""


@benchmark("storage", needs_servers=True)
def bytes_of_an_event(plan: Plan) -> list[Figure]:
    """Stream for two minutes, stop, and divide the sizes of the files by the number of feature rows.

    With `--data-dir`, the files of that stopped stack are measured instead.
    """
    if plan.data_dir is not None:
        return figures(Stack(plan.data_dir).layout.data_dir)
    with stack_for_now("--rate", str(RATE)) as stack:
        stack.up(only=("ingest", "bronze", "features", "forecast"))
        time.sleep(STREAM_S / 5 if plan.quick else STREAM_S)
        stack.down()
        found, events = (
            figures(stack.layout.data_dir),
            messages(stack.layout.data_dir / "kafka" / "data", FEATURES_TOPIC),
        )
        stack.up(only=("questdb", "store"))
        return [*found, copies(stack.settings, events)]


def figures(data_dir: Path) -> list[Figure]:
    """Bytes for each quote or trade, in all and by topic and table."""
    logs, database = data_dir / "kafka" / "data", data_dir / "questdb" / "db"
    events = messages(logs, FEATURES_TOPIC)
    topics = {name: size(logs, f"{name}-*", "*.log") for name in (EVENTS_TOPIC, FEATURES_TOPIC, PREDICTIONS_TOPIC)}
    tables = {
        each.name: size(database, f"{each.name}~*", "[0-9]*/*") for each in STORED if each.name not in NOT_STREAMED
    }
    found = []
    for place, sizes in (("Kafka", topics), ("QuestDB", tables)):
        total = sum(sizes.values()) / events
        found.append(Figure(f"a quote or trade in {place}", total, "bytes", TARGET_BYTES, note=f"{events} of them"))
        shares = sorted(((bytes_ / events, name) for name, bytes_ in sizes.items()), reverse=True)
        found += [Figure(f"of this in {name}", share, "bytes") for share, name in shares if share >= SMALL_BYTES]
    return found


def copies(settings: Settings, events: int) -> Figure:
    """Bytes for each quote or trade in the copies of all tables, which are made as every night makes them."""
    total = 0
    with QuestDB(settings.questdb) as db, ObjectStore(settings.store) as store:
        for table in STORED:
            days = () if table.name in NOT_STREAMED else stored_days(db, table)
            made = [lake.back_up(db, store, table, day) for day in days]
            total += sum(copy.size_bytes for copy in made if copy is not None)
    return Figure("a quote or trade in the copies of days", total / events, "bytes", note=f"{events} of them")


def size(folder: Path, inside: str, files: str) -> int:
    """The sum of the sizes of files, bytes."""
    return sum(path.stat().st_size for each in folder.glob(inside) for path in each.glob(files))


def messages(logs: Path, topic: str) -> int:
    """How many messages of a topic the log of a stopped broker holds."""
    ends, begins = (offsets(logs / f"{name}-checkpoint", topic) for name in ("replication-offset", "log-start-offset"))
    return ends - begins


def offsets(checkpoint: Path, topic: str) -> int:
    """The sum of the offsets of a topic's partitions in a checkpoint of Kafka, whose lines are topic, partition, offset."""
    rows = (line.split() for line in checkpoint.read_text().splitlines())
    return sum(int(row[2]) for row in rows if len(row) == 3 and row[0] == topic)
