"""Benchmarks of the API: its throughput alone, with reloads under load, and how much requests delay the stream.

What does not belong here: the clients (`load`), and the stream without requests (`servers`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np

from benchmarks.load import in_background
from benchmarks.registry import Figure, Plan, benchmark
from benchmarks.servers import RATE, SYMBOL, WARM_S, stack_for_now, watched_latency
from btc_core.clock import now_ns
from btc_core.errors import NotReady
from btc_core.features.catalogue import FEATURE_VERSION, MODEL_FEATURES
from btc_core.market.messages import ForecastRow
from btc_core.stores.redis_connection import connect
from btc_core.stores.redis_rows import forecast_fields, forecast_key, replace
from stack.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.settings import Settings

CLIENTS = 8
RELOADS = 20
BESIDE_PER_S = 200.0
"""Requests per second while the latency of the stream is measured."""
PATH = "/v1/forecast"


@benchmark("api", needs_servers=True)
def api_at_rest(plan: Plan) -> list[Figure]:
    """`/v1/forecast` with eight keep-alive clients: first while nothing else runs, then with reloads."""
    seconds = 3.0 if plan.quick else 15.0
    with stack_for_now() as stack:
        stack.up(only=("api",))
        settings = stack.settings
        address = (settings.api.host, settings.api.port)
        with fresh_forecasts(settings):
            in_background(address, PATH, CLIENTS, 2.0).result()  # the first requests are slower
            load = in_background(address, PATH, CLIENTS, seconds).result()
            alone = in_background(address, PATH, 1, seconds).result()
            running = in_background(address, PATH, CLIENTS, seconds)
            reload_often(settings, seconds)
            reloaded = running.result()
    naive = mlflow_serve(seconds)
    note = f"{CLIENTS} clients, {load.failed} failed"
    return [
        Figure(f"GET {PATH}", load.per_s, "req/s", 2_500, "higher", "mlflow models serve", naive[CLIENTS], note=note),
        Figure(f"GET {PATH}, p50", load.percentile_ms(50), "ms", note=note),
        Figure(f"GET {PATH}, p99", load.percentile_ms(99), "ms", 10.0, note=note),
        Figure(f"GET {PATH}, one client", alone.per_s, "req/s", None, "higher", "mlflow models serve", naive[1]),
        Figure(
            f"failed requests during {RELOADS} reloads", reloaded.failed, "requests", 0,
            note=f"{len(reloaded.latencies_ms)} requests",
        ),
    ]  # fmt: skip


@benchmark("api_beside_stream", needs_servers=True)
def api_beside_the_stream(plan: Plan) -> list[Figure]:
    """The latency of the stream at about 100 messages a second while the API answers 200 requests a second."""
    watch_s = 10.0 if plan.quick else 60.0
    with stack_for_now("--rate", str(RATE)) as stack:
        stack.up(only=("ingest", "bronze", "features", "forecast", "api"))
        settings = stack.settings
        wait_for_forecast(settings)
        time.sleep(WARM_S)
        running = in_background(
            (settings.api.host, settings.api.port), PATH, CLIENTS, watch_s + 20.0, per_s=BESIDE_PER_S
        )
        figures = watched_latency(settings, watch_s, (5.0, 20.0))
        load = running.result()
    beside = f"beside {load.per_s:.0f} req/s, {load.failed} failed"
    return [
        *(
            Figure(
                f"{one.name}, {BESIDE_PER_S:.0f} req/s beside",
                one.value,
                one.unit,
                one.target,
                note=f"{one.note}; {beside}",
            )
            for one in figures[:2]
        ),
        Figure(f"GET {PATH} beside the stream, p99", load.percentile_ms(99), "ms", note=beside),
    ]


@contextlib.contextmanager
def fresh_forecasts(settings: Settings) -> Iterator[None]:
    """Write a new forecast to Redis ten times a second, so that none is stale."""
    ended = threading.Event()
    client = connect(settings.redis)

    def write() -> None:
        while not ended.wait(0.1):
            row = forecast_now()
            replace(client, {forecast_key(SYMBOL): forecast_fields(row)}, settings.redis.ttl_s)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        time.sleep(0.5)
        yield
    finally:
        ended.set()
        thread.join()


def forecast_now() -> ForecastRow:
    """A forecast with the current time and arbitrary numbers."""
    now, path = now_ns(), [1.0, 2.0, 3.0, 4.0, 5.0]
    return ForecastRow(
        SYMBOL, now, now, 0, 1, 0, now, 60_000.0, [60_000.0 + step for step in path], path, path,
        "1", "xgboost", "1", "xgboost", FEATURE_VERSION,
    )  # fmt: skip


def reload_often(settings: Settings, seconds: float) -> None:
    """Reload the models `RELOADS` times, spread over most of `seconds`."""
    url = f"http://{settings.api.host}:{settings.api.port}/reload"
    for _ in range(RELOADS):
        httpx.post(url, headers={"Authorization": f"Bearer {settings.api.token.get_secret_value()}"}, timeout=30)
        time.sleep(seconds * 0.8 / RELOADS)


def wait_for_forecast(settings: Settings) -> None:
    """Return when the API serves a forecast; raises `NotReady` after three minutes."""
    deadline_s = time.monotonic() + 180.0
    url = f"http://{settings.api.host}:{settings.api.port}{PATH}"
    while httpx.get(url).status_code != httpx.codes.OK:
        if time.monotonic() > deadline_s:
            msg = "no forecast after 180 s"
            raise NotReady(msg)
        time.sleep(0.5)


def mlflow_serve(seconds: float) -> dict[int, float]:
    """Requests per second to `mlflow models serve` with five boosters of the served size, by number of clients."""
    with tempfile.TemporaryDirectory(prefix="btc-bench-") as name:
        folder = Path(name)
        subprocess.run(
            [sys.executable, "-m", "benchmarks.mlflow_model", str(folder / "model")], check=True, capture_output=True
        )
        port = free_ports()["mlflow"]
        command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(folder / "model"), "--env-manager", "local",
                   "--host", "127.0.0.1", "--port", str(port)]  # fmt: skip
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow looks for uvicorn there
        environment = {
            **os.environ,
            "PATH": path,
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
            "OMP_NUM_THREADS": "1",
        }
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for_url(f"{url}/ping", folder / "log")
            return {clients: posts_per_s(f"{url}/invocations", clients, seconds) for clients in (1, CLIENTS)}
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


def wait_for_url(url: str, log: Path) -> None:
    """Return when the URL answers 200; raises `NotReady` with the end of the log after two minutes."""
    deadline_s = time.monotonic() + 120.0
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, timeout=3).status_code == httpx.codes.OK:
                return
        if time.monotonic() > deadline_s:
            msg = f"mlflow models serve does not answer: {log.read_text()[-500:]}"
            raise NotReady(msg)
        time.sleep(0.5)


def posts_per_s(url: str, clients: int, seconds: float) -> float:
    """Requests per second of keep-alive clients, each request with one row."""
    row = np.zeros((1, len(MODEL_FEATURES))).tolist()
    counts = [0] * clients

    def ask(index: int) -> None:
        with httpx.Client(timeout=30) as client:
            end_s = time.perf_counter() + seconds
            while time.perf_counter() < end_s:
                client.post(url, json={"inputs": row}).raise_for_status()
                counts[index] += 1

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds
