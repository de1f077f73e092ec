"""The data directory of a stack: ports, secrets, modes, and what a person is told."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from btc_core.errors import InvalidInput, StackError
from stack import preflight
from stack.all_components import all_components
from stack.component import Component, Context, in_order
from stack.files import replaced, write_secret
from stack.layout import MAX_SOCKET_PATH_BYTES, Layout, current_data_dir, remember_current
from stack.logs import tail
from stack.ports import DEFAULT_PORTS, ports_from
from stack.runtime import Stack

LISTEN = "127.0.0.1"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    found = Layout(tmp_path / "sim")
    found.create("sim", ports_from(20_000))
    return found


def test_ports_are_consecutive_from_the_given_one() -> None:
    assert sorted(ports_from(20_000).values()) == list(range(20_000, 20_000 + len(DEFAULT_PORTS)))


@pytest.mark.parametrize("first", [0, 80, 65_535, -1])
def test_ports_that_do_not_exist_are_refused(first: int) -> None:
    with pytest.raises(StackError, match="--ports-from"):
        ports_from(first)


def test_no_two_defaults_are_the_same() -> None:
    assert len(set(DEFAULT_PORTS.values())) == len(DEFAULT_PORTS)


def test_the_env_file_is_for_its_owner_only(layout: Layout) -> None:
    assert stat.S_IMODE(layout.env_file.stat().st_mode) == 0o600


def test_every_secret_is_random_and_none_is_empty(layout: Layout, tmp_path: Path) -> None:
    other = Layout(tmp_path / "other")
    other.create("sim")
    names = [name for name in layout.values() if name.endswith(("PASSWORD", "SECRET_KEY", "TOKEN"))]
    assert len(names) == 6
    values = [values[name] for values in (layout.values(), other.values()) for name in names]
    assert len(set(values)) == len(values)
    assert min(map(len, values)) >= 32


def test_older_data_adds_its_days_and_newer_data_none(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = Stack(layout.data_dir)
    first = stack.settings.seal.first_day
    stack.know_days_from("2999-01-01")
    assert stack.settings.seal.first_day == first
    stack.know_days_from("2019-07-01")
    assert stack.settings.seal.first_day == "2019-07-01"
    monkeypatch.setenv("BTC_SEAL_FIRST_DAY", "2022-01-01")
    with pytest.raises(StackError, match="BTC_SEAL_FIRST_DAY in the environment"):
        stack.know_days_from("2019-07-01")


def test_what_is_written_is_what_the_processes_read(layout: Layout) -> None:
    settings = layout.settings()
    assert settings.simulated
    assert settings.kafka.bootstrap == "127.0.0.1:20002"
    assert settings.questdb.http_url == "http://127.0.0.1:20000"
    assert settings.model.cache_dir == layout.data_dir / "models"
    assert layout.internal_ports().kafka_controller == 20_016


def test_every_port_belongs_to_one_component(layout: Layout) -> None:
    known = all_components(Context(layout, layout.settings(), layout.internal_ports(), features_workers=2))
    taken = [port for component in known.values() for port in component.ports]
    assert sorted(taken) == list(range(20_000, 20_000 + len(DEFAULT_PORTS)))
    assert preflight.duplicate_ports(known.values()) is None


def test_a_live_stack_has_no_simulator(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "live")
    layout.create("live")
    assert "exchange" not in all_components(Context(layout, layout.settings(), layout.internal_ports()))


def test_arguments_of_the_simulator_are_kept_with_their_spaces(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "sim")
    given = ("--replay", "a file's name.csv", "--speed", "0")
    layout.create("sim", exchange_args=given)
    assert layout.exchange_args() == given


def test_the_address_of_the_exchange_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BTC_EXCHANGE_WS_URL", "ws://127.0.0.1:1/v2")
    layout = Layout(tmp_path / "live")
    layout.create("live")
    monkeypatch.delenv("BTC_EXCHANGE_WS_URL")
    assert layout.settings().exchange.ws_url == "ws://127.0.0.1:1/v2"


def test_ports_move_and_secrets_stay(layout: Layout) -> None:
    password = layout.settings().questdb.password
    layout.move_ports(ports_from(30_000))
    assert layout.settings().questdb.http_url == "http://127.0.0.1:30000"
    assert layout.settings().exchange.rest_url == "http://127.0.0.1:30009"
    assert layout.settings().questdb.password == password


def test_simulated_and_live_data_never_mix(layout: Layout) -> None:
    with pytest.raises(StackError, match="holds sim data"):
        Stack(layout.data_dir).create("live")


def test_init_never_overwrites_secrets(layout: Layout) -> None:
    with pytest.raises(StackError, match="exists already"):
        layout.create("sim")


def test_sockets_of_a_deep_directory_lie_elsewhere_and_are_short_enough(tmp_path: Path) -> None:
    deep = Layout(tmp_path / ("d" * 100))
    assert not deep.run_dir.is_relative_to(deep.data_dir)
    for path in (deep.supervisor_socket, deep.code_socket, deep.redis_socket):
        assert len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES


def test_the_last_stack_started_is_the_one_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for mode in ("live", "sim"):
        layout = Layout(Path("var") / mode)
        layout.create("live" if mode == "live" else "sim")
        remember_current(layout.data_dir)
        assert current_data_dir() == layout.data_dir
    monkeypatch.setenv("BTC_DATA_DIR", "var/live")
    assert current_data_dir() == tmp_path / "var" / "live"


def test_without_a_stack_one_is_told_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StackError, match="btc up"):
        current_data_dir()


def test_a_port_in_use_is_named_with_its_owner_and_the_fix() -> None:
    with socket.socket() as other:
        other.bind((LISTEN, 0))
        other.listen()
        port = other.getsockname()[1]
        problem = preflight.port_problem(Component("kafka", "the log", ("true",), ports=(port,)))
    assert problem is not None
    assert f"kafka: port {port} is in use by" in problem
    assert f"pid {os.getpid()}" in problem
    assert "--ports-from" in problem


def test_too_little_disk_or_memory_is_named_with_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "MIN_DISK_GB", 10**9)
    assert "--data-dir" in (preflight.disk_problem(tmp_path / "not" / "there") or "")
    assert "memory" in (preflight.memory_problem(needed_gb=10**6) or "")
    assert preflight.memory_problem(needed_gb=0) is None


def test_components_come_after_what_they_wait_for() -> None:
    known = {
        name: Component(name, name, ("true",), after=after)
        for name, after in {"c": ("b",), "b": ("a",), "a": (), "d": ()}.items()
    }
    assert [each.name for each in in_order(known)] == ["a", "b", "c", "d"]
    assert [each.name for each in in_order(known, ("b",))] == ["a", "b"]
    with pytest.raises(StackError, match="there is no component x"):
        in_order(known, ("x",))


def test_a_secret_file_that_others_could_read_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    write_secret(path, "new")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o600)


def test_the_tail_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert tail(path, 3) == []
    path.write_text("".join(f"{number}\n" for number in range(20_000)))
    assert tail(path, 2) == ["19998", "19999"]


def test_symbols_are_kept_and_a_second_features_worker_comes_when_asked_for(tmp_path: Path) -> None:
    few, many = Layout(tmp_path / "few"), Layout(tmp_path / "many")
    few.create("sim", symbols=("BTC/USD", "ETH/USD"))
    assert few.settings().exchange.symbols == ("BTC/USD", "ETH/USD")
    simulator = all_components(Context(few, few.settings(), few.internal_ports()))["exchange"]
    assert simulator.command[-3:] == ("--symbols", "BTC/USD", "ETH/USD")
    assert few.features_workers() == 1
    many.create("sim", symbols=tuple(f"S{number}/USD" for number in range(8)))
    many.share_features(2)
    context = Context(many, many.settings(), many.internal_ports(), features_workers=many.features_workers())
    known = all_components(context)
    assert known["features_2"].command == known["features"].command
    assert known["features_2"].env["BTC_STREAM_INSTANCE"] == "2"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "new" / "frames.txt"
    with replaced(out) as file:
        file.write(b"first")
    with pytest.raises(ZeroDivisionError), replaced(out) as file:
        file.write(b"half of the" * (1 // 0))
    assert out.read_bytes() == b"first"
    assert list(out.parent.iterdir()) == [out]
    with pytest.raises(InvalidInput, match="cannot be written"), replaced(out / "below") as file:
        pass
