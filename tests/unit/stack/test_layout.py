"""The data directory of a stack: its paths, its settings and secrets, and which directory a command means."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from btc_core.errors import StackError
from stack.all_components import all_components
from stack.component import Context
from stack.layout import MAX_SOCKET_PATH_BYTES, Layout, current_data_dir, remember_current
from stack.ports import ports_from


def test_the_env_file_is_for_its_owner_only(layout: Layout) -> None:
    assert stat.S_IMODE(layout.env_file.stat().st_mode) == 0o600


def test_every_secret_is_random_and_none_is_empty(layout: Layout, tmp_path: Path) -> None:
    other = Layout(tmp_path / "other")
    other.create("sim")
    names = [name for name in layout.values() if name.endswith(("PASSWORD", "SECRET_KEY", "TOKEN"))]
    assert len(names) == 7
    values = [values[name] for values in (layout.values(), other.values()) for name in names]
    assert len(set(values)) == len(values)
    assert min(map(len, values)) >= 32


def test_a_broker_gets_a_password_before_it_first_runs_and_never_later(layout: Layout) -> None:
    assert not layout.settings().kafka.authenticated, "containers read the file of `create`, too"
    layout.give_new_broker_a_password()
    kafka = layout.settings().kafka
    assert (kafka.security, kafka.mechanism, kafka.user) == ("sasl_plaintext", "PLAIN", "btc")
    assert len(kafka.password.get_secret_value()) == 40
    layout.give_new_broker_a_password()
    assert layout.settings().kafka == kafka


@pytest.mark.parametrize("kept", ["data", "BTC_KAFKA_SECURITY=plaintext", "BTC_KAFKA_BOOTSTRAP=broker.example:9092"])
def test_a_broker_that_has_run_or_that_the_settings_describe_keeps_its_way_to_connect(
    layout: Layout, kept: str
) -> None:
    if kept == "data":
        (layout.data_dir / "kafka" / "data").mkdir(parents=True)
    else:
        name, _, value = kept.partition("=")
        layout._write(layout.values() | {name: value})
    layout.give_new_broker_a_password()
    assert not layout.settings().kafka.authenticated


def test_what_is_written_is_what_the_processes_read(layout: Layout) -> None:
    settings = layout.settings()
    assert settings.simulated
    assert settings.kafka.bootstrap == "127.0.0.1:20002"
    assert settings.questdb.http_url == "http://127.0.0.1:20000"
    assert settings.model.cache_dir == layout.data_dir / "models"
    assert layout.internal_ports().kafka_controller == 20_016


def test_arguments_of_the_simulator_are_kept_with_their_spaces(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "sim")
    given = ("--replay", "a file's name.csv", "--speed", "0")
    layout.create("sim", exchange_args=given)
    assert layout.exchange_args() == given


def test_a_speed_that_does_not_fit_a_live_stack_is_refused_with_what_to_do(tmp_path: Path) -> None:
    for number, given in enumerate((("--speed", "2"), ("--rate", "5", "--speed=0.5"))):
        layout = Layout(tmp_path / str(number))
        layout.create("sim", exchange_args=given)
        with pytest.raises(StackError, match=r"use --speed 1, --rate for a busier market"):
            layout.exchange_args()


def test_the_address_of_the_exchange_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BTC_EXCHANGE_WS_URL", "ws://127.0.0.1:1/v2")
    layout = Layout(tmp_path / "live")
    layout.create("live")
    monkeypatch.delenv("BTC_EXCHANGE_WS_URL")
    assert layout.settings().exchange.ws_url == "ws://127.0.0.1:1/v2"


MARKETS = ("kraken:BTC/USD", "binance-perp:BTC/USDT")


def test_a_simulated_stack_of_two_exchanges_has_the_addresses_of_the_simulator(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "sim")
    layout.create("sim", ports_from(30_000), symbols=MARKETS)
    exchange = layout.settings().exchange
    assert exchange.symbols == ("BTC/USD", "BTC/USDT@binance-perp")
    assert exchange.only("kraken").ws_url == "ws://127.0.0.1:30009/v2"
    assert exchange.only("binance-perp").ws_url == "ws://127.0.0.1:30009/binance-perp"
    assert exchange.only("binance-perp").rest_url == "http://127.0.0.1:30009/binance-perp"
    layout.change_ports(ports_from(31_000))
    assert layout.settings().exchange.only("binance-perp").ws_url == "ws://127.0.0.1:31009/binance-perp"


def test_the_simulator_gets_the_pairs_of_each_exchange(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "sim")
    layout.create("sim", symbols=(*MARKETS, "kraken:ETH/USD"))
    command = all_components(Context(layout, layout.settings(), layout.internal_ports()))["exchange"].command
    given = command[command.index("--symbols") :]
    assert given == ("--symbols", "BTC/USD", "ETH/USD", "--perpetuals", "BTC/USDT")


def test_ports_change_and_secrets_stay(layout: Layout) -> None:
    password = layout.settings().questdb.password
    layout.change_ports(ports_from(30_000))
    assert layout.settings().questdb.http_url == "http://127.0.0.1:30000"
    assert layout.settings().exchange.rest_url == "http://127.0.0.1:30009"
    assert layout.settings().questdb.password == password


def test_init_never_overwrites_secrets(layout: Layout) -> None:
    with pytest.raises(StackError, match="exists already"):
        layout.create("sim")


def test_sockets_of_a_deep_directory_lie_elsewhere_on_paths_that_are_short_enough(tmp_path: Path) -> None:
    deep = Layout(tmp_path / ("d" * 100))
    assert not deep.run_dir.is_relative_to(deep.data_dir)
    for path in (deep.supervisor_socket, deep.code_socket, deep.redis_socket):
        assert len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES


def test_a_command_without_a_directory_means_the_stack_that_was_started_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for mode in ("live", "sim"):
        layout = Layout(Path("var") / mode)
        layout.create("live" if mode == "live" else "sim")
        remember_current(layout.data_dir)
        assert current_data_dir() == layout.data_dir
    monkeypatch.setenv("BTC_DATA_DIR", "var/live")
    assert current_data_dir() == tmp_path / "var" / "live"


def test_without_a_stack_the_error_says_how_to_start_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("stack.layout.ROOT", tmp_path / "clone")
    with pytest.raises(
        StackError,
        match=f"no stack in {tmp_path}/var/current or in {tmp_path}/clone/var/current; start one with `btc up`",
    ):
        current_data_dir()


def test_in_another_directory_a_command_means_the_stack_of_its_clone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone, elsewhere = tmp_path / "clone", tmp_path / "elsewhere"
    for folder in (clone, elsewhere):
        folder.mkdir()
    monkeypatch.setattr("stack.layout.ROOT", clone)
    monkeypatch.chdir(clone)
    layout = Layout(Path("var") / "sim")
    layout.create("sim")
    remember_current(layout.data_dir)
    monkeypatch.chdir(elsewhere)
    assert current_data_dir() == clone / "var" / "sim"
    monkeypatch.setenv("BTC_DATA_DIR", "var/sim")
    with pytest.raises(StackError, match=f"no stack in {elsewhere}/var/sim"):
        current_data_dir()


def test_the_watched_disk_is_that_of_the_data_directory_unless_it_is_set(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert layout.settings().disk.path == str(layout.data_dir)
    monkeypatch.setenv("BTC_DISK_PATH", "/mnt/data")
    assert layout.settings().disk.path == "/mnt/data"


def test_durability_is_the_page_cache_unless_it_is_set_and_a_misspelled_mode_is_refused(layout: Layout) -> None:
    assert layout.durability() == "page-cache"
    layout.set_durability("fsync")
    assert layout.durability() == "fsync"
    layout.env_file.write_text(layout.env_file.read_text().replace("fsync", "sync"))
    with pytest.raises(StackError, match=r"BTC_STACK_DURABILITY in .* is 'sync'; it can be page-cache or fsync"):
        layout.durability()
