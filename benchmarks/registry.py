"""The registry of benchmarks, what they return, and how time is taken.

What does not belong here: what is measured.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec


class Plan(msgspec.Struct, frozen=True):
    """How much to measure."""

    quick: bool
    data_dir: Path | None = None
    """A running stack to measure on; None starts one for the time of the benchmark."""

    @property
    def repeats(self) -> int:
        """Of each measurement; the median counts."""
        return 3 if self.quick else 7

    def size(self, full: int) -> int:
        """A number of events or frames: a fifth when quick."""
        return full // 5 if self.quick else full


class Figure(msgspec.Struct, frozen=True):
    """One measured number."""

    name: str
    value: float
    unit: str
    target: float | None = None
    better: Literal["lower", "higher"] = "lower"
    naive: str = ""
    """What the naive way is; empty when there is none."""
    naive_value: float | None = None
    """The naive way's number, in the same unit and the same run."""
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        return self.value <= self.target if self.better == "lower" else self.value >= self.target

    @property
    def ratio(self) -> float | None:
        """How many times better than the naive way."""
        if self.naive_value is None:
            return None
        return self.naive_value / self.value if self.better == "lower" else self.value / self.naive_value


class Benchmark(msgspec.Struct, frozen=True):
    """One function and what it needs."""

    name: str
    needs_servers: bool
    run: Callable[[Plan], list[Figure]]


BENCHMARKS: dict[str, Benchmark] = {}


def benchmark(
    name: str, *, needs_servers: bool = False
) -> Callable[[Callable[[Plan], list[Figure]]], Callable[[Plan], list[Figure]]]:
    """Put a function into the registry under `name`."""

    def register(function: Callable[[Plan], list[Figure]]) -> Callable[[Plan], list[Figure]]:
        BENCHMARKS[name] = Benchmark(name, needs_servers, function)
        return function

    return register


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median wall-clock seconds of `work` after one run that does not count, without the garbage collector."""
    work()
    times = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(repeats):
            begin_s = time.perf_counter()
            work()
            times.append(time.perf_counter() - begin_s)
    finally:
        gc.enable()
    return statistics.median(times)
