"""The peers pandas and polars on the same events in one batch: ten rolling columns over 5 s, 1 min and 5 min of time.

Run by `benchmarks.beside` in an environment of its own: `rolling.py EVENTS.npy` prints seconds as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import polars as pl

if TYPE_CHECKING:
    from collections.abc import Callable

WINDOWS = ("5s", "60s", "300s")


def by_pandas(events: np.ndarray) -> object:
    """Mean, largest and smallest mid over each window, and the sum of squared log returns over the longest."""
    mid = pd.Series(events["mid"], index=pd.to_datetime(events["ts_ns"]))
    squares = pd.Series(np.log(mid)).diff() ** 2
    columns = [getattr(mid.rolling(window), name)() for window in WINDOWS for name in ("mean", "max", "min")]
    return [*columns, squares.rolling(WINDOWS[-1]).sum()]


def by_polars(events: np.ndarray) -> object:
    """The same."""
    frame = pl.DataFrame({"ts": events["ts_ns"].astype("datetime64[ns]"), "mid": events["mid"]})
    frame = frame.with_columns(squares=pl.col("mid").log().diff() ** 2)
    rolled: list[Any] = []
    for window in WINDOWS:
        rolled += [
            pl.col("mid").rolling_mean_by("ts", window).alias(f"mean_{window}"),
            pl.col("mid").rolling_max_by("ts", window).alias(f"max_{window}"),
            pl.col("mid").rolling_min_by("ts", window).alias(f"min_{window}"),
        ]
    return frame.select(*rolled, pl.col("squares").rolling_sum_by("ts", WINDOWS[-1]))


def seconds(work: Callable[[np.ndarray], object], events: np.ndarray) -> float:
    """Median of three runs."""
    times = []
    for _ in range(3):
        begin_s = time.perf_counter()
        work(events)
        times.append(time.perf_counter() - begin_s)
    return sorted(times)[1]


if __name__ == "__main__":
    found = np.load(sys.argv[1])
    print(json.dumps({"pandas": seconds(by_pandas, found), "polars": seconds(by_polars, found)}))
