"""Our own programs: the exchange simulator, the stream workers, the API and the alerts."""

from __future__ import annotations

import sys
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING

from btc_core.errors import ServiceError
from btc_core.league.folder import entries_in
from btc_core.metrics import HEALTH_PATH
from btc_core.names import WorkerName, pair_of
from btc_core.stores.api_connection import api_client
from stack.component import STOP_WAIT_S, Component, Context, do_nothing
from stack.health_checks import get, http_check
from stack.layout import PERPETUAL, python_path
from stack.ports import HOST
from stack.setup_command import run_setup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from btc_core.exchange_settings import ExchangeSettings

WORKERS = {
    "ingest": ("Ingest, exchange to Kafka", ("kafka",)),
    "bronze": ("Bronze, Kafka to raw tables", ("kafka", "questdb")),
    "features": ("Features, Kafka to features", ("kafka", "questdb", "valkey")),
    "repair": ("Repair, missing trades from REST", ("kafka",)),
    # It does not wait for MLflow: without MLflow it forecasts with the last good model.
    "forecast": ("Forecast, features to forecasts", ("kafka", "questdb", "valkey")),
}
"""By name: what the worker does, and the components that must be healthy before it starts."""
LEAGUE = ("League, the user's own models in shadow", ("kafka", "questdb", "valkey"))
"""The worker that runs only if the user has models: a league without any would take memory for nothing."""

COMPILED = ("features", "forecast")
"""The workers that call numerical functions which numba compiles."""

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
}
"""The arrays of a worker are small: more threads would only take cores from the other processes, and more memory."""

COMPILE_TIMEOUT_S = 600.0
"""Compiling takes 15 s on two idle cores, and 75 s with a load of 6."""
_compiling = Lock()

ALERTS = Component(
    name="alerts",
    title="Alerts, to the log and the contacts",
    command=(sys.executable, "-m", "serving.alerts"),
    env=ONE_THREAD,
    waits_for=("api",),
)


def components(context: Context) -> tuple[Component, ...]:
    """The simulator (in sim mode only), the workers, the API and the alerts."""
    simulator = (_simulator(context),) if context.settings.simulated else ()
    simulator_names = tuple(component.name for component in simulator)
    workers = [
        _worker(context, name, title, waits_for + (simulator_names if name == "ingest" else ()))
        for name, (title, waits_for) in WORKERS.items()
    ]
    if context.features_workers > 1:
        workers.append(_worker(context, "features", *WORKERS["features"], instance=2))
    league = _worker(context, WorkerName.LEAGUE.value, *LEAGUE)
    # The API always knows the league's address: models are added and removed while it runs.
    api = _api(context, [*workers, league])
    if entries_in(context.settings.user_models):
        workers.append(league)
    return (*simulator, *workers, api, ALERTS)


def compile_functions() -> None:
    """Compile the numerical functions once for all programs that call them, unless they are compiled already."""
    _compile("btc_core.models.precompile")


def compile_proofs() -> None:
    """Compile the functions that read and hash the log, unless they are compiled already; raises `StackError`.

    No forecast needs them, and `btc verify` compiles them at its first call if that is before.
    """
    _compile("btc_core.days.precompile")


def _compile(module: str) -> None:
    with _compiling:
        _compile_once(module)


@cache
def _compile_once(module: str) -> None:
    command = (sys.executable, "-m", module)
    env = ONE_THREAD | {"PYTHONPATH": python_path()}
    run_setup(command, "compiling the numerical functions failed", env=env, timeout_s=COMPILE_TIMEOUT_S)


def _worker(context: Context, worker: str, title: str, waits_for: tuple[str, ...], instance: int = 1) -> Component:
    name = worker if instance == 1 else f"{worker}_{instance}"
    port = getattr(context.ports, f"{name}_metrics")
    url = f"http://{HOST}:{port}/metrics"

    def check() -> None:
        """The worker's loop must iterate: a process that hangs still answers with its metrics."""
        try:
            get(f"http://{HOST}:{port}{HEALTH_PATH}", name)
        except ServiceError as error:
            msg = f"{error}; `btc logs {name}` shows what it does"
            raise ServiceError(msg) from error

    return Component(
        name=name,
        title=title,
        command=(sys.executable, "-m", "streaming", worker),
        env=ONE_THREAD | {"BTC_METRICS_PORT": str(port), "BTC_STREAM_INSTANCE": str(instance)},
        waits_for=waits_for,
        ports=(port,),
        url=url,
        check=check,
        before_start=compile_functions if worker in COMPILED else do_nothing,
        stop_wait_s=STOP_WAIT_S,
    )


def _simulator(context: Context) -> Component:
    port = context.ports.exchange
    url = f"http://{HOST}:{port}"
    data_dir = context.server_dir("exchange")
    return Component(
        name="exchange",
        title="Exchange simulator",
        command=(
            *(sys.executable, "-m", "exchange_simulator"),
            *("--port", str(port), "--data-dir", str(data_dir)),
            *_simulated_markets(context.settings.exchange),
            *context.exchange_args,
        ),
        env=ONE_THREAD,
        ports=(port,),
        url=url,
        # Not a path of its REST API: in a simulated outage that refuses, and the process is healthy all the same.
        check=http_check(f"{url}/healthz", "the simulator"),
        before_start=lambda: data_dir.mkdir(parents=True, exist_ok=True),
    )


def _simulated_markets(exchange: ExchangeSettings) -> tuple[str, ...]:
    """The markets of the simulator: those of Kraken, and those of the perpetual."""
    spot, perpetual = (
        tuple(pair_of(symbol) for symbol in exchange.only(name).symbols) for name in ("kraken", PERPETUAL)
    )
    return (*(("--symbols", *spot) if spot else ()), *(("--perpetuals", *perpetual) if perpetual else ()))


def _api(context: Context, workers: Sequence[Component]) -> Component:
    settings = context.settings.api
    peers = ",".join(f"{worker.name}={HOST}:{worker.ports[0]}" for worker in workers)
    return Component(
        name="api",
        title="HTTP API",
        command=(sys.executable, "-m", "serving"),
        env=ONE_THREAD
        | {
            "BTC_METRICS_PEERS": peers,
            "BTC_METRICS_SERVERS": f"dagster-code={context.layout.code_socket}",
            "BTC_API_AUDIT_LOG": settings.audit_log or str(context.layout.log("audit")),
        },
        waits_for=("valkey",),
        ports=(settings.port,),
        url=settings.url,
        check=http_check(f"{settings.url}/healthz", "the API", client=lambda: api_client(settings)),
        before_start=compile_functions,
    )
