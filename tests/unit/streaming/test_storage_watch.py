"""When a suspended table is resumed: at once, then after pauses that double, and never by skipping a transaction."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import pytest

from btc_core.errors import QuestDBError
from btc_core.stores.questdb_wal import WalState
from streaming.storage_watch import Resumer

BAD = WalState("bronze_trades", suspended=True, lag_transactions=7, error="DISK FULL", is_view=False)
GOOD = WalState("bronze_trades", suspended=False, lag_transactions=0, error="", is_view=False)
VIEW = WalState("gold_1min", suspended=True, lag_transactions=1, error="", is_view=True)


class Statements:
    """Keeps the statements; refuses those that name `refused`."""

    def __init__(self, refused: str = "") -> None:
        self.run: list[str] = []
        self._refused = refused

    def __call__(self, sql: str) -> list[list[Any]]:
        if self._refused and self._refused in sql:
            raise QuestDBError("no such table")
        self.run.append(sql)
        return []


def test_a_table_and_a_view_are_resumed_from_the_transaction_that_failed() -> None:
    execute = Statements()
    Resumer().look(execute, [BAD, VIEW, GOOD], 0.0)
    assert execute.run == ['ALTER TABLE "bronze_trades" RESUME WAL', 'ALTER MATERIALIZED VIEW "gold_1min" RESUME WAL']


def test_the_pause_between_attempts_doubles_up_to_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    execute, resumer, at_s = Statements(), Resumer(), []
    with caplog.at_level(logging.ERROR):
        for second in range(400):
            before = len(execute.run)
            resumer.look(execute, [BAD], float(second))
            at_s += [second] * (len(execute.run) - before)
    assert [later - earlier for earlier, later in itertools.pairwise(at_s)] == [
        5,
        10,
        20,
        40,
        60,
        60,
        60,
        60,
        60,
    ]
    assert caplog.records[1].getMessage() == (
        "QuestDB has suspended bronze_trades (DISK FULL): it acknowledges rows and does not show them, 7 transactions wait; "
        "attempt 2 to resume it"
    )


def test_a_table_that_was_healthy_for_ten_minutes_is_resumed_at_once_again() -> None:
    execute, resumer = Statements(), Resumer()
    for second in range(100):
        resumer.look(execute, [BAD], float(second))
    tries = len(execute.run)
    resumer.look(execute, [GOOD], 300.0)
    resumer.look(execute, [BAD], 301.0)
    resumer.look(execute, [BAD], 302.0)
    assert len(execute.run) == tries + 1, "it was healthy only for moments: the long pause holds"
    resumer.look(execute, [GOOD], 1_000.0)
    resumer.look(execute, [BAD], 1_001.0)
    resumer.look(execute, [BAD], 1_006.0)
    assert len(execute.run) == tries + 3


def test_a_table_that_cannot_be_resumed_does_not_keep_the_others_waiting() -> None:
    execute, resumer = Statements(refused="bronze_trades"), Resumer()
    with pytest.raises(QuestDBError):
        resumer.look(execute, [BAD, VIEW], 0.0)
    resumer.look(execute, [BAD, VIEW], 1.0)
    assert execute.run == ['ALTER MATERIALIZED VIEW "gold_1min" RESUME WAL']


def test_a_large_lag_is_a_problem_and_a_small_one_is_not() -> None:
    behind = WalState("silver_features", suspended=False, lag_transactions=301, error="", is_view=False)
    assert behind.problem == "QuestDB does not show the newest rows of silver_features yet: 301 transactions wait"
    assert not GOOD.problem
