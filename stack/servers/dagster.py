"""Dagster: one code server, the webserver and the daemon; they share the code server, so our code is loaded once.

Its instance settings are `dagster.yaml` beside this file; here they are only put where Dagster looks for them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import httpx

from btc_core.clock import NS_PER_S, now_ns
from btc_core.errors import ServiceError
from btc_core.names import CODE_LOCATION
from stack.component import Component, Context
from stack.layout import ROOT
from stack.ports import HOST, port_of

DAGSTER = ("dagster-code", "dagster-web", "dagster-daemon")
"""Our components, in the order in which they start."""
"""Name of the code location, the same as in `workspace.yaml` and `btc_core/stores/dagster.py`."""
DEFINITIONS = "btc_assets.definitions"
CODE_SERVER_THREADS = 4
"""Sensors, schedules and UI queries at the same time; each is short."""
HEARTBEAT_AGE = "select extract(epoch from now() at time zone 'utc' - max(timestamp)) from daemon_heartbeats"
HEARTBEAT_MAX_AGE_S = 120
"""The daemon writes one every 30 s."""


def components(context: Context) -> tuple[Component, ...]:
    """The code server, the webserver and the daemon."""
    return (_code(context), _webserver(context), _daemon(context))


def _home(context: Context) -> Path:
    return context.dir("dagster")


def _before(context: Context) -> None:
    home = _home(context)
    home.mkdir(parents=True, exist_ok=True)
    (home / "dagster.yaml").write_text(Path(__file__).with_name("dagster.yaml").read_text())
    # JSON is YAML, and quotes paths with any characters in them.
    (home / "workspace.yaml").write_text(
        f'load_from:\n  - grpc_server:\n      socket: "{context.layout.code_socket}"\n      location_name: {CODE_LOCATION}\n'
    )


def _environment(context: Context) -> dict[str, str]:
    settings = context.settings
    return {
        "DAGSTER_HOME": str(_home(context)),
        "BTC_POSTGRES_HOST": settings.postgres.host,
        "BTC_POSTGRES_PORT": str(settings.postgres.port),
        "BTC_POSTGRES_USER": settings.postgres.user,
        "BTC_POSTGRES_PASSWORD": settings.postgres.password.get_secret_value(),
        "BTC_POSTGRES_DAGSTER_DB": settings.postgres.dagster_db,
        "DAGSTER_DISABLE_TELEMETRY": "yes",
    }


def _code(context: Context) -> Component:
    def before() -> None:
        _before(context)
        context.layout.code_socket.unlink(missing_ok=True)

    def check() -> None:
        import grpc  # type: ignore[import-untyped]  # noqa: PLC0415 - slow imports
        from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # noqa: PLC0415

        with grpc.insecure_channel(f"unix:{context.layout.code_socket}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = stub.Check(health_pb2.HealthCheckRequest(service="DagsterApi"), timeout=3)
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
            *("--socket", str(context.layout.code_socket)),
            *("--working-directory", str(ROOT)),
            *("--max-workers", str(CODE_SERVER_THREADS)),
            *("--log-level", "warning"),
        ),
        env=_environment(context),
        after=("postgres",),
        check=check,
        before=before,
        start_timeout_s=120,
    )


def _webserver(context: Context) -> Component:
    url = context.settings.dagster.url

    def check() -> None:
        httpx.get(f"{url}/server_info", timeout=5).raise_for_status()

    return Component(
        name="dagster-web",
        title="Dagster UI, lineage and runs",
        command=(
            sys.executable,
            *("-m", "dagster_webserver"),
            *("--host", HOST, "--port", str(port_of(url))),
            *("--workspace", str(_home(context) / "workspace.yaml")),
            *("--log-level", "warning", "--dagster-log-level", "warning"),
        ),
        env=_environment(context),
        after=("postgres", "dagster-code"),
        ports=(port_of(url),),
        url=url,
        check=check,
        start_timeout_s=120,
    )


def _daemon(context: Context) -> Component:
    started_s = 0.0

    def before() -> None:
        nonlocal started_s
        started_s = now_ns() / NS_PER_S

    def check() -> None:
        age_s = _heartbeat_age_s(context)
        # A heartbeat of before the start is that of the process before.
        if age_s is None or age_s > HEARTBEAT_MAX_AGE_S or now_ns() / NS_PER_S - age_s < started_s:
            msg = (
                "no heartbeat of the Dagster daemon yet"
                if age_s is None
                else f"its last heartbeat is {age_s:.0f} s old"
            )
            raise ServiceError(msg)

    return Component(
        name="dagster-daemon",
        title="Dagster daemon, schedules and sensors",
        command=(
            sys.executable,
            *("-m", "dagster._daemon", "run"),
            *("--workspace", str(_home(context) / "workspace.yaml")),
            *("--log-level", "warning"),
        ),
        env=_environment(context),
        after=("postgres", "dagster-code"),
        check=check,
        before=before,
        start_timeout_s=120,
    )


def _heartbeat_age_s(context: Context) -> float | None:
    import psycopg2  # noqa: PLC0415 - slow import

    settings = context.settings.postgres
    connection = psycopg2.connect(
        host=settings.host,
        port=settings.port,
        user=settings.user,
        password=settings.password.get_secret_value(),
        dbname=settings.dagster_db,
        connect_timeout=3,
    )
    try:
        with connection.cursor() as cursor:
            cursor.execute(HEARTBEAT_AGE)
            (age_s,) = cursor.fetchone() or (None,)
    finally:
        connection.close()
    return None if age_s is None else float(age_s)
