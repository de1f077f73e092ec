"""The command `btc`: its help, its completion, and what it prints when something is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from btc_cli import exchange_choice
from btc_cli.app import COMMANDS
from btc_cli.exchange_choice import Exchange, connection_problem
from btc_cli.lazy import Entry, LazyCommand
from btc_core.exchange_settings import PUBLIC_URLS, ExchangeSettings
from btc_core.exchanges.adapters import EXCHANGES
from stack.layout import Layout, remember_current
from stack.runtime import Stack

if TYPE_CHECKING:
    from pathlib import Path


def btc(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "btc_cli", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setenv("PYTHONPATH", str(request.config.rootpath))


@pytest.mark.parametrize("command", ["status", "down", "logs kafka", "restart kafka"])
def test_without_a_stack_the_error_is_one_line_without_a_traceback(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BTC_DATA_DIR", str(tmp_path / "var" / "current"))  # never the stack of this clone
    done = btc(*command.split(), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"btc: there is no stack in {tmp_path}/var/current")
    assert done.stderr.count("\n") == 1


def test_the_doctor_says_in_one_line_that_no_stack_is_there_or_runs_and_its_exit_code_says_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BTC_DATA_DIR", str(tmp_path / "var" / "sim"))
    for words in (
        "there is no stack in {}; start one with `btc up`",
        "the stack in {} does not run; `btc up` starts it",
    ):
        done = btc("doctor", cwd=tmp_path)
        assert done.stdout.splitlines()[-1].startswith(words.format(tmp_path / "var" / "sim"))
        assert done.returncode == (1 if "\n  no  " in done.stdout else 3)
        assert btc("init", "--exchange", "sim", cwd=tmp_path).returncode == 0


def test_init_creates_a_stack_and_says_how_to_start_it(tmp_path: Path) -> None:
    done = btc("init", "--exchange", "sim", "--ports-from", "20000", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "var" / "sim" / "stack.env").exists()
    assert "btc up --data-dir" in done.stdout
    again = btc("up", "--exchange", "live", "--data-dir", "var/sim", cwd=tmp_path)
    assert (again.returncode, "never mix" in again.stderr) == (1, True)


def test_another_exchange_gets_a_directory_of_its_own_and_keeps_it(tmp_path: Path) -> None:
    done = btc("init", "--exchange", "coinbase", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    kept = Layout(tmp_path / "var" / "coinbase").settings().exchange
    assert (kept.mode, kept.name, kept.ws_url) == ("live", "coinbase", "wss://ws-feed.exchange.coinbase.com")
    btc("init", "--exchange", "live", cwd=tmp_path)
    mixed = btc("up", "--exchange", "coinbase", "--data-dir", "var/live", cwd=tmp_path)
    assert (mixed.returncode, "follows kraken, and trades of two exchanges never mix" in mixed.stderr) == (1, True)


@pytest.mark.parametrize("name", ["binance", "binance-perp"])
def test_binance_follows_its_own_market_in_a_directory_of_its_own(tmp_path: Path, name: str) -> None:
    done = btc("init", "--exchange", name, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    kept = Layout(tmp_path / "var" / name).settings().exchange
    assert (kept.mode, kept.name, kept.symbols) == ("live", name, ("BTC/USDT",))
    assert kept.ws_url == PUBLIC_URLS[name]["ws_url"]


def test_down_says_when_nothing_runs(tmp_path: Path) -> None:
    assert btc("init", "--exchange", "sim", cwd=tmp_path).returncode == 0
    done = btc("down", "--data-dir", "var/sim", cwd=tmp_path)
    assert done.returncode == 0
    assert "nothing is running in" in done.stdout + done.stderr


def test_up_continues_with_the_stack_that_is_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert exchange_choice.running_data_dir() is None, "no stack exists yet"
    live = Layout(tmp_path / "var" / "live")
    live.create("live", {})
    remember_current(live.data_dir)
    assert exchange_choice.running_data_dir() is None, "the stack is not running"
    monkeypatch.setattr(Stack, "running", True)
    assert exchange_choice.running_data_dir() == live.data_dir


def test_markets_of_several_exchanges_are_checked_before_anything_is_created(tmp_path: Path) -> None:
    for arguments, words in (
        (("--markets", "krakn:BTC/USD"), "there are adapters for kraken"),
        (("--markets", "kraken:BTC/USD", "--symbols", "BTC/USD"), "cannot be combined with --symbols"),
        (("--markets", "kraken:BTC/USD", "--exchange", "coinbase"), "cannot be combined with --exchange coinbase"),
        (("--markets", "kraken:BTC/USD,coinbase:BTC/USD", "--exchange", "sim"), "not for coinbase"),
        (("--symbols", "FOO"), "'FOO' is no pair of the form BASE/QUOTE"),
        (("--symbols", "BTC/USD,FOO/USD", "--exchange", "sim"), "the simulator does not list 'FOO/USD'"),
    ):
        done = btc("up", *arguments, cwd=tmp_path)
        assert (done.returncode, words in done.stderr) == (1, True), done.stderr
    assert not (tmp_path / "var").exists()


def test_markets_of_the_environment_are_those_of_a_new_directory(tmp_path: Path) -> None:
    variables = os.environ | {"BTC_EXCHANGE_MARKETS": "kraken:BTC/USD,coinbase:BTC/USD"}
    done = subprocess.run(
        [sys.executable, "-m", "btc_cli", "up", "--exchange", "sim"],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert (done.returncode, "not for coinbase" in done.stderr) == (1, True), done.stderr


def test_the_command_line_knows_every_exchange() -> None:
    assert {*Exchange} == {"auto", "live", "sim", *EXCHANGES} - {"kraken"}


def test_an_unknown_log_is_refused_with_the_logs_that_exist(tmp_path: Path) -> None:
    btc("init", "--exchange", "sim", cwd=tmp_path)
    refusal = "btc: there is no log of kafak; "
    done = btc("logs", "kafak", "--data-dir", "var/sim", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, f"{refusal}nothing has been started in this stack yet\n")
    (tmp_path / "var/sim/logs/kafka.log").touch()
    done = btc("logs", "kafak", "--data-dir", "var/sim", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, f"{refusal}choose one of kafka\n")


HEAVY = ("numba", "numpy", "pyarrow", "confluent_kafka", "redis", "boto3", "httpx", "xgboost", "questdb", "mlflow",
         "dagster", "psutil", "pydantic", "matplotlib")  # fmt: skip


LISTS_MODULES = """
import atexit, sys
from btc_cli.app import main
atexit.register(lambda: sys.stderr.write(" ".join(sys.modules)))
main()
"""


def modules_of(*arguments: str, cwd: Path) -> set[str]:
    """The modules that are imported when `btc` ends."""
    command = [sys.executable, "-c", LISTS_MODULES, *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True, timeout=180)
    return set(done.stderr.split())


def test_help_imports_no_module_of_a_command_and_nothing_heavy(tmp_path: Path) -> None:
    modules = modules_of("--help", cwd=tmp_path)
    assert {"btc_cli.app", "typer.rich_utils"} <= modules
    assert not modules & {*HEAVY, *(entry.function.partition(":")[0] for entry in COMMANDS)}


def test_help_of_a_command_imports_the_module_of_that_command_alone(tmp_path: Path) -> None:
    modules = modules_of("fault", "--help", cwd=tmp_path)
    assert modules & {entry.function.partition(":")[0] for entry in COMMANDS} == {"btc_cli.faults"}


@pytest.mark.parametrize("entry", COMMANDS, ids=lambda entry: entry.name)
def test_the_summary_of_a_command_is_the_first_line_of_its_help(entry: Entry) -> None:
    command = LazyCommand(entry).load()
    assert command.name == entry.name
    assert command.help.splitlines()[0] == entry.summary


def test_an_unknown_command_is_refused_with_similar_ones(tmp_path: Path) -> None:
    done = btc("stats", cwd=tmp_path)
    assert done.returncode == 2
    assert "Did you mean 'status'" in done.stderr


def test_help_groups_the_commands(tmp_path: Path) -> None:
    shown = btc("--help", cwd=tmp_path).stdout
    for panel, command in {
        "Commands": "doctor",
        "Data": "migrate",
        "Models": "rollback",
        "What can go wrong": "fault",
    }.items():
        titled = [part for part in shown.split("╭─ ") if part.startswith(f"{panel} ")]
        assert len(titled) == 1, panel
        assert f"│ {command} " in titled[0]


@pytest.mark.parametrize(
    ("words", "completions"),
    [("btc dead", ["deadletters"]), ("btc backfill --pro", ["--processes"]), ("btc up --exchange coin", ["coinbase"])],
)
def test_a_shell_completes_commands_options_and_values(
    words: str, completions: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(len(words.split()) - 1)
    for name, value in {"_BTC_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": place}.items():
        monkeypatch.setenv(name, value)
    done = btc(cwd=tmp_path)
    assert (done.returncode, done.stdout.split()) == (0, completions), done.stderr


def test_an_exchange_that_cannot_be_reached_is_named() -> None:
    exchange = ExchangeSettings(rest_url="http://127.0.0.1:1", ws_url="ws://127.0.0.1:1/v2")
    assert "http://127.0.0.1:1 does not answer" in (connection_problem(exchange) or "")
