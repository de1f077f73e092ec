"""Which servers answer: what the API asks, and what it says about them."""

from __future__ import annotations

import socket
from contextlib import closing
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import REGISTRY

from btc_core.clock import NS_PER_S
from btc_core.errors import ServiceError
from btc_core.metrics import SERVER_UP
from btc_core.service_settings import PostgresSettings
from btc_core.settings import MetricsSettings, Settings
from serving.metrics import START_S
from serving.server_watch import SSL_REQUEST, ServerWatch
from stack.all_components import all_components
from stack.component import Context
from stack.layout import Layout
from tests.serving_world import FakeClock

if TYPE_CHECKING:
    from pathlib import Path

SERVERS = {"questdb", "kafka", "valkey", "postgres", "store", "mlflow"}
OTHER_ALERTS = {
    "dagster-web": "DaemonDown", "dagster-daemon": "DaemonDown", "exchange": "FeedSilent",
    "ingest": "ProcessDown", "bronze": "ProcessDown", "features": "ProcessDown", "forecast": "ProcessDown",
    "repair": "ProcessDown", "api": "ProcessDown",
    "alerts": "BTC_ALERT_WATCHDOG_URL",  # nobody else could send a message about it
}  # fmt: skip
"""What tells people about each component that is no server."""


@pytest.fixture(autouse=True)
def _no_values() -> None:
    SERVER_UP.clear()


def _up(name: str) -> float | None:
    return REGISTRY.get_sample_value("btc_server_up", {"server": name})


def _watch(settings: Settings, clock: FakeClock, **checks: Any) -> ServerWatch:
    watch = ServerWatch(settings, clock)
    watch._checks = checks or watch._checks
    return watch


def test_a_server_is_down_once_it_has_answered_or_the_start_is_over(caplog: pytest.LogCaptureFixture) -> None:
    problems = {"late": "refused"}

    def late() -> None:
        if problems:
            raise ServiceError(problems["late"])

    clock = FakeClock()
    watch = _watch(Settings(), clock, late=late)
    watch.look()
    assert _up("late") is None
    assert watch.problems() == {"late": None}
    clock.now += round(START_S) * NS_PER_S
    watch.look()
    watch.look()
    assert _up("late") == 0.0
    assert watch.problems() == {"late": "refused"}
    problems.clear()
    watch.look()
    assert _up("late") == 1.0
    assert [each.getMessage() for each in caplog.records] == [
        "the server late does not answer: refused",
        "the server late answers again",
    ]


def test_no_error_of_a_client_ends_the_watch() -> None:
    def broken() -> None:
        raise ValueError("an answer that is no JSON")

    def answers() -> None:
        pass

    clock = FakeClock()
    watch = _watch(Settings(), clock, broken=broken, answering=answers)
    clock.now += round(START_S) * NS_PER_S
    watch.look()
    assert (_up("broken"), _up("answering")) == (0.0, 1.0)


@pytest.mark.parametrize(("answer", "expected"), [(b"N", 1.0), (b"S", 1.0), (b"H", 0.0), (b"", 0.0)])
def test_postgresql_is_asked_without_a_password(answer: bytes, expected: float) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(len(SSL_REQUEST)) == SSL_REQUEST
                connection.sendall(answer)

        thread = Thread(target=serve)
        thread.start()
        settings = Settings(postgres=PostgresSettings(port=listener.getsockname()[1]))
        clock = FakeClock()
        watch = ServerWatch(settings, clock)
        watch._checks = {"postgres": watch._checks["postgres"]}
        clock.now += round(START_S) * NS_PER_S
        watch.look()
        thread.join()
    assert _up("postgres") == expected


def test_further_servers_are_tried_by_their_port_or_socket(tmp_path: Path) -> None:
    path = tmp_path / "code.sock"
    with closing(socket.create_server(("127.0.0.1", 0))) as port, closing(socket.socket(socket.AF_UNIX)) as local:
        local.bind(str(path))
        local.listen()
        servers = f"by-port=127.0.0.1:{port.getsockname()[1]},by-path={path},away={tmp_path}/none"
        clock = FakeClock()
        watch = ServerWatch(Settings(metrics=MetricsSettings(servers=servers)), clock)
        assert watch._checks.keys() == SERVERS | {"by-port", "by-path", "away"}
        watch._checks = {name: check for name, check in watch._checks.items() if name not in SERVERS}
        clock.now += round(START_S) * NS_PER_S
        watch.look()
    assert [_up(name) for name in ("by-port", "by-path", "away")] == [1.0, 1.0, 0.0]


def test_something_tells_people_about_each_component_that_has_failed(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "stack")
    layout.create("sim")
    components = all_components(Context(layout, layout.settings(), layout.internal_ports()))
    given = components["api"].env["BTC_METRICS_SERVERS"]
    watched = ServerWatch(Settings(metrics=MetricsSettings(servers=given)), FakeClock())._checks
    assert components.keys() == watched.keys() | OTHER_ALERTS.keys()
    assert str(layout.code_socket) in given
    peers = {each.partition("=")[0] for each in components["api"].env["BTC_METRICS_PEERS"].split(",")}
    assert peers == {name for name, alert in OTHER_ALERTS.items() if alert == "ProcessDown"} - {"api"} | {"league"}
