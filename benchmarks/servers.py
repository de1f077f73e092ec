"""Benchmarks of the stream on real servers: its throughput, and the latency from a frame to its forecast.

What does not belong here: the core alone (`pure`).
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from confluent_kafka import TopicPartition

from benchmarks import cost
from benchmarks.pure import frames, market
from benchmarks.registry import Figure, Plan, benchmark
from btc_core.clock import NS_PER_S, now_ns
from btc_core.errors import NotReady
from btc_core.features.engine import FeatureEngine
from btc_core.market.messages import Envelope, encode_envelope
from btc_core.names import EVENTS_TOPIC
from btc_core.stores.kafka import consumer, read_all
from btc_core.stores.redis_connection import connect
from btc_core.stores.redis_rows import forecast_key, update_channel
from stack.ports import free_ports
from stack.runtime import Stack
from streaming import features
from streaming.publisher import Publisher

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.settings import Settings

SYMBOL = "BTC/USD"
PATIENCE_S = 180.0
WORKERS = ("ingest", "bronze", "features", "forecast", "repair")
WARM_S = 60.0
"""Time from the start to the first measurement: until then the JVMs compile hot code, which takes two cores."""
RATE = 10.0
"""Speed of the simulator: ten times its usual market, about 100 messages per second."""


@contextmanager
def stack_for_now(*exchange_args: str, symbols: tuple[str, ...] = ()) -> Iterator[Stack]:
    """A new stack on free ports for the length of a block; its data is deleted afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="btc-bench-"))
    stack = Stack(directory)
    stack.create("sim", free_ports(), exchange_args, symbols)
    try:
        yield stack
    finally:
        stack.down()
        shutil.rmtree(directory, ignore_errors=True)
        shutil.rmtree(stack.layout.run_dir, ignore_errors=True)


@benchmark("stream", needs_servers=True)
def stream_throughput(plan: Plan) -> list[Figure]:
    """From frames in the log to their rows in silver, on the topic `features` and in Redis, all acknowledged."""
    envelopes = received_now(frames(market(plan.size(300_000), 100.0)))
    warm, *rounds = np.split(np.arange(len(envelopes)), [plan.size(at) for at in (100_000, 150_000, 200_000, 250_000)])
    with stack_for_now() as stack:
        stack.up(only=("features",))
        settings = stack.settings
        seconds_to_commit(settings, [envelopes[i] for i in warm])
        times = [len(part) / seconds_to_commit(settings, [envelopes[i] for i in part]) for part in rounds]
        slow = flush_each(settings, envelopes[: plan.size(1_000)])
    return [
        Figure(
            "Kafka to silver, Redis and features topic", statistics.median(times), "msg/s", 20_000, "higher",
            "a flush per message", slow,
        )
    ]  # fmt: skip


def received_now(envelopes: list[Envelope]) -> list[Envelope]:
    """The envelopes with the present time as their receive time, by which the log deletes old messages."""
    stamp_ns = now_ns()
    return [Envelope(stamp_ns, e.connection, e.sequence, e.channel, e.origin, e.raw) for e in envelopes]


def seconds_to_commit(settings: Settings, envelopes: list[Envelope]) -> float:
    """Seconds from publishing the first message until the features worker has committed the last one."""
    publisher = Publisher(settings.kafka, "bench")
    values = [encode_envelope(envelope) for envelope in envelopes]
    begin_s = time.perf_counter()
    for envelope, value in zip(envelopes, values, strict=True):
        publisher.publish(EVENTS_TOPIC, SYMBOL, value, envelope.ts_recv_ns)
    publisher.flush()
    wait_until_committed(settings, features.GROUP, EVENTS_TOPIC)
    return time.perf_counter() - begin_s


def wait_until_committed(settings: Settings, group: str, topic: str) -> None:
    """Return when a group has committed everything that its topic holds now; raises `NotReady` after `PATIENCE_S`."""
    watcher = consumer(settings.kafka, group)
    begin_s = time.monotonic()
    try:
        partitions = [TopicPartition(topic, number) for number in range(settings.kafka.partitions)]
        ends = [watcher.get_watermark_offsets(part, timeout=30)[1] for part in partitions]
        while True:
            committed = watcher.committed(partitions, timeout=30)
            if all(part.offset >= end for part, end in zip(committed, ends, strict=True) if end > 0):
                return
            if time.monotonic() - begin_s > PATIENCE_S:
                msg = f"{group} has not committed all of {topic} after {PATIENCE_S:.0f} s"
                raise NotReady(msg)
            time.sleep(0.01)
    finally:
        watcher.close()


