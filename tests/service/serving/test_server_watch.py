"""A real server that is stopped is an alert, which ends once the server runs again."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry

from btc_core.clock import NS_PER_S
from btc_core.metrics import DAEMON_UP, HTTP_REQUESTS, SERVER_UP
from serving import worker_metrics
from serving.metrics import START_S
from serving.operations import TABLES_EVERY, OperationsWatch
from serving.server_watch import ServerWatch
from tests import waiting
from tests.serving_world import build

if TYPE_CHECKING:
    from serving.operation_answers import AlertState
    from stack.runtime import Stack

pytestmark = [pytest.mark.service, pytest.mark.timeout(600)]

SERVERS = ("questdb", "kafka", "valkey", "postgres", "store", "mlflow")

wait_for = partial(waiting.wait_for, patience_s=120.0)


@pytest.mark.causes("ServerDown", "DaemonDown")
def test_each_server_that_stops_is_reported_until_it_runs_again(
    own_stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_stack.up(only=SERVERS)
    registry = CollectorRegistry()
    for metric in (SERVER_UP, HTTP_REQUESTS, DAEMON_UP):
        registry.register(metric)
    monkeypatch.setattr(worker_metrics, "REGISTRY", registry)
    SERVER_UP.clear()
    world = build()
    object.__setattr__(world.deps, "settings", own_stack.settings)
    servers, watch = ServerWatch(own_stack.settings, world.clock), OperationsWatch(world.deps)

    def alert() -> tuple[str, set[str]]:
        servers.look()
        watch.collect()
        found = next(each for each in watch().alerts if each.name == "ServerDown")
        return found.state, {each.split()[2] for each in found.details}

    with watch._db, servers._db, servers._store:
        wait_for(
            lambda: servers.look() or len(next(iter(SERVER_UP.collect())).samples) == len(SERVERS),
            "every server answers",
        )
        assert alert() == ("ok", set())
        for name in reversed(SERVERS):
            own_stack.stop_component(name)
        assert alert() == ("pending", set(SERVERS))
        world.clock.now += 60 * NS_PER_S
        assert alert() == ("firing", set(SERVERS))

        def daemon() -> AlertState:
            return next(each for each in watch().alerts if each.name == "DaemonDown")

        assert daemon().state == "unknown", "Dagster may still start"
        world.clock.now += int(START_S) * NS_PER_S
        for _ in range(TABLES_EVERY + 1):  # a collection shows what the one before it asked
            watch.collect()
        assert daemon().state == "pending", "Dagster was never started"
        world.clock.now += daemon().lasting_s * NS_PER_S
        watch.collect()
        assert daemon().state == "firing"
        own_stack.up(only=SERVERS)
        wait_for(lambda: alert() == ("ok", set()), "the end of the alert")
