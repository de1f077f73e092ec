"""The status of a component, from its process and its health check."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from http.server import BaseHTTPRequestHandler

import psutil
import pytest

from stack import health_checks
from stack.component import Check, Component
from stack.health_checks import http_check, problem_of
from stack.status import status_of
from stack.supervisor import ProcessState
from tests.http_server import listening
from tests.waiting import wait_for


def process(state: str, uptime_s: int = 0, reason: str = "") -> ProcessState:
    return ProcessState("kafka", state, pid=0, started_s=1_000, now_s=1_000 + uptime_s, reason=reason)


def refuse() -> None:
    msg = "no answer"
    raise TimeoutError(msg)


def agree() -> None:
    pass


@pytest.mark.parametrize(
    ("found", "check", "expected"),
    [
        (None, agree, ("stopped", "")),
        (process("STOPPED"), agree, ("stopped", "")),
        (process("BACKOFF", reason="exited too quickly"), agree, ("restarting", "exited too quickly")),
        (process("FATAL", reason="too many retries"), agree, ("failed", "too many retries")),
        (process("RUNNING", uptime_s=100), agree, ("healthy", "")),
        (process("RUNNING", uptime_s=1), refuse, ("starting", "TimeoutError: no answer")),
        (process("RUNNING", uptime_s=100), refuse, ("unhealthy", "TimeoutError: no answer")),
        (process("STARTING"), None, ("starting", "")),
        (process("RUNNING"), None, ("healthy", "")),
    ],
)
def test_a_state_comes_from_the_process_and_then_from_its_check(
    found: ProcessState | None, check: Check | None, expected: tuple[str, str]
) -> None:
    status = status_of(Component("kafka", "Kafka, the log", ("true",), check=check), found)
    assert (status.state, status.reason) == expected


def test_a_server_that_answers_but_cannot_do_its_work_is_degraded() -> None:
    component = Component("kafka", "Kafka, the log", ("true",), check=agree, work_check=refuse)
    status = status_of(component, process("RUNNING", uptime_s=100))
    assert (status.state, status.reason) == ("degraded", "TimeoutError: no answer")
    unhealthy = Component("kafka", "Kafka, the log", ("true",), check=refuse, work_check=agree)
    assert status_of(unhealthy, process("RUNNING", uptime_s=100)).state == "unhealthy"


def test_a_suspended_process_is_named_at_once_with_the_command_that_continues_it() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as sleeping:
        sleeping.send_signal(signal.SIGSTOP)
        found = ProcessState("kafka", "RUNNING", pid=sleeping.pid, started_s=0, now_s=1, reason="")
        try:
            wait_for(lambda: psutil.Process(sleeping.pid).status() == psutil.STATUS_STOPPED, "the process is suspended")
            status = status_of(Component("kafka", "Kafka, the log", ("true",), check=refuse), found)
        finally:
            sleeping.kill()
    assert status.state == "unhealthy"
    assert status.reason == f"the process is suspended (SIGSTOP); `kill -CONT {sleeping.pid}` lets it continue"


def test_a_process_that_does_not_run_has_no_uptime() -> None:
    assert process("RUNNING", uptime_s=7).uptime_s == 7
    assert process("EXITED", uptime_s=7).uptime_s == 0


class Unavailable(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response({"/healthz?full=1": 200, "/private": 401}.get(self.path, 503))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_server_that_hangs_is_named_with_the_time_that_it_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_checks, "HTTP_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/exec"
        assert problem_of(http_check(url, "QuestDB")) == f"QuestDB has not answered within 0.2 s at {url}"


def test_a_check_over_http_names_the_server_and_its_answer() -> None:
    with listening(Unavailable) as url:
        assert problem_of(http_check(f"{url}/healthz", "the API")) == "the API answers 503"
        assert not problem_of(http_check(f"{url}/healthz", "the API", params={"full": "1"}))
        refusal = "the API refuses the user or the password in stack.env"
        assert problem_of(http_check(f"{url}/private", "the API")) == refusal
    assert problem_of(http_check(f"{url}/healthz", "the API")).startswith(
        f"the API does not accept connections at {url}"
    )
