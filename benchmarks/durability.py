"""What it costs that an acknowledged write is on the disk and not only in the page cache, in Kafka and in QuestDB.

What does not belong here: what survives a loss of power (`tests/faults/test_power_loss.py`).
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Literal

import httpx
import msgspec
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import cost
from benchmarks.pure import frames, market
from benchmarks.registry import Figure, Plan, benchmark
from benchmarks.servers import (
    WARM_S,
    WORKERS,
    forecasts_seen,
    latencies_ms,
    received_now,
    seconds_to_commit,
    stack_for_now,
)
from btc_core.clock import now_ns
from btc_core.names import PREDICTIONS_TOPIC
from stack.layout import DURABILITY_MODES, Durability
from streaming.publisher import Publisher

if TYPE_CHECKING:
    from btc_core.settings import Settings
    from stack.runtime import Stack

SERVERS = ("kafka", "questdb")
WATCH_S = 60.0


class Cost(msgspec.Struct, frozen=True):
    """What one mode costs."""

    messages_per_s: float
    latency_p50_ms: float
    latency_p99_ms: float
    write_ms: float
    acknowledgement_ms: float
    cores_pct: float
    """Processor time of Kafka and QuestDB, % of a core."""


@benchmark("durability", needs_servers=True)
def durability(plan: Plan) -> list[Figure]:
    """Latency, throughput and processor time with each mode of `BTC_STACK_DURABILITY`, in the same run."""
    cached, synced = (_cost(plan, mode) for mode in DURABILITY_MODES)

    def figure(name: str, field: str, unit: str, better: Literal["lower", "higher"] = "lower") -> Figure:
        values = getattr(synced, field), getattr(cached, field)
        return Figure(f"{name}, fsync", values[0], unit, None, better, "page cache", values[1])

    return [
        figure("frame sent to forecast readable, p50", "latency_p50_ms", "ms"),
        figure("frame sent to forecast readable, p99", "latency_p99_ms", "ms"),
        figure("one write to silver_features acknowledged by QuestDB, mean", "write_ms", "ms"),
        figure("one message acknowledged by Kafka, p50", "acknowledgement_ms", "ms"),
        figure("Kafka and QuestDB at 800 msg/s", "cores_pct", "% of a core"),
        figure("Kafka to silver, Redis and features topic", "messages_per_s", "msg/s", "higher"),
    ]


def _cost(plan: Plan, mode: Durability) -> Cost:
    messages_per_s = _throughput(plan, mode)
    with stack_for_now("--rate", "100") as stack:
        stack.layout.set_durability(mode)
        stack.up(only=WORKERS)
        time.sleep(WARM_S)
        before = _writes(stack)
        with cost.usage_of(stack, SERVERS) as usage:
            waited_ms, _received_ms = latencies_ms(stack.settings, forecasts_seen(stack.settings, WATCH_S))
        writes, seconds = (after - early for after, early in zip(_writes(stack), before, strict=True))
        p50_ms, p99_ms = np.percentile(waited_ms, (50, 99)).tolist()
        acknowledgement_s = _acknowledgement_s(stack.settings, plan.size(500))
    return Cost(messages_per_s, p50_ms, p99_ms, 1_000 * seconds / writes, 1_000 * acknowledgement_s, 100 * usage.cores)


def _throughput(plan: Plan, mode: Durability) -> float:
    """Messages per second, median of three rounds after one that warms up."""
    envelopes = received_now(frames(market(plan.size(200_000), 100.0)))
    with stack_for_now() as stack:
        stack.layout.set_durability(mode)
        stack.up(only=("features",))
        parts = [[envelopes[i] for i in part] for part in np.array_split(np.arange(len(envelopes)), 4)]
        rates = [len(part) / seconds_to_commit(stack.settings, part) for part in parts]
    return statistics.median(rates[1:])


def _writes(stack: Stack) -> tuple[float, float]:
    """Writes of the features worker to silver_features, and the seconds that they took."""
    (status,) = stack.status(("features",))
    samples = {
        sample.name: sample.value
        for family in text_string_to_metric_families(httpx.get(status.url, timeout=10).text)
        for sample in family.samples
        if sample.labels.get("table") == "silver_features"
    }
    return samples["btc_write_seconds_count"], samples["btc_write_seconds_sum"]


def _acknowledgement_s(settings: Settings, messages: int) -> float:
    """Median time until a single message of 500 bytes is acknowledged, s."""
    publisher = Publisher(settings.kafka, "bench")
    times = []
    for _ in range(messages):
        begin_s = time.perf_counter()
        publisher.publish(PREDICTIONS_TOPIC, "BENCH/USD", bytes(500), now_ns())
        publisher.flush()
        times.append(time.perf_counter() - begin_s)
    return statistics.median(times)
