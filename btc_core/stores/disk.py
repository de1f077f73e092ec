"""The disk that holds the servers' data: how much is free, how long it lasts, and what is given up to make it last longer.

What does not belong here: leaving frames out (`streaming/disk_saver.py`), and stopping Kafka (`stack/disk_guard.py`).
"""

from __future__ import annotations

import math
import shutil
from collections import deque
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from btc_core.settings import DiskSettings

RECOVERY = 1.2
"""A step ends when the free space is this many times its bound, so that a disk at the bound does not switch every second."""
SAMPLE_S = 60.0
WINDOW_SAMPLES = 24 * 60
"""The rate is that of the last day: within a day, QuestDB drops sealed days and Kafka deletes old segments."""
MIN_WINDOW_S = 600.0
"""A shorter history gives no rate: a write-ahead log that is allocated or removed would look like a trend."""
S_PER_DAY = 86_400.0
GB = 1e9


class Saving(IntEnum):
    """What is given up while the disk fills, in this order. Trades are never left out."""

    NOTHING = 0
    BOOKS = 1
    """Order-book frames are left out."""
    QUOTES = 2
    """Each symbol keeps only the newest quote of every `quote_interval_s`, and the last quote before each trade."""
    LOG = 3
    """Kafka is stopped while it can still end in order, and frames wait in the memory of ingest."""


_WORDS = {
    Saving.BOOKS: "order books are not recorded",
    Saving.QUOTES: "order books are not recorded, and quotes only once a second",
    Saving.LOG: "Kafka is stopped, and new frames wait in memory",
}


def free_bytes(path: str | Path) -> int:
    """Bytes that processes may still write to the disk of a directory. Raises `OSError`."""
    return shutil.disk_usage(path).free


def saving(free: int, settings: DiskSettings, before: Saving = Saving.NOTHING) -> Saving:
    """What to give up with so many free bytes, when `before` was given up until now."""
    bounds = {
        Saving.LOG: settings.kafka_stops_below_bytes,
        Saving.QUOTES: settings.quotes_below_bytes,
        Saving.BOOKS: settings.books_below_bytes,
    }
    for step, bound in bounds.items():
        if free < bound * (RECOVERY if before >= step else 1.0):
            return step
    return Saving.NOTHING


def disk_problem(settings: DiskSettings) -> str:
    """What is given up because the watched disk is nearly full; "" when nothing is, or when no disk is watched."""
    if not settings.path:
        return ""
    try:
        free = free_bytes(settings.path)
    except OSError as error:
        return f"the disk of {settings.path} cannot be read: {error.strerror or error}"
    step = saving(free, settings)
    return f"only {free / GB:.2f} GB are free at {settings.path}: {_WORDS[step]}" if step else ""


class DiskTrend:
    """Free space over the last day, and how long it lasts at that rate."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque(maxlen=WINDOW_SAMPLES)

    def add(self, at_s: float, free: int) -> None:
        """Note the free bytes at a monotonic time; one sample a minute is kept."""
        if not self._samples or at_s - self._samples[-1][0] >= SAMPLE_S:
            self._samples.append((at_s, free))

    def days_left(self) -> float:
        """Days until the disk is full: infinite while it does not fill, NaN before `MIN_WINDOW_S`."""
        if not self._samples:
            return math.nan
        (first_s, first), (last_s, last) = self._samples[0], self._samples[-1]
        if last_s - first_s < MIN_WINDOW_S:
            return math.nan
        used_per_s = (first - last) / (last_s - first_s)
        return last / used_per_s / S_PER_DAY if used_per_s > 0 else math.inf