def flush_each(settings: Settings, envelopes: list[Envelope]) -> float:
    """Messages per second of a worker that writes each row and waits for it, with the same servers and sinks."""
    sink, engine = features.FeatureSink(settings, None), FeatureEngine()
    begin_s = time.perf_counter()
    for offset, envelope in enumerate(envelopes):
        engine.push(envelope, 0, offset)
        rows = engine.flush()
        sink.publish(rows)
        sink.keep(rows)
        sink.drain()()
    return len(envelopes) / (time.perf_counter() - begin_s)


@benchmark("latency", needs_servers=True)
def latency(plan: Plan) -> list[Figure]:
    """From the exchange's time of a frame until a forecast made with it is readable in Redis; and the cost of the workers."""
    watch_s = 10.0 if plan.quick else 60.0
    if plan.data_dir is not None:
        return watched_latency(Stack(plan.data_dir).settings, watch_s, (5.0, 20.0))
    figures = []
    for rate, targets in ((RATE, (5.0, 20.0)), (10 * RATE, (None, 50.0))):
        with stack_for_now("--rate", str(rate)) as stack:
            stack.up(only=WORKERS)
            time.sleep(WARM_S)
            with cost.usage_of(stack, WORKERS) as usage:
                figures += watched_latency(stack.settings, watch_s, targets)
            if rate == RATE:
                figures += [
                    Figure("all workers at 100 msg/s", 100 * usage.cores, "% of a core", 50.0),
                    Figure("largest worker", max(usage.memory_mb.values()), "MB", 300.0, note=usage.largest),
                    *cost.restarts(stack, ("features", "forecast")),
                ]
    return figures


def watched_latency(settings: Settings, watch_s: float, targets: tuple[float | None, float]) -> list[Figure]:
    """Latency of a running stream over `watch_s` seconds; `targets` are those of its p50 and p99, ms."""
    waited_ms, received_ms = latencies_ms(settings, forecasts_seen(settings, watch_s))
    median, late = np.percentile(waited_ms, (50, 99)).tolist()
    first_median, first_late = np.percentile(received_ms, (50, 99)).tolist()
    note = f"{len(waited_ms) / watch_s:.0f} msg/s, {len(waited_ms)} frames"
    return [
        Figure("frame sent to forecast readable, p50", median, "ms", targets[0], note=note),
        Figure("frame sent to forecast readable, p99", late, "ms", targets[1], note=note),
        Figure("of which until ingest has the frame, p50", first_median, "ms"),
        Figure("of which until ingest has the frame, p99", first_late, "ms"),
    ]


def forecasts_seen(settings: Settings, watch_s: float) -> dict[str, list[tuple[int, int]]]:
    """By symbol, for each forecast: the event time of its newest data, and when it became readable (both ns, ascending).

    The first three seconds of an up-to-date stream do not count.
    """
    symbols = {update_channel(forecast_key(symbol)).encode(): symbol for symbol in settings.exchange.symbols}
    seen: dict[str, list[tuple[int, int]]] = {symbol: [] for symbol in settings.exchange.symbols}
    with connect(settings.redis).pubsub(ignore_subscribe_messages=True) as listener:  # type: ignore[no-untyped-call]
        listener.subscribe(*symbols)
        begin_s = time.monotonic()
        counting_s = None
        while counting_s is None or time.monotonic() < counting_s + watch_s:
            message = listener.get_message(timeout=1.0)
            at_ns = now_ns()
            if message is None:
                if counting_s is None and time.monotonic() - begin_s > PATIENCE_S:
                    msg = f"there is no forecast after {PATIENCE_S:.0f} s"
                    raise NotReady(msg)
                continue
            known_ns = int(message["data"])
            if at_ns - known_ns > NS_PER_S and time.monotonic() - begin_s < PATIENCE_S:
                continue  # the workers still have a backlog
            counting_s = counting_s or time.monotonic() + 3.0
            rows = seen[symbols[message["channel"]]]
            if time.monotonic() >= counting_s and (not rows or known_ns > rows[-1][0]):
                rows.append((known_ns, at_ns))
    return seen


def latencies_ms(settings: Settings, seen: dict[str, list[tuple[int, int]]]) -> np.ndarray:
    """Time in ms from each quote and trade until its forecast was readable, and until it was received, (2, n)."""
    engine = FeatureEngine()
    for envelope, partition, offset in read_all(settings.kafka):
        engine.push(envelope, partition, offset)
    waits = []
    for batch in engine.flush():
        known_ns, at_ns = np.array(seen.get(batch.symbol) or [(0, 0)]).T
        sent_ns, received_ns = np.array([(row.ts_event_ns, row.ts_recv_ns) for row in batch.ids]).T
        inside = (sent_ns > known_ns[0]) & (sent_ns <= known_ns[-1])
        readable_ns = at_ns[np.searchsorted(known_ns, sent_ns[inside])]
        waits.append(np.stack([readable_ns, received_ns[inside]]) - sent_ns[inside])
    return np.concatenate(waits, axis=1) / 1e6
