"""Benchmark of growth: what each part of a running system takes, and by how much it grows in a day.

What does not belong here: the bytes of one quote or trade (`storage`).
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from benchmarks.registry import Figure, Plan, benchmark
from btc_core.stores.s3 import ObjectStore
from stack.limits import usage_of
from stack.postgres_connection import connect
from stack.runtime import Stack

if TYPE_CHECKING:
    from pathlib import Path

    from btc_core.settings import Settings

BETWEEN_S = 600.0
"""Time between the two readings. Parts that a daily job writes do not grow meanwhile; read these a day apart."""
MB, DAY_S = 1e6, 86_400.0
FOLDERS = {
    "log (Kafka)": "kafka/data",
    "tables (QuestDB)": "questdb/db",
    "output of Dagster's runs": "dagster/storage",
    "logs of processes": "logs",
    "checkpoints of workers": "state",
    "models in the cache": "models",
}
"""By what they hold, the folders of a data directory."""


@benchmark("growth", needs_servers=True)
def growth(plan: Plan) -> list[Figure]:
    """Read the sizes of a running stack twice. It needs `--data-dir`, because a new system says nothing about growth."""
    if plan.data_dir is None:
        return []
    stack = Stack(plan.data_dir)
    before, began_s = sizes(stack.settings, stack.layout.data_dir), time.monotonic()
    time.sleep(BETWEEN_S / 10 if plan.quick else BETWEEN_S)
    took_s, after = time.monotonic() - began_s, sizes(stack.settings, stack.layout.data_dir)
    return [*figures(before, after, took_s), *limits(stack)]


def figures(before: dict[str, int], after: dict[str, int], took_s: float) -> list[Figure]:
    """Megabytes now and megabytes a day of each part, from two readings in bytes."""
    found = []
    for name, size in after.items():
        grown = (size - before.get(name, 0)) / took_s * DAY_S
        found += [Figure(name, size / MB, "MB"), Figure(f"growth of {name}", grown / MB, "MB a day")]
    return found


def sizes(settings: Settings, data_dir: Path) -> dict[str, int]:
    """The bytes of each part: folders, databases, and objects by the first part of their keys."""
    found = {name: folder_bytes(data_dir / folder) for name, folder in FOLDERS.items()}
    postgres = settings.postgres
    with connect(postgres, "postgres") as connection, connection.cursor() as cursor:
        for name in (postgres.dagster_db, postgres.mlflow_db):
            cursor.execute("SELECT pg_database_size(%s)", (name,))
            found[f"database {name}"] = int((cursor.fetchone() or (0,))[0])
    for bucket in (settings.store.lake_bucket, settings.store.mlflow_bucket):
        with ObjectStore(settings.store, bucket) as store:
            by_folder: Counter[str] = Counter()
            for entry in store.entries(""):
                by_folder[entry.key.partition("/")[0] if bucket == settings.store.lake_bucket else ""] += (
                    entry.size_bytes
                )
        found |= {f"objects {bucket}/{folder}": size for folder, size in sorted(by_folder.items())}
    return found


def folder_bytes(folder: Path) -> int:
    """The sum of the sizes of all files below a folder; files may go while they are counted."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def limits(stack: Stack) -> list[Figure]:
    """Open files and memory maps of the servers that need many."""
    return [
        Figure(f"{usage.what} of {status.name}", float(usage.used), "", note=f"limit {usage.limit:,}")
        for status in stack.status(("questdb", "kafka"))
        for usage in usage_of(status.pid)
    ]
