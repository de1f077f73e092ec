"""Reads the metrics of the workers and keeps those of the last quarter of an hour, because rates need two samples.

What does not belong here: what a metric means (`btc_core.metrics`), and when one is bad (`alert_rules`).
"""

from __future__ import annotations

import socket
from collections import defaultdict, deque
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import msgspec
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

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


def addresses_by_name(text: str) -> dict[str, str]:
    """Addresses by name, from a setting.

    >>> addresses_by_name("ingest=127.0.0.1:9101, dagster-code=/run/code.sock")
    {'ingest': '127.0.0.1:9101', 'dagster-code': '/run/code.sock'}
    """
    pairs = (each.strip().partition("=") for each in text.split(",") if each.strip())
    return {name: address for name, _, address in pairs}


def peers(text: str) -> dict[str, str]:
    """Where the metrics of each process are, by its name.

    >>> peers("ingest=127.0.0.1:9101,bronze=127.0.0.1:9102")
    {'ingest': 'http://127.0.0.1:9101/metrics', 'bronze': 'http://127.0.0.1:9102/metrics'}
    """
    return {name: f"http://{address}/metrics" for name, address in addresses_by_name(text).items()}


def _members(name: str, url: str) -> dict[str, str]:
    """The addresses of the processes behind a name: a service of Kubernetes has one for each pod."""
    parts = urlsplit(url)
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:  # the request says so, too
        found = []
    hosts = sorted({str(each[4][0]) for each in found})
    if len(hosts) < 2:
        return {name: url}
    return {f"{name} {host}": f"http://{host}:{parts.port}/metrics" for host in hosts}


class WorkerMetrics:
    """The metrics of all processes, as they were read last and up to fifteen minutes ago.

    `may_be_absent` says of a name whether nothing is wrong if its process does not answer.
    """

    def __init__(self, addresses: dict[str, str], may_be_absent: Callable[[str], bool] = lambda _name: False) -> None:
        self.addresses = addresses
        self.processes: tuple[str, ...] = tuple(addresses)
        """The processes that answered or should have: for a name with several addresses, one of each address."""
        self.problems: dict[str, str] = {}
        """By process, why it could not be read last."""
        self._may_be_absent = may_be_absent
        self._client = httpx.Client(timeout=TIMEOUT_S)
        self._readings: defaultdict[str, deque[Reading]] = defaultdict(deque)
        self._at_s = 0.0

    def close(self) -> None:
        """Close the connections to the workers; the next read opens them again."""
        self._client.close()
        self._client = httpx.Client(timeout=TIMEOUT_S)

    def read_own(self, now_s: float) -> None:
        """Read the metrics of this process."""
        self._add(OWN, Reading(now_s, samples_of(REGISTRY.collect())))

    def read_workers(self, now_s: float) -> None:
        """Read every other process once. One that does not answer has a problem and keeps its old readings."""
        processes, problems = [], {}
        for name, address in self.addresses.items():
            for process, url in _members(name, address).items():
                try:
                    text = self._client.get(url).raise_for_status().text
                except httpx.HTTPError as error:
                    if self._may_be_absent(name):
                        continue
                    problems[process] = f"{process} does not answer at {url} ({type(error).__name__})"
                else:
                    self._add(process, Reading(now_s, samples_of(text_string_to_metric_families(text))))
                processes.append(process)
        self.processes, self.problems = tuple(processes), problems
        for gone in self._readings.keys() - {OWN, *processes}:
            del self._readings[gone]

    def _add(self, process: str, reading: Reading) -> None:
        self._at_s = reading.at_s
        readings = self._readings[process]
        readings.append(reading)
        while reading.at_s - readings[0].at_s > KEPT_S:
            readings.popleft()

    def now(self, metric: str) -> list[Series]:
        """The current values of a metric in the processes that answer."""
        return [
            Series(process, dict(labels), value)
            for process, readings in self._readings.items()
            if process not in self.problems
            for (name, labels), value in readings[-1].samples.items()
            if name == metric
        ]

    def lowest(self, metric: str, window_s: float) -> list[Series]:
        """The lowest value in a window of each series that `now` has."""
        return [
            Series(
                each.process,
                each.labels,
                min(
                    reading.samples.get((metric, tuple(sorted(each.labels.items()))), each.value)
                    for reading in self._readings[each.process]
                    if self._at_s - reading.at_s <= window_s
                ),
            )
            for each in self.now(metric)
        ]

    def growth(self, metric: str, window_s: float) -> list[Series]:
        """How much a counter grew in a window, or since the first reading if that is younger.

        A series that appeared within the window began at zero, and a smaller value says that the process was started again.
        """
        grown = []
        for process, oldest, newest in self._spans(window_s):
            for (name, labels), value in newest.samples.items():
                if name == metric:
                    before = oldest.samples.get((name, labels), 0.0)
                    grown.append(Series(process, dict(labels), value - before if value >= before else value))
        return grown

    def _spans(self, window_s: float) -> Iterator[tuple[str, Reading, Reading]]:
        """The first and the last reading of each process in a window that ends with the last look.

        If looks take longer than the window, it holds one reading, and the one before counts: without it, every counter would
        seem to stand still. A process that does not answer is left out once the window holds fewer than two.
        """
        for process, readings in self._readings.items():
            inside = [each for each in readings if self._at_s - each.at_s <= window_s]
            if len(inside) < 2 and process not in self.problems:
                inside = list(readings)[-2:]
            if len(inside) >= 2:
                yield process, inside[0], inside[-1]

    def span_s(self, process: str, window_s: float) -> float:
        """The time that `growth` over a window really covers."""
        return next((last.at_s - first.at_s for name, first, last in self._spans(window_s) if name == process), 0.0)


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
