"""Where the time from a frame to its forecast goes: the time of each hop, as consumers of the topics and of Redis see it.

What does not belong here: the whole time without consumers beside it (`servers`).
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from confluent_kafka import TopicPartition

from benchmarks.registry import Figure, Plan, benchmark
from benchmarks.servers import RATE, WARM_S, WORKERS, forecasts_seen, stack_for_now
from btc_core.clock import now_ns
from btc_core.errors import NotReady
from btc_core.market.messages import FeatureMessage
from btc_core.names import EVENTS_TOPIC, FEATURES_TOPIC
from btc_core.stores.kafka import ADMIN_TIMEOUT_S, reader_of
from stack.runtime import Stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.settings import Settings

HOPS = (
    "exchange to ingest",
    "ingest to a reader of market.events",
    "that reader to a reader of features",
    "that reader to a listener of Redis",
)
"""Readers and listener are those of this benchmark, so the times include the delivery to them."""
WATCH_S = 60.0
POLL_S = 0.01


class Arrivals(msgspec.Struct):
    """When messages reached a consumer, ns since the epoch."""

    events: dict[tuple[int, int], int]
    """By partition and offset of `market.events`."""
    rows: list[tuple[FeatureMessage, int]]
    """The rows of the topic `features`."""


@benchmark("hops", needs_servers=True)
def hops(plan: Plan) -> list[Figure]:
    """The time of each hop from a frame to its forecast, at 100 and at 1,000 messages per second of the simulator."""
    watch_s = WATCH_S / 6 if plan.quick else WATCH_S
    if plan.data_dir is not None:
        return figures_of(Stack(plan.data_dir).settings, watch_s)
    figures = []
    for rate in (RATE, 10 * RATE):
        with stack_for_now("--rate", str(rate)) as stack:
            stack.up(only=WORKERS)
            time.sleep(WARM_S)
            figures += figures_of(stack.settings, watch_s)
    return figures


def figures_of(settings: Settings, watch_s: float) -> list[Figure]:
    """The mean, p50 and p99 of each hop in a running stream."""
    arrivals, seen = watched(settings, watch_s)
    times = hop_times_ms(arrivals, seen)
    note = f"{len(times) / watch_s:.0f} rows/s, {len(times)} rows"
    figures = []
    for name, column in zip((*HOPS, "all of them"), (*times.T, times.sum(axis=1)), strict=True):
        median, late = np.percentile(column, (50, 99)).tolist()
        figures += [
            Figure(f"{name}: mean", float(column.mean()), "ms", note=note),
            Figure(f"{name}: p50", median, "ms"),
            Figure(f"{name}: p99", late, "ms"),
        ]
    return figures


def watched(settings: Settings, watch_s: float) -> tuple[Arrivals, dict[str, list[tuple[int, int]]]]:
    """What reached consumers of both topics, and the forecasts that became readable, as `forecasts_seen` returns them."""
    arrivals, finished = Arrivals({}, []), threading.Event()
    with ThreadPoolExecutor(1) as thread:
        watching = thread.submit(_consume, settings, arrivals, finished)
        try:
            seen = forecasts_seen(settings, watch_s)
        finally:
            finished.set()
        watching.result()
    if not arrivals.rows:
        raise NotReady("no feature row arrived while the benchmark watched")
    return arrivals, seen


def _consume(settings: Settings, arrivals: Arrivals, finished: threading.Event) -> None:
    decoder = msgspec.msgpack.Decoder(FeatureMessage)
    with reader_of(settings.kafka, "bench-hops") as reader:
        parts = [
            TopicPartition(topic, number)
            for topic in (EVENTS_TOPIC, FEATURES_TOPIC)
            for number in range(settings.kafka.partitions)
        ]
        for part in parts:
            part.offset = reader.get_watermark_offsets(part, timeout=ADMIN_TIMEOUT_S)[1]
        reader.assign(parts)
        while not finished.is_set():
            message = reader.poll(POLL_S)
            if message is None or message.error() is not None:
                continue
            at_ns = now_ns()
            if message.topic() == EVENTS_TOPIC:
                arrivals.events[message.partition() or 0, message.offset() or 0] = at_ns
            else:
                arrivals.rows.append((decoder.decode(message.value() or b""), at_ns))


def hop_times_ms(arrivals: Arrivals, seen: dict[str, list[tuple[int, int]]]) -> np.ndarray:
    """The time of each of `HOPS`, ms, in the shape (rows, hops).

    The last one ends when the row's own forecast or a later one was readable.
    """
    return np.array(list(_hop_times_ns(arrivals, seen)), dtype=np.float64).reshape(-1, len(HOPS)) / 1e6


def _hop_times_ns(arrivals: Arrivals, seen: dict[str, list[tuple[int, int]]]) -> Iterator[tuple[int, ...]]:
    forecasts = {symbol: np.array(rows).T for symbol, rows in seen.items() if rows}
    for row, row_ns in arrivals.rows:
        event_ns = arrivals.events.get((row.partition, row.offset))
        if event_ns is None or row.symbol not in forecasts:
            continue
        known_ns, readable_ns = forecasts[row.symbol]
        if not known_ns[0] < row.ts_event_ns <= known_ns[-1]:
            continue
        forecast_ns = int(readable_ns[np.searchsorted(known_ns, row.ts_event_ns)])
        yield (
            row.ts_recv_ns - row.ts_event_ns,
            event_ns - row.ts_recv_ns,
            row_ns - event_ns,
            forecast_ns - row_ns,
        )
