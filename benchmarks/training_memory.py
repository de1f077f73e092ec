"""The memory of a training from stored rows: as many days as a training reads, as minute bars in QuestDB and closing rows on the object store.

What does not belong here: how long a training takes for other numbers of markets (docs/scaling.md).
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.models import minutes
from benchmarks.registry import Figure, Plan, benchmark
from benchmarks.servers import SYMBOL, stack_for_now
from btc_core.clock import NS_PER_DAY, NS_PER_MIN
from btc_core.days.closing_rows import closes_key
from btc_core.days.lake import Manifest, manifest_key
from btc_core.errors import ServiceError
from btc_core.features.bar_features import bar_feature_chunks
from btc_core.features.catalogue import FEATURE_VERSION, MODEL_FEATURES, model_matrix
from btc_core.settings import ModelSettings
from btc_core.stores.newest_rows import MINUTE_END
from btc_core.stores.questdb import QuestDB, append, wait_until_applied
from btc_core.stores.s3 import ObjectStore
from btc_core.tables.catalogue import MINUTE_BARS, SILVER_FEATURES
from btc_core.tables.rows import minute_bars
from btc_core.tables.schema import ensure_tables
from btc_core.utc_day import day_of

if TYPE_CHECKING:
    from typing import Any

    import numpy.typing as npt

    from btc_core.settings import Settings

DAYS = ModelSettings.model_fields["train_days"].default
WRITE_BARS = 50_000
_CHILD = """
import json, resource, sys
from btc_assets import training
from btc_core.days.training_rows import read_training_rows
from btc_core.settings import settings
from btc_core.stores.questdb import QuestDB
from btc_core.stores.s3 import ObjectStore

def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

chosen, days, found = settings(), float(sys.argv[2]), {"start": peak_mb()}
with QuestDB(chosen.questdb) as db, ObjectStore(chosen.store) as store:
    rows = read_training_rows(db, store, sys.argv[1], days)
found["read"] = peak_mb()
frame = rows.frame()
found |= {"frame": peak_mb(), "rows": len(frame.origin_ns), "streamed": int(frame.is_streamed.sum())}
del rows
training.train_volatility(frame)
found["trained"] = peak_mb()
print(json.dumps(found))
"""
"""A training of the volatility as Dagster does it, in a process of its own, and the peaks of its memory in MB."""


@benchmark("training-memory", needs_servers=True)
def training_memory(plan: Plan) -> list[Figure]:
    """Fill a stack with days, train in another process, and report the highest resident memory of that process."""
    days = plan.size(DAYS)
    with stack_for_now() as stack:
        stack.up(only=("questdb", "store"))
        fill(stack.settings, days)
        environment = os.environ | stack.layout.environment() | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, SYMBOL, str(days + 1)],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
    if done.returncode:
        raise ServiceError(f"the training failed: {done.stderr[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    note = f"{found['rows']} rows, {found['streamed']} of them with the features of the stream"
    return [
        Figure(f"memory after reading {days} days of bars and closing rows, peak", found["read"], "MB", note=note),
        Figure("memory after making features and labels, peak", found["frame"], "MB", note=note),
        Figure("memory after the fits that judge and serve, peak", found["trained"], "MB", 1_500.0, note=note),
    ]


def fill(settings: Settings, days: int) -> None:
    """Write bars to QuestDB, and for each day what is kept of the closes of its copy to the object store."""
    bars = minutes(days)
    bars["ts_ns"] += -int(bars["ts_ns"][0]) % NS_PER_DAY  # whole days
    with QuestDB(settings.questdb) as db, ObjectStore(settings.store) as store:
        ensure_tables(db)
        for begin in range(0, len(bars), WRITE_BARS):
            append(db, MINUTE_BARS, minute_bars(bars[begin : begin + WRITE_BARS], SYMBOL, "file"))
        waiting: list[npt.NDArray[np.float64]] = []
        written = 0
        for block in bar_feature_chunks(bars):
            waiting.append(model_matrix(block))
            rows = np.concatenate(waiting)
            for begin in range(0, len(rows) - 1439, 1440):
                keep_closes(store, int(bars["ts_ns"][written]), rows[begin : begin + 1440])
                written += 1440
            waiting = [rows[len(rows) // 1440 * 1440 :]]
        wait_until_applied(db, MINUTE_BARS.name)


def keep_closes(store: ObjectStore, begin_ns: int, matrix: npt.NDArray[np.float64]) -> None:
    """The manifest of a copy of a day, and the rows at its closes; the copy itself is not read when these are there."""
    day = day_of(begin_ns)
    manifest = Manifest(
        table=SILVER_FEATURES.name, day=day, key="", rows=0, size_bytes=0, sha256="", content_sha256=day, columns=(),
        feature_version=FEATURE_VERSION, seal="made-up", written_at_ns=0,
    )  # fmt: skip
    ends = pa.array(begin_ns + np.arange(1, 1441) * NS_PER_MIN, pa.timestamp("ns"))
    known = np.nan_to_num(matrix, nan=0.5)  # the features that bars lack have values on a sealed day
    columns = {name: np.ascontiguousarray(known[:, place]) for place, name in enumerate(MODEL_FEATURES)}
    sink = io.BytesIO()
    pq.write_table(pa.table({MINUTE_END: ends, **columns}), sink, compression="zstd")
    store.put(closes_key(manifest, SYMBOL), sink.getvalue())
    store.put(manifest_key(SILVER_FEATURES.name, day), msgspec.json.encode(manifest))
