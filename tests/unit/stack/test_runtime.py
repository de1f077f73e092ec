"""The stack as an object: what `create` refuses, where Dagster's days begin, and what a failed start says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from btc_core.errors import StackError
from stack import progress, runtime
from stack.component import Component
from stack.ports import ports_from
from stack.runtime import Stack
from stack.supervisor import ProcessState, Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

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


def test_a_running_stack_is_asked_again_with_its_own_ports_and_keeps_them(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    Stack(layout.data_dir).create("sim", ports_from(30_000))
    monkeypatch.setattr(Supervisor, "is_running", lambda _self: True)
    Stack(layout.data_dir).create("sim", ports_from(30_000))
    with pytest.raises(StackError, match="its ports can change only after `btc down`"):
        Stack(layout.data_dir).create("sim", ports_from(31_000))


def test_simulated_and_live_data_never_mix(layout: Layout) -> None:
    with pytest.raises(StackError, match="holds sim data"):
        Stack(layout.data_dir).create("live")


def test_what_forecasts_do_not_need_starts_after_what_they_need(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    parts = (
        Component("postgres", "", ("true",), after_forecasts=True),
        Component("mlflow", "", ("true",), waits_for=("postgres", "store"), after_forecasts=True),
        Component("store", "", ("true",)),
        Component("forecast", "", ("true",), waits_for=("store",)),
    )
    stack = Stack(layout.data_dir)
    stack._supervisor = OneProcess(layout, "STOPPED", lambda: 0)
    monkeypatch.setattr(stack, "components", lambda: {each.name: each for each in parts})
    monkeypatch.setattr(stack, "_preflight", lambda _wanted, *, everything: None)  # noqa: ARG005 - called by its name
    monkeypatch.setattr(stack, "_start_one", lambda each, _report, *, prepares: steps.append(each.name))  # noqa: ARG005 - called by its name
    monkeypatch.setattr(runtime, "remember_current", lambda _data_dir: None)
    stack.up(before_the_rest=lambda: steps.append("forecasts"))
    assert steps == ["store", "forecast", "forecasts", "postgres", "mlflow"]
    steps.clear()
    stack._supervisor = OneProcess(layout, "RUNNING")
    stack.up(before_the_rest=lambda: steps.append("forecasts"))
    assert "forecasts" not in steps, "nothing is left to be started"

    def start(each: Component, _report: object, *, prepares: bool) -> None:  # noqa: ARG001 - called by its name
        if each.name == "forecast":
            raise StackError("forecast did not start")
        steps.append(each.name)

    steps.clear()
    stack._supervisor = OneProcess(layout, "STOPPED", lambda: 0)
    monkeypatch.setattr(stack, "_start_one", start)
    with pytest.raises(StackError, match="forecast did not start"):
        stack.up(before_the_rest=lambda: steps.append("forecasts"))
    assert steps == ["store", "postgres", "mlflow"], "the failure of one component keeps no other from starting"


class OneProcess(Supervisor):
    """A supervisor whose only process is always in the same state; `next_pid` gives its process id."""

    def __init__(self, layout: Layout, state: str, next_pid: Callable[[], int] = lambda: 1) -> None:
        super().__init__(layout)
        self._state = state
        self._next_pid = next_pid
        self.stopped: list[str] = []

    def state(self, name: str) -> ProcessState:
        return ProcessState(name, self._state, pid=self._next_pid(), started_s=0, now_s=1, reason="")

    def stop_process(self, name: str) -> None:
        self.stopped.append(name)

    def write_conf(self, components: Iterable[Component]) -> None:
        pass

    def start(self) -> None:
        pass


def refuse() -> None:
    msg = "no answer"
    raise TimeoutError(msg)


@pytest.mark.parametrize(
    ("state", "message", "stopped"),
    [
        ("BACKOFF", r"kafka \(the log\) exited while it started \(BACKOFF\)", ["kafka"]),
        (
            "RUNNING",
            r"kafka \(the log\) is not healthy after 0 s: TimeoutError: no answer. It has made no progress",
            [],
        ),
    ],
)
@pytest.mark.usefixtures("clock")
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


class Opening:
    """A database that logs a line in each of `steps` checks and answers after the last of them."""

    def __init__(self, log: Path, steps: int) -> None:
        self._log = log
        self._left = steps

    def __call__(self) -> None:
        if not self._left:
            return
        self._left -= 1
        with self._log.open("a") as file:
            file.write(f"{self._left} tables left\n")
        refuse()


class Clock:
    """The time of a start: it passes only while the start waits."""

    def __init__(self) -> None:
        self.at_s = 100.0

    def monotonic(self) -> float:
        return self.at_s

    def sleep(self, seconds: float) -> None:
        self.at_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(runtime, "time", made)
    monkeypatch.setattr(progress, "time", made)
    return made


@pytest.fixture
def starting(
    layout: Layout,
    clock: Clock,  # noqa: ARG001 - its time is that of the start
    monkeypatch: pytest.MonkeyPatch,
) -> Stack:
    """A stack that checks its starting processes every 20 ms and reports every 100 ms; no process uses the processor."""
    monkeypatch.setattr(runtime, "POLL_S", 0.02)
    monkeypatch.setattr(runtime, "REPORT_S", 0.1)
    monkeypatch.setattr(progress, "_cpu_s", lambda _pid: 0.0)
    stack = Stack(layout.data_dir)
    stack._supervisor = OneProcess(layout, "RUNNING")
    return stack


def test_a_start_that_makes_progress_may_take_longer_than_one_that_makes_none(starting: Stack, clock: Clock) -> None:
    log = starting.layout.log("questdb")
    log.touch()
    opening = Component("questdb", "database", ("true",), check=Opening(log, 50), start_timeout_s=0.4)
    reports: list[tuple[str, str]] = []
    began_s = clock.at_s
    starting._wait_healthy(opening, lambda *report: reports.append(report))
    assert clock.at_s - began_s > 2 * 0.4, "the deadline followed the progress"
    name, text = reports[0]
    assert name == "questdb"
    assert re.fullmatch(r"still starting after 0 s: TimeoutError: no answer. Its log: \d+ tables left", text)


def test_a_start_without_progress_is_given_up(starting: Stack) -> None:
    log = starting.layout.log("questdb")
    log.touch()
    hanging = Component("questdb", "database", ("true",), check=refuse, start_timeout_s=0.4)
    with pytest.raises(StackError, match=r"no answer\. It has made no progress for 0 s"):
        starting._wait_healthy(hanging)


def test_processor_time_is_progress(starting: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    used_s = (0.2 * number for number in range(10_000))
    monkeypatch.setattr(progress, "_cpu_s", lambda _pid: next(used_s))
    answers = iter([True] * 40 + [False])
    busy = Component("questdb", "database", ("true",), check=lambda: refuse() if next(answers) else None,
                     start_timeout_s=0.3)  # fmt: skip
    starting._wait_healthy(busy)


def test_progress_without_end_is_given_up_at_the_bound(starting: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "START_BOUND_S", 0.6)
    log = starting.layout.log("questdb")
    log.touch()
    endless = Component("questdb", "database", ("true",), check=Opening(log, 10_000), start_timeout_s=0.4)
    with pytest.raises(
        StackError, match="is not healthy after 1 s: TimeoutError: no answer\\. The end of its log"
    ) as caught:
        starting._wait_healthy(endless)
    assert "no progress" not in str(caught.value)


def test_a_process_that_exits_again_and_again_is_given_up(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "POLL_S", 0.0)
    pids = iter(range(1, 100))
    stack = Stack(layout.data_dir)
    stack._supervisor = OneProcess(layout, "EXITED", lambda: next(pids))
    with pytest.raises(StackError, match="exited 3 times while it started: TimeoutError: no answer"):
        stack._wait_healthy(Component("kafka", "the log", ("true",), check=refuse))
