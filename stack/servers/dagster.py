"""Dagster: a code server that loads our assets once, and the webserver and the daemon, which both use it.

The instance settings are in `dagster.yaml` beside this file; this module copies them to where Dagster looks for them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import grpc  # type: ignore[import-untyped]
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from btc_core.clock import NS_PER_S, now_ns
from btc_core.errors import ServiceError
from btc_core.names import CODE_LOCATION
from stack.component import Component, Context
from stack.health_checks import http_check
from stack.layout import ROOT
from stack.ports import HOST, port_of
from stack.postgres_connection import connect

COMPONENT_NAMES = ("dagster-code", "dagster-web", "dagster-daemon")
"""In the order in which they start."""
DEFINITIONS = "btc_assets.definitions"
CODE_SERVER_THREADS = 4
"""For sensors, schedules and queries of the UI, which are short."""
HEARTBEAT_AGE = "select extract(epoch from now() at time zone 'utc' - max(timestamp)) from daemon_heartbeats"
MAX_HEARTBEAT_AGE_S = 120
"""The daemon writes a heartbeat every 30 s."""
START_TIMEOUT_S = 120
RETRY_LOOK_S = 30
"""How often Dagster's daemon looks for failed runs to start again. Each search takes four statements; the default is 5 s."""
CODE_TIMEOUT_S = 300
"""How long the daemon waits for a sensor or a run to start; with the default of 60 s, a busy machine fails both."""


def components(context: Context) -> tuple[Component, ...]:
    """The code server, the webserver and the daemon."""
    return (_code_server(context), _webserver(context), _daemon(context))


def _home(context: Context) -> Path:
    return context.server_dir("dagster")


def _workspace(context: Context) -> Path:
    return _home(context) / "workspace.yaml"


def _write_configuration(context: Context) -> None:
    home = _home(context)
    home.mkdir(parents=True, exist_ok=True)
    (home / "dagster.yaml").write_text(Path(__file__).with_name("dagster.yaml").read_text())
    # The quotes are for paths with spaces.
    _workspace(context).write_text(
        f'load_from:\n  - grpc_server:\n      socket: "{context.layout.code_socket}"\n      location_name: {CODE_LOCATION}\n'
    )


def _environment(context: Context) -> dict[str, str]:
    postgres = context.settings.postgres
    return {
        "DAGSTER_HOME": str(_home(context)),
        "BTC_POSTGRES_HOST": postgres.host,
        "BTC_POSTGRES_PORT": str(postgres.port),
        "BTC_POSTGRES_USER": postgres.user,
        "BTC_POSTGRES_PASSWORD": postgres.password.get_secret_value(),
        "BTC_POSTGRES_DAGSTER_DB": postgres.dagster_db,
        **postgres.tls_environment,
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        "DAGSTER_GRPC_TIMEOUT_SECONDS": str(CODE_TIMEOUT_S),
        "DAGSTER_EVENT_LOG_CONSUMER_DAEMON_INTERVAL_SECONDS": str(RETRY_LOOK_S),
        "MALLOC_ARENA_MAX": "2",
    }


def _code_server(context: Context) -> Component:
    socket = context.layout.code_socket

    def before_start() -> None:
        _write_configuration(context)
        socket.unlink(missing_ok=True)

    def check() -> None:
        with grpc.insecure_channel(f"unix:{socket}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            try:
                answer = stub.Check(health_pb2.HealthCheckRequest(service="DagsterApi"), timeout=3)
            except grpc.RpcError as error:  # its text has many lines about the channel
                msg = f"the Dagster code server does not answer at {socket} ({error.code().name})"
                raise ServiceError(msg) from error
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            msg = "the Dagster code server is not serving"
            raise ServiceError(msg)

    return Component(
        name="dagster-code",
        title="Dagster code server, our assets",
        command=(
            sys.executable,
            *("-m", "dagster", "api", "grpc"),
            *("--module-name", DEFINITIONS, "--location-name", CODE_LOCATION),
            *("--socket", str(socket)),
            *("--working-directory", str(ROOT)),
            *("--max-workers", str(CODE_SERVER_THREADS)),
            *("--log-level", "warning"),
        ),
        env=_environment(context),
        waits_for=("postgres",),
        check=check,
        before_start=before_start,
        after_forecasts=True,
        start_timeout_s=START_TIMEOUT_S,
    )


def _webserver(context: Context) -> Component:
    url = context.settings.dagster.url
    return Component(
        name="dagster-web",
        title="Dagster UI, lineage and runs",
        command=(
            sys.executable,
            *("-m", "dagster_webserver"),
            *("--host", HOST, "--port", str(port_of(url))),
            *("--workspace", str(_workspace(context))),
            *("--log-level", "warning", "--dagster-log-level", "warning"),
        ),
        env=_environment(context),
        waits_for=("postgres", "dagster-code"),
        ports=(port_of(url),),
        url=url,
        check=http_check(f"{url}/server_info", "the Dagster webserver"),
        after_forecasts=True,
        start_timeout_s=START_TIMEOUT_S,
    )


def _daemon(context: Context) -> Component:
    started_s = 0.0

    def before_start() -> None:
        nonlocal started_s
        started_s = now_ns() / NS_PER_S

    def check() -> None:
        age_s = _heartbeat_age_s(context)
        if age_s is None or now_ns() / NS_PER_S - age_s < started_s:  # the last one is of the process before this one
            msg = "the Dagster daemon has written no heartbeat since its start"
            raise ServiceError(msg)
        if age_s > MAX_HEARTBEAT_AGE_S:
            msg = f"the last heartbeat of the Dagster daemon is {age_s:.0f} s old"
            raise ServiceError(msg)

    return Component(
        name="dagster-daemon",
        title="Dagster daemon, schedules and sensors",
        command=(
            sys.executable,
            *("-m", "dagster._daemon", "run"),
            *("--workspace", str(_workspace(context))),
            *("--log-level", "warning"),
        ),
        env=_environment(context),
        waits_for=("postgres", "dagster-code"),
        check=check,
        before_start=before_start,
        after_forecasts=True,
        start_timeout_s=START_TIMEOUT_S,
    )


def _heartbeat_age_s(context: Context) -> float | None:
    postgres = context.settings.postgres
    with connect(postgres, postgres.dagster_db) as connection, connection.cursor() as cursor:
        cursor.execute(HEARTBEAT_AGE)
        (age_s,) = cursor.fetchone() or (None,)
    return None if age_s is None else float(age_s)
