"""Clients that ask for the same rows at once share one read."""

from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from btc_core.clock import NS_PER_S
from btc_core.errors import ServiceError
from serving.app import create_app
from serving.shared_reads import KEPT_S, MAX_KEPT, SharedReads
from serving.stored_rows import MAX_READS, QuestRows
from tests.serving_world import FakeClock, build

VIEWERS = 5


class SlowDatabase:
    """Answers once `released` is set, without rows, and notes the queries."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.released = threading.Event()

    def execute(self, sql: str) -> list[list[Any]]:
        self.asked.append(sql)
        assert self.released.wait(20)
        return []


@pytest.mark.parametrize("path", ["/v1/forecasts?step_s=5&limit=240&intervals=true", "/v1/bars?limit=240"])
def test_five_viewers_at_once_all_get_their_past_from_one_read(path: str) -> None:
    assert VIEWERS > MAX_READS
    world = build()
    rows, database, arrived = (
        QuestRows(world.deps.settings.questdb, world.clock),
        SlowDatabase(),
        threading.Semaphore(0),
    )
    rows._db = database  # type: ignore[assignment]
    app = create_app(dataclasses.replace(world.deps, stored_rows=rows))
    app.before_request(arrived.release)

    with ThreadPoolExecutor(VIEWERS) as viewers:
        answers = [viewers.submit(lambda: app.test_client().get(path)) for _ in range(VIEWERS)]
        for _ in range(VIEWERS):
            assert arrived.acquire(timeout=20)
        database.released.set()
        statuses = [answer.result(20).status_code for answer in answers]

    assert statuses == [200] * VIEWERS
    assert len(database.asked) == len(set(database.asked)) <= 3, "each query was made once"


def test_a_result_is_shared_for_some_seconds_and_only_by_the_same_question() -> None:
    clock, asked = FakeClock(), []
    reads = SharedReads(clock)

    def read() -> int:
        asked.append(1)
        return len(asked)

    assert [reads.get("a", read), reads.get("a", read), reads.get("b", read)] == [1, 1, 2]
    clock.now += round((KEPT_S + 0.1) * NS_PER_S)
    assert reads.get("a", read) == 3


def test_a_failure_is_not_kept_and_old_results_are_forgotten() -> None:
    clock = FakeClock()
    reads = SharedReads(clock)

    def fail() -> int:
        raise ServiceError("QuestDB does not answer")

    with pytest.raises(ServiceError, match="does not answer"):
        reads.get("a", fail)
    assert reads.get("a", lambda: 7) == 7
    for key in range(3 * MAX_KEPT):
        clock.now += NS_PER_S // 1_000
        reads.get(key, lambda: 0)
    assert len(reads._reads) <= MAX_KEPT + 1
