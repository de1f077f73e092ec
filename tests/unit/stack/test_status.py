"""The status of a component, from its process and its health check."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler

import pytest

from stack.component import Check, Component
from stack.health_checks import http_check, problem_of
from stack.status import status_of
from stack.supervisor import ProcessState
from tests.http_server import listening


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


def test_a_process_that_does_not_run_has_no_uptime() -> None:
    assert process("RUNNING", uptime_s=7).uptime_s == 7
    assert process("EXITED", uptime_s=7).uptime_s == 0


class Unavailable(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz?full=1" else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_check_over_http_names_the_server_and_its_answer() -> None:
    with listening(Unavailable) as url:
        assert problem_of(http_check(f"{url}/healthz", "the API")) == "ServiceError: the API answers 503"
        assert not problem_of(http_check(f"{url}/healthz", "the API", params={"full": "1"}))
    assert problem_of(http_check(f"{url}/healthz", "the API")).startswith("ConnectError")
