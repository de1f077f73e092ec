"""Starting a training: one run at a time, also for requests of the same moment."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock

import pytest

from btc_core.errors import ServiceError
from btc_core.settings import Settings
from btc_core.stores import dagster
from serving.training import DagsterTrainer
from tests.waiting import PATIENCE_S, wait_for

pytestmark = pytest.mark.unit


class WatchedLock:
    """A lock that says when somebody has to wait for it."""

    def __init__(self) -> None:
        self.is_awaited = Event()
        self._lock = Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self.is_awaited.set()
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_two_requests_of_the_same_moment_start_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    launched, looks = list[str](), list[str]()
    launching, may_end = Event(), Event()

    def look(*_: object) -> str:
        looks.append(launched[-1] if launched else "")
        return looks[-1]

    def launch(*_: object) -> str:
        launching.set()
        assert may_end.wait(PATIENCE_S)
        launched.append("run-1")
        return "run-1"

    monkeypatch.setattr(dagster, "unfinished_run", look)
    monkeypatch.setattr(dagster, "launch_job", launch)
    monkeypatch.setattr(dagster, "run_status", lambda *_: "QUEUED")
    trainer = DagsterTrainer(Settings())
    trainer._lock = lock = WatchedLock()
    with ThreadPoolExecutor(2) as pool:
        try:
            first = pool.submit(trainer.launch)
            wait_for(launching.is_set, "the first request starts a run")
            second = pool.submit(trainer.launch)
            wait_for(lambda: lock.is_awaited.is_set() or len(looks) > 1, "the second request waits, or looks for a run")
            assert looks == [""], "the second request looks for a run once the first one has started it"
            assert not second.done()
        finally:
            may_end.set()
    assert [first.result().is_new, second.result().is_new] == [True, False]
    assert launched == ["run-1"]
    assert looks == ["", "run-1"]


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
