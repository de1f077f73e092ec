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
    """The directory of a running stack to measure on; if it is None, the benchmark starts one of its own."""

    @property
    def repeats(self) -> int:
        """How often each measurement is repeated; the median is reported."""
        return 3 if self.quick else 7

    def size(self, full: int) -> int:
        """`full`, a number of events or frames, or a fifth of it in a quick run."""
        return full // 5 if self.quick else full


class Figure(msgspec.Struct, frozen=True):
    """One measured number."""

    name: str
    value: float
    unit: str
    target: float | None = None
    better: Literal["lower", "higher"] = "lower"
    naive: str = ""
    """The usual, simple way to do the same step; empty if there is none to compare with."""
    naive_value: float | None = None
    """The number of the naive way, measured in the same run and unit."""
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None if there is no target."""
        if self.target is None:
            return None
        return self.value <= self.target if self.better == "lower" else self.value >= self.target

    @property
    def ratio(self) -> float | None:
        """How many times better than the naive way it is; None if that was not measured."""
        if self.naive_value is None:
            return None
        return self.naive_value / self.value if self.better == "lower" else self.value / self.naive_value


class Benchmark(msgspec.Struct, frozen=True):
    """A function that measures, and whether it needs servers."""

    name: str
    needs_servers: bool
    run: Callable[[Plan], list[Figure]]


BENCHMARKS: dict[str, Benchmark] = {}


def benchmark(
    name: str, *, needs_servers: bool = False
) -> Callable[[Callable[[Plan], list[Figure]]], Callable[[Plan], list[Figure]]]:
    """Register a function that measures under `name`."""

    def register(function: Callable[[Plan], list[Figure]]) -> Callable[[Plan], list[Figure]]:
        BENCHMARKS[name] = Benchmark(name, needs_servers, function)
        return function

    return register


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median duration of `work` in seconds, after one warm-up and without the garbage collector."""
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
