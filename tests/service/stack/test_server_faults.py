"""A server that hangs, refuses the password or is full: `btc status` and `btc doctor` name it and the reason within seconds."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil
import pytest
import redis
from typer.testing import CliRunner

from btc_cli.app import app
from stack.limits import MAX_MAP_COUNT
from stack.runtime import Stack
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from btc_core.settings import Settings
    from stack.status import Status

SERVERS = ("questdb", "kafka", "valkey", "postgres", "store")
SECONDS = 30.0
"""How long an answer may take."""


@pytest.fixture(scope="module")
def settings(own_servers: Callable[..., Settings]) -> Settings:
    return own_servers(*SERVERS)


def status_of(stack: Stack, name: str) -> Status:
    """The status of one server, which must not take long, while that of all others stays healthy."""
    began_s = time.monotonic()
    statuses = {status.name: status for status in stack.status(SERVERS)}
    assert time.monotonic() - began_s < SECONDS
    assert {other: statuses[other].state for other in SERVERS if other != name} == dict.fromkeys(
        [other for other in SERVERS if other != name], "healthy"
    )
    return statuses[name]


def doctor(stack: Stack) -> str:
    answer = CliRunner().invoke(app, ["doctor", "--data-dir", str(stack.layout.data_dir)])
    assert answer.exit_code == 1, answer.output
    return answer.output


@contextmanager
def suspended(stack: Stack, name: str) -> Iterator[int]:
    """Suspend the process of a server for a block that gets its id."""
    process = psutil.Process(stack.status((name,))[0].pid)
    process.suspend()
    try:
        yield process.pid
    finally:
        process.resume()


@contextmanager
def another_password(stack: Stack, name: str) -> Iterator[Stack]:
    """The same stack as seen by someone whose `stack.env` has another password."""
    before = stack.layout.env_file.read_text()
    password = stack.layout.values()[name]
    stack.layout.env_file.write_text(before.replace(password, "0" * len(password)))
    try:
        yield Stack(stack.layout.data_dir)
    finally:
        stack.layout.env_file.write_text(before)


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_whose_process_is_suspended_is_named_with_the_way_out(
    settings: Settings, own_stack: Stack, name: str
) -> None:
    del settings
    with suspended(own_stack, name) as pid:
        status = status_of(own_stack, name)
        assert (status.state, status.reason) == (
            "unhealthy",
            f"the process is suspended (SIGSTOP); `kill -CONT {pid}` lets it continue",
        )
    wait_for(lambda: own_stack.status((name,))[0].state == "healthy", f"{name} is healthy again")


def test_doctor_names_a_suspended_server(settings: Settings, own_stack: Stack) -> None:
    del settings
    with suspended(own_stack, "questdb"):
        assert "no  questdb: unhealthy: the process is suspended (SIGSTOP)" in doctor(own_stack)
    wait_for(lambda: own_stack.status(("questdb",))[0].state == "healthy", "QuestDB is healthy again")


@pytest.mark.parametrize(
    ("name", "variable", "reason"),
    [
        ("questdb", "BTC_QUESTDB_PASSWORD", "QuestDB refuses the user or the password in stack.env"),
        ("valkey", "BTC_REDIS_PASSWORD", "Valkey refuses the password in stack.env"),
        ("postgres", "BTC_POSTGRES_PASSWORD", "password authentication failed"),
    ],
)
def test_a_server_that_refuses_the_password_is_named(
    settings: Settings, own_stack: Stack, name: str, variable: str, reason: str
) -> None:
    del settings
    with another_password(own_stack, variable) as stranger:
        status = status_of(stranger, name)
        assert status.state in {"starting", "unhealthy"}
        assert reason in status.reason


def test_a_valkey_that_is_full_is_named_and_recovers(settings: Settings, own_stack: Stack) -> None:
    password = settings.redis.password.get_secret_value()
    with redis.Redis.from_url(settings.redis.url, password=password) as client:
        client.config_set("maxmemory", "1")
        status = status_of(own_stack, "valkey")
        assert (status.state, status.reason) == ("degraded", "Valkey is full: it uses its 64 MB and refuses writes")
        assert "no  valkey: degraded: Valkey is full" in doctor(own_stack)
        client.config_set("maxmemory", "64mb")
    assert own_stack.status(("valkey",))[0].state == "healthy"


def test_doctor_relays_what_questdb_advises(settings: Settings, own_stack: Stack) -> None:
    del settings
    output = CliRunner().invoke(app, ["doctor", "--data-dir", str(own_stack.layout.data_dir)]).output
    assert "ok  limits of questdb" in output
    assert "ok  open files" in output
    maps = int(MAX_MAP_COUNT.read_text())
    if maps < 1_048_576:
        assert "!!  advice of questdb: QuestDB recommends more than this machine has" in output
        assert f"vm.max_map_count limit is too low [current={maps}" in output
        assert "sudo sysctl -w vm.max_map_count=1048576" in output
