"""Reads the metrics of the workers and keeps those of the last quarter of an hour, because rates need two samples.

What does not belong here: what a metric means (`btc_core.metrics`), and when one is bad (`alert_rules`).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import httpx
import msgspec
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Metric

TIMEOUT_S = 2.0
"""A worker on the same machine answers within milliseconds."""
KEPT_S = 15 * 60.0
"""The longest window of an alert that is judged here."""
OWN = "api"
"""The name of this process, whose metrics need no request."""
_OTHERS = frozenset({"process_resident_memory_bytes", "process_start_time_seconds"})
_HISTOGRAM = "btc_stage_latency_seconds"
"""The only histogram that is read: buckets are most of the lines."""

Labels = tuple[tuple[str, str], ...]
Samples = dict[tuple[str, Labels], float]
"""Values by name and labels, the labels in the order of their names."""


class Reading(msgspec.Struct, frozen=True):
    """The samples of one process at one monotonic time."""

    at_s: float
    samples: Samples


class Series(msgspec.Struct, frozen=True):
    """A value with its labels, and the process that exports it."""

    process: str
    labels: dict[str, str]
    value: float


def peers(text: str) -> dict[str, str]:
    """Addresses by name, from the setting.

    >>> peers("ingest=127.0.0.1:9101,bronze=127.0.0.1:9102")
    {'ingest': 'http://127.0.0.1:9101/metrics', 'bronze': 'http://127.0.0.1:9102/metrics'}
    """
    pairs = (each.strip().partition("=") for each in text.split(",") if each.strip())
    return {name: f"http://{address}/metrics" for name, _, address in pairs}


class WorkerMetrics:
    """The metrics of all processes, as they were read last and up to fifteen minutes ago."""

    def __init__(self, addresses: dict[str, str]) -> None:
        self.addresses = addresses
        self.problems: dict[str, str] = {}
        self._client = httpx.Client(timeout=TIMEOUT_S)
        self._readings: dict[str, deque[Reading]] = {name: deque() for name in (*addresses, OWN)}

    def read_own(self, now_s: float) -> None:
        """Read the metrics of this process."""
        self._add(OWN, Reading(now_s, samples_of(REGISTRY.collect())))

    def read_workers(self, now_s: float) -> None:
        """Read every other process once. One that does not answer has a problem and keeps its old readings."""
        for name, url in self.addresses.items():
            try:
                text = self._client.get(url).raise_for_status().text
            except httpx.HTTPError as error:
                self.problems[name] = f"{name} does not answer at {url} ({type(error).__name__})"
                continue
            self.problems.pop(name, None)
            self._add(name, Reading(now_s, samples_of(text_string_to_metric_families(text))))

    def _add(self, name: str, reading: Reading) -> None:
        readings = self._readings[name]
        readings.append(reading)
        while reading.at_s - readings[0].at_s > KEPT_S:
            readings.popleft()

    def now(self, metric: str) -> list[Series]:
        """The current values of a metric in the processes that answer."""
        return [
            Series(process, dict(labels), value)
            for process, readings in self._readings.items()
            if readings and process not in self.problems
            for (name, labels), value in readings[-1].samples.items()
            if name == metric
        ]

    def growth(self, metric: str, window_s: float) -> list[Series]:
        """How much a counter grew in a window, or since the first reading if that is younger.

        A series that appeared within the window began at zero, and a smaller value says that the process was started again.
        """
        grown = []
        for process, readings in self._readings.items():
            if len(readings) < 2:
                continue
            newest = readings[-1]
            oldest = next((each for each in readings if newest.at_s - each.at_s <= window_s), newest)
            for (name, labels), value in newest.samples.items():
                if name == metric:
                    before = oldest.samples.get((name, labels), 0.0)
                    grown.append(Series(process, dict(labels), value - before if value >= before else value))
        return grown

    def span_s(self, process: str, window_s: float) -> float:
        """The time that `growth` over a window really covers."""
        readings = self._readings[process]
        newest = readings[-1].at_s if readings else 0.0
        return max((newest - each.at_s for each in readings if newest - each.at_s <= window_s), default=0.0)


def samples_of(families: Iterable[Metric]) -> Samples:
    """The samples that somebody here uses."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): float(sample.value)
        for family in families
        if family.name in _OTHERS or family.name.startswith("btc_")
        for sample in family.samples
        if not sample.name.endswith("_created") and ("le" not in sample.labels or family.name == _HISTOGRAM)
    }


def quantile_s(buckets: dict[float, float], share: float) -> float | None:
    """A quantile of a histogram, from cumulative counts by upper bound: the bound that contains it, interpolated.

    >>> quantile_s({0.01: 50.0, 0.02: 100.0}, 0.75)
    0.015
    """
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0.0
    if total <= 0.0:
        return None
    low, below = 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= share * total:
            if bound == float("inf"):
                return low
            return round(low + (bound - low) * (share * total - below) / (buckets[bound] - below), 9)
        low, below = bound, buckets[bound]
    return low
