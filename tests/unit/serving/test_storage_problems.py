"""What `/readyz` learns about the tables and the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from btc_core.service_settings import QuestdbSettings
from btc_core.settings import DiskSettings, Settings
from btc_core.stores import disk
from serving import storage_problems
from serving.storage_problems import StorageProblems
from tests.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = Settings(questdb=QuestdbSettings(http_url="http://127.0.0.1:1"))


def test_before_the_first_look_nothing_is_wrong() -> None:
    assert StorageProblems(SETTINGS)() == ()


def test_a_questdb_that_does_not_answer_and_a_full_disk_are_both_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "free_bytes", lambda _path: 5)
    problems = StorageProblems(SETTINGS.model_copy(update={"disk": DiskSettings(path=str(tmp_path))}))
    problems.look()
    questdb, full = problems()
    assert questdb.startswith("QuestDB at http://127.0.0.1:1 does not answer")
    assert full == f"only 0.00 GB are free at {tmp_path}: Kafka is stopped, and new frames wait in memory"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_has_ended_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def end() -> None:
        raise ValueError("an answer of another form")

    monkeypatch.setattr(storage_problems, "PERIOD_S", 0.01)
    problems = StorageProblems(SETTINGS)
    monkeypatch.setattr(problems, "look", end)
    problems.start()
    wait_for(lambda: problems() == ("the thread that looks at the tables has ended; restart this process",), "told")
