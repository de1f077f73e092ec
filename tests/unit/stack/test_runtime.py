"""The stack as an object: what `create` refuses, where Dagster's days begin, and what a failed start says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from btc_core.errors import StackError
from stack.component import Component
from stack.runtime import Stack
from stack.supervisor import ProcessState, Supervisor

if TYPE_CHECKING:
    from stack.layout import Layout


def test_older_data_adds_its_days_and_newer_data_none(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = Stack(layout.data_dir)
    first = stack.settings.seal.first_day
    stack.extend_days_back_to("2999-01-01")
    assert stack.settings.seal.first_day == first
    stack.extend_days_back_to("2019-07-01")
    assert stack.settings.seal.first_day == "2019-07-01"
    monkeypatch.setenv("BTC_SEAL_FIRST_DAY", "2022-01-01")
    with pytest.raises(StackError, match="BTC_SEAL_FIRST_DAY in the environment"):
        stack.extend_days_back_to("2019-07-01")


def test_simulated_and_live_data_never_mix(layout: Layout) -> None:
    with pytest.raises(StackError, match="holds sim data"):
        Stack(layout.data_dir).create("live")


class OneProcess(Supervisor):
    """A supervisor whose only process is always in the same state."""

    def __init__(self, layout: Layout, state: str) -> None:
        super().__init__(layout)
        self._state = state
        self.stopped: list[str] = []

    def state(self, name: str) -> ProcessState:
        return ProcessState(name, self._state, pid=1, started_s=0, now_s=1, reason="")

    def stop_process(self, name: str) -> None:
        self.stopped.append(name)


def refuse() -> None:
    msg = "no answer"
    raise TimeoutError(msg)


@pytest.mark.parametrize(
    ("state", "message", "stopped"),
    [
        ("BACKOFF", r"kafka \(the log\) exited while it started \(BACKOFF\)", ["kafka"]),
        ("RUNNING", r"kafka \(the log\) is not healthy after 0 s: TimeoutError: no answer", []),
    ],
)
def test_a_failed_start_shows_the_end_of_the_log_and_stops_only_what_would_be_retried(
    layout: Layout, state: str, message: str, stopped: list[str]
) -> None:
    stack = Stack(layout.data_dir)
    stack._supervisor = supervisor = OneProcess(layout, state)
    layout.log("kafka").write_text("the disk is full\n")
    component = Component("kafka", "the log", ("true",), check=refuse, start_timeout_s=0)
    with pytest.raises(StackError, match=message) as caught:
        stack._wait_healthy(component)
    assert "    the disk is full\nFix the cause" in str(caught.value)
    assert supervisor.stopped == stopped
