"""The command `btc`: what a person sees when something is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from btc_cli.app import Exchange
from btc_cli.exchange_choice import why_unreachable
from btc_core.exchanges.adapters import EXCHANGES
from btc_core.settings import ExchangeSettings
from stack.layout import Layout


def btc(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "btc_cli.app", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setenv("PYTHONPATH", str(request.config.rootpath))


@pytest.mark.parametrize("command", ["status", "down", "logs kafka", "restart kafka"])
def test_without_a_stack_there_is_one_line_and_no_traceback(command: str, tmp_path: Path) -> None:
    done = btc(*command.split(), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("btc: there is no stack in var/current")
    assert done.stderr.count("\n") == 1


def test_init_makes_a_stack_and_says_how_to_start_it(tmp_path: Path) -> None:
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


def test_down_says_when_nothing_runs(tmp_path: Path) -> None:
    assert btc("init", "--exchange", "sim", cwd=tmp_path).returncode == 0
    done = btc("down", "--data-dir", "var/sim", cwd=tmp_path)
    assert done.returncode == 0
    assert "nothing is running in" in done.stdout + done.stderr


def test_up_goes_on_with_the_stack_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from btc_cli import app
    from stack.layout import Layout, remember_current
    from stack.runtime import Stack

    monkeypatch.chdir(tmp_path)
    assert app._running() is None, "there is none yet"
    live = Layout(tmp_path / "var" / "live")
    live.create("live", {})
    remember_current(live.data_dir)
    assert app._running() is None, "it does not run"
    monkeypatch.setattr(Stack, "running", True)
    assert app._running() == live.data_dir


def test_the_command_line_knows_every_exchange() -> None:
    assert {*Exchange} == {"auto", "live", "sim", *EXCHANGES} - {"kraken"}


def test_an_unknown_log_is_answered_with_those_there_are(tmp_path: Path) -> None:
    btc("init", "--exchange", "sim", cwd=tmp_path)
    done = btc("logs", "kafak", "--data-dir", "var/sim", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "btc: there is no log of kafak; there are none yet\n")


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    code = "import sys, btc_cli.app; print(*sorted(m for m in sys.modules if m in sys.argv))"
    heavy = ["mlflow", "dagster", "numpy", "httpx", "boto3", "psutil", "confluent_kafka"]
    done = subprocess.run(
        [sys.executable, "-c", code, *heavy], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == ""


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


def test_a_shell_completes_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = Path(sys.executable).with_name("btc")
    for name, value in {"_BTC_COMPLETE": "complete_bash", "COMP_WORDS": "btc dead", "COMP_CWORD": "1"}.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run([installed], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["deadletters"]


def test_an_exchange_that_cannot_be_reached_is_named() -> None:
    exchange = ExchangeSettings(rest_url="http://127.0.0.1:1", ws_url="ws://127.0.0.1:1/v2")
    assert "http://127.0.0.1:1 does not answer" in why_unreachable(exchange)
