"""Which components a stack has, and their ports and commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from btc_core.errors import ServiceError
from btc_core.league.folder import read_builtin, store
from stack import preflight
from stack.all_components import all_components
from stack.component import Context
from stack.layout import Layout
from stack.ports import DEFAULT_PORTS
from stack.supervisor import STOP_TIMEOUT_S
from streaming.publisher import FLUSH_TIMEOUT_S

if TYPE_CHECKING:
    from pathlib import Path


def test_every_port_belongs_to_one_component(layout: Layout) -> None:
    store(layout.settings().user_models, read_builtin("log_har"))  # so that there is a league
    known = all_components(Context(layout, layout.settings(), layout.internal_ports(), features_workers=2))
    taken = [port for component in known.values() for port in component.ports]
    assert sorted(taken) == list(range(20_000, 20_000 + len(DEFAULT_PORTS)))
    assert preflight.duplicate_ports(known.values()) is None


def test_a_worker_is_not_killed_while_it_waits_for_kafka(layout: Layout) -> None:
    known = all_components(Context(layout, layout.settings(), layout.internal_ports()))
    for name in ("questdb", "ingest", "bronze", "features", "forecast", "repair"):
        assert FLUSH_TIMEOUT_S < known[name].stop_wait_s < STOP_TIMEOUT_S, name


def test_a_stack_without_models_of_the_user_has_no_league(layout: Layout) -> None:
    assert "league" not in all_components(Context(layout, layout.settings(), layout.internal_ports()))


def test_a_code_server_that_does_not_run_yet_is_reported_in_one_line(layout: Layout) -> None:
    known = all_components(Context(layout, layout.settings(), layout.internal_ports()))
    with pytest.raises(ServiceError, match=r"^the Dagster code server does not answer at \S+ \(UNAVAILABLE\)$"):
        known["dagster-code"].check()


def test_a_busy_machine_has_five_minutes_for_a_sensor_or_the_start_of_a_run(layout: Layout) -> None:
    components = all_components(Context(layout, layout.settings(), layout.internal_ports()))
    for name in ("dagster-code", "dagster-web", "dagster-daemon"):
        assert components[name].env["DAGSTER_GRPC_TIMEOUT_SECONDS"] == "300"


def test_a_live_stack_has_no_simulator(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "live")
    layout.create("live")
    assert "exchange" not in all_components(Context(layout, layout.settings(), layout.internal_ports()))


def test_the_simulator_gets_the_symbols_and_a_second_features_worker_is_started_on_request(tmp_path: Path) -> None:
    few, many = Layout(tmp_path / "few"), Layout(tmp_path / "many")
    few.create("sim", symbols=("BTC/USD", "ETH/USD"))
    assert few.settings().exchange.symbols == ("BTC/USD", "ETH/USD")
    simulator = all_components(Context(few, few.settings(), few.internal_ports()))["exchange"]
    assert simulator.command[-3:] == ("--symbols", "BTC/USD", "ETH/USD")
    assert few.features_workers() == 1
    many.create("sim", symbols=tuple(f"S{number}/USD" for number in range(8)))
    many.set_features_workers(2)
    context = Context(many, many.settings(), many.internal_ports(), features_workers=many.features_workers())
    known = all_components(context)
    assert known["features_2"].command == known["features"].command
    assert known["features_2"].env["BTC_STREAM_INSTANCE"] == "2"
