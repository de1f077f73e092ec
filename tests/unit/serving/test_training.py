"""Starting a training: one run at a time, also for requests of the same moment."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from btc_core.errors import ServiceError
from btc_core.settings import Settings
from btc_core.stores import dagster
from serving.training import DagsterTrainer

pytestmark = pytest.mark.unit


def test_two_requests_of_the_same_moment_start_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[str] = []
    launching, may_end = Event(), Event()

    def launch(*_: object) -> str:
        launching.set()
        may_end.wait(10.0)
        launched.append("run-1")
        return "run-1"

    monkeypatch.setattr(dagster, "unfinished_run", lambda *_: launched[-1] if launched else "")
    monkeypatch.setattr(dagster, "launch_job", launch)
    monkeypatch.setattr(dagster, "run_status", lambda *_: "QUEUED")
    trainer = DagsterTrainer(Settings())
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(trainer.launch)
        assert launching.wait(10.0)
        second = pool.submit(trainer.launch)
        may_end.set()
    assert [first.result().is_new, second.result().is_new] == [True, False]
    assert launched == ["run-1"]


def test_the_answer_has_the_status_that_dagster_gives_and_none_if_it_gives_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(*_: object) -> str:
        raise ServiceError("Dagster does not answer")

    monkeypatch.setattr(dagster, "unfinished_run", lambda *_: "run-1")
    monkeypatch.setattr(dagster, "run_status", lambda *_: "NOT_STARTED")
    trainer = DagsterTrainer(Settings())
    assert (trainer.launch().is_new, trainer.launch().status) == (False, "not_started")
    monkeypatch.setattr(dagster, "run_status", unknown)
    assert (trainer.launch().run_id, trainer.launch().status) == ("run-1", None)
