"""Our own processes: the exchange simulator, the stream workers and the API."""

from __future__ import annotations

import sys
import time

import httpx
from prometheus_client.parser import text_string_to_metric_families

from btc_core.errors import ServiceError
from stack.component import Component, Context
from stack.ports import HOST

WORKERS = {
    "ingest": ("Ingest, exchange to Kafka", ("kafka",)),
    "bronze": ("Bronze, Kafka to raw tables", ("kafka", "questdb")),
    "features": ("Features, Kafka to features", ("kafka", "questdb", "valkey")),
    # Without MLflow forecasts go on with the last good model, so it does not wait for it.
    "repair": ("Repair, missing trades from REST", ("kafka",)),
    "forecast": ("Forecast, features to forecasts", ("kafka", "questdb", "valkey")),
}
"""Name, what it does, what must be healthy before it starts."""

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
}
"""A worker's arrays are small: more threads than one only take the cores of the others, and memory of their own."""


LOOP_DEADLINE_S = 60.0
"""Longest healthy turn: the compilation of the fold at a first start takes a third of it."""


def components(context: Context) -> tuple[Component, ...]:
    """The simulator (in sim mode only), the workers and the API."""
    simulated = (_exchange(context),) if context.settings.simulated else ()
    source = tuple(component.name for component in simulated)
    workers = [
        _worker(context, name, title, after + (source if name == "ingest" else ()))
        for name, (title, after) in WORKERS.items()
    ]
    if context.features_workers > 1:
        workers.append(_worker(context, "features", *WORKERS["features"], instance=2))
    return (*simulated, *workers, _api(context))


def _worker(context: Context, worker: str, title: str, after: tuple[str, ...], instance: int = 1) -> Component:
    name = worker if instance == 1 else f"{worker}_{instance}"
    port = getattr(context.ports, f"{name}_metrics")
    url = f"http://{HOST}:{port}/metrics"

    def check() -> None:
        """Its loop must turn: a process that hangs is not healthy because it runs."""
        turned_s = _loop_turned(httpx.get(url, timeout=3).raise_for_status().text)
        if time.time() - turned_s > LOOP_DEADLINE_S:
            msg = f"{name} has done nothing for {time.time() - turned_s:.0f} s; `btc logs {name}` says why"
            raise ServiceError(msg)

    return Component(
        name=name,
        title=title,
        command=(sys.executable, "-m", "streaming", worker),
        env=ONE_THREAD | {"BTC_METRICS_PORT": str(port), "BTC_STREAM_INSTANCE": str(instance)},
        after=after,
        ports=(port,),
        url=url,
        check=check,
    )


def _loop_turned(exposition: str) -> float:
    """When the loop of a worker last turned, seconds since the epoch, from its metrics; 0 before the first time."""
    for family in text_string_to_metric_families(exposition):
        if family.name == "btc_loop_timestamp_seconds" and family.samples:
            return float(family.samples[0].value)
    return 0.0


def _exchange(context: Context) -> Component:
    port = context.ports.exchange
    url = f"http://{HOST}:{port}"

    def check() -> None:
        # Not its REST: an outage that was asked for is no illness of the process.
        httpx.get(f"{url}/healthz", timeout=3).raise_for_status()

    return Component(
        name="exchange",
        title="Exchange simulator",
        command=(
            *(sys.executable, "-m", "exchange_simulator"),
            *("--port", str(port), "--data-dir", str(context.dir("exchange"))),
            *("--symbols", *context.settings.exchange.symbols),
            *context.exchange_args,
        ),
        env=ONE_THREAD,
        ports=(port,),
        url=url,
        check=check,
        before=lambda: context.dir("exchange").mkdir(parents=True, exist_ok=True),
    )


def _api(context: Context) -> Component:
    settings = context.settings.api
    url = f"http://{settings.host}:{settings.port}"

    def check() -> None:
        response = httpx.get(f"{url}/healthz", timeout=3)
        if response.status_code != httpx.codes.OK:
            msg = f"the API answers {response.status_code}"
            raise ServiceError(msg)

    return Component(
        name="api",
        title="HTTP API",
        command=(sys.executable, "-m", "serving"),
        env=ONE_THREAD,
        after=("valkey",),
        ports=(settings.port,),
        url=url,
        check=check,
    )
