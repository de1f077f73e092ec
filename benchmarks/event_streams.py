"""Benchmark of `/v1/stream`: how long an update takes to reach every one of many clients.

What does not belong here: the content of an event, and requests (`serving`).
"""

from __future__ import annotations

import multiprocessing
import selectors
import socket
import time
from typing import TYPE_CHECKING

import numpy as np
import psutil

from benchmarks.registry import Figure, Plan, benchmark
from benchmarks.servers import SYMBOL, stack_for_now
from benchmarks.serving import forecast_now, wait_for_forecast
from btc_core.stores.redis_connection import connect
from btc_core.stores.redis_rows import forecast_fields, forecast_key, replace

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from btc_core.settings import Settings

CLIENTS = 500
UPDATES = 40
UPDATE_S = 0.5
"""Longer than the least time between two events of a stream."""
WARM_S = 3.0
WITHIN_MS = 50.0
MB = 1_000_000


@benchmark("event-streams", needs_servers=True)
def event_streams(plan: Plan) -> list[Figure]:
    """Publish forecasts, and measure when the last of `CLIENTS` event streams has each of them."""
    with stack_for_now() as stack:
        stack.up(only=("api",))
        settings = stack.settings
        (status,) = stack.status(("api",))
        process = psutil.Process(status.pid)
        publish(settings)
        wait_for_forecast(settings)
        delays_ms, used_s = watched(settings, process, plan.size(UPDATES))
        memory_mb = process.memory_full_info().pss / MB
    note = f"{CLIENTS} clients, {len(delays_ms)} updates"
    return [
        Figure(
            "an update reaches the last event stream, p50",
            float(np.percentile(delays_ms, 50)),
            "ms",
            WITHIN_MS,
            note=note,
        ),
        Figure("an update reaches the last event stream, p95", float(np.percentile(delays_ms, 95)), "ms", note=note),
        Figure("processor time of the API for an update", 1e3 * used_s / len(delays_ms), "ms", note=note),
        Figure("memory of the API with open event streams", memory_mb, "MB", note=note),
    ]


def publish(settings: Settings) -> int:
    """Write a forecast as the forecast worker does and announce it; returns its time in ns."""
    row = forecast_now()
    with connect(settings.redis) as client:
        replace(client, {forecast_key(SYMBOL): forecast_fields(row)}, settings.redis.ttl_s)
    return int(row.ts_event_ns)


def watched(settings: Settings, process: psutil.Process, updates: int) -> tuple[list[float], float]:
    """The delay of each update at the last client, ms, and the processor time of the API meanwhile, s."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    clients = context.Process(target=_clients, args=(theirs, settings.api.host, settings.api.port))
    clients.start()
    ours.recv()  # all streams are open
    time.sleep(WARM_S)
    delays_ms = []
    before = process.cpu_times()
    for _ in range(updates):
        began_s = time.monotonic()
        ours.send(publish(settings))
        delays_ms.append(1e3 * (ours.recv() - began_s))
        time.sleep(max(0.0, began_s + UPDATE_S - time.monotonic()))
    after = process.cpu_times()
    ours.send(None)
    clients.join()
    return delays_ms, after.user + after.system - before.user - before.system


def _clients(parent: Connection, host: str, port: int) -> None:
    """Open streams, and answer each time of a forecast with the moment at which every stream has had it."""
    selector = selectors.DefaultSelector()
    for _ in range(CLIENTS):
        client = socket.create_connection((host, port), timeout=60)
        client.sendall(f"GET /v1/stream HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        client.recv(12)
        client.setblocking(False)
        selector.register(client, selectors.EVENT_READ, bytearray())
    parent.send(None)
    selector.register(parent, selectors.EVENT_READ)
    wanted, waiting = b"", 0
    while True:
        for key, _ in selector.select():
            if key.data is None:
                made_ns = parent.recv()
                if made_ns is None:
                    return
                wanted, waiting = text_of(made_ns), CLIENTS
                continue
            key.data.extend(key.fileobj.recv(1_000_000))  # type: ignore[union-attr]
            if waiting and wanted in key.data:
                key.data.clear()
                waiting -= 1
                if not waiting:
                    parent.send(time.monotonic())
            elif len(key.data) > 100_000:
                del key.data[:-20_000]


def text_of(made_ns: int) -> bytes:
    """A time as an event has it."""
    seconds, rest = divmod(made_ns, 1_000_000_000)
    return f'"ts_event":"{time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))}.{rest // 1_000:06d}'.encode()
