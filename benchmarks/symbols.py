"""Benchmarks of many symbols: latency, and the processor time and memory of workers, servers and simulator.

What does not belong here: the throughput of one symbol (`servers`).
"""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import cost
from benchmarks.registry import Figure, Plan, benchmark
from benchmarks.servers import PATIENCE_S, WARM_S, WORKERS, forecasts_seen, latencies_ms, stack_for_now
from btc_core.errors import NotReady
from btc_core.stores.redis_connection import connect
from btc_core.stores.redis_rows import read_forecast
from exchange_simulator.pairs import PAIRS

if TYPE_CHECKING:
    from benchmarks.cost import Usage
    from btc_core.settings import Settings

SHAPES = {
    **{f"symbols_{markets}": (markets, 1.0, 1) for markets in (1, 2, 4, 8, 16, 64)},
    "symbols_1_busy": (1, 64.0, 1),
    **{f"symbols_{markets}_two_workers": (markets, 1.0, 2) for markets in (8, 64)},
}
"""By benchmark: number of symbols, factor on the simulator's usual ten messages per second and symbol, and number of features
workers. One symbol as busy as 64 separates the cost of a message from the cost of a symbol."""
WATCH_S = 60.0
SERVERS = ("kafka", "questdb", "valkey")


def of_markets(markets: int, rate: float, features_workers: int, _plan: Plan) -> list[Figure]:
    """One shape on a new stack: messages per second, latency over all symbols, processor time and memory."""
    chosen = tuple(PAIRS)[:markets]
    with stack_for_now("--rate", str(rate), "--ledger-mb", "0", symbols=chosen) as stack:
        stack.layout.set_features_workers(features_workers)
        workers = (*WORKERS, *(("features_2",) if features_workers > 1 else ()))
        stack.up(only=workers)
        wait_until_forecast(stack.settings)
        time.sleep(WARM_S)
        with cost.usage_of(stack, (*workers, *SERVERS, "exchange")) as usage:
            seen = forecasts_seen(stack.settings, WATCH_S)
        load, *_ = os.getloadavg()
        waited_ms, _ = latencies_ms(stack.settings, seen)
    median, late = np.percentile(waited_ms, (50, 99)).tolist()
    label = f"{markets} market{'s' * (markets > 1)}" + (f" at {rate:g} times its usual rate" if rate > 1 else "")
    label += f", {features_workers} features workers" if features_workers > 1 else ""
    return [
        Figure(
            f"{label}: quotes and trades",
            len(waited_ms) / WATCH_S,
            "msg/s",
            None,
            "higher",
            note=f"load average {load:.1f}",
        ),
        Figure(f"{label}: frame sent to forecast readable, p50", median, "ms"),
        Figure(f"{label}: frame sent to forecast readable, p99", late, "ms"),
        *(
            figure
            for who, names in (("workers", workers), ("servers", SERVERS), ("simulator", ("exchange",)))
            for figure in usage_figures(f"{label}: {who}", names, usage)
        ),
    ]


def wait_until_forecast(settings: Settings) -> None:
    """Return when every symbol has a forecast; raises `NotReady` after `PATIENCE_S`."""
    client = connect(settings.redis)
    begin_s = time.monotonic()
    while missing := [name for name in settings.exchange.symbols if read_forecast(client, name) is None]:
        if time.monotonic() - begin_s > PATIENCE_S:
            msg = f"there is no forecast of {', '.join(missing)} after {PATIENCE_S:.0f} s"
            raise NotReady(msg)
        time.sleep(0.5)


def usage_figures(label: str, names: tuple[str, ...], usage: Usage) -> list[Figure]:
    """Processor time and memory of several processes together; the note names each of them."""
    cores = {name: 100 * usage.cores_of[name] for name in names}
    memory_mb = {name: usage.memory_mb[name] for name in names}
    return [
        Figure(
            label, sum(values.values()), unit, note=", ".join(f"{name} {value:.0f}" for name, value in values.items())
        )
        for values, unit in ((cores, "% of a core"), (memory_mb, "MB"))
    ]


for _name, _shape in SHAPES.items():
    benchmark(_name, needs_servers=True)(partial(of_markets, *_shape))
