"""The program that prepares the servers of the containers: what it tries again, and what ends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg2
import pytest

from btc_core.errors import BtcError, ConfigError, StoreError
from btc_core.settings import Settings
from stack import prepare

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS = ("databases", "buckets", "topics", "tables")


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[BtcError | psycopg2.Error]]:
    """What each step raises at its next calls; after that it succeeds."""
    raised: dict[str, list[BtcError | psycopg2.Error]] = {name: [] for name in STEPS}

    def step(name: str) -> Callable[[Settings], None]:
        def run(_settings: Settings) -> None:
            if raised[name]:
                raise raised[name].pop(0)

        run.__name__ = name
        return run

    for name in STEPS:
        monkeypatch.setattr(prepare, name, step(name))
    monkeypatch.setattr(prepare, "load_settings", Settings)
    monkeypatch.setattr(prepare, "PAUSE_S", 0.0)
    return raised


def test_a_server_that_does_not_answer_yet_is_asked_again(
    answers: dict[str, list[BtcError | psycopg2.Error]], caplog: pytest.LogCaptureFixture
) -> None:
    answers["databases"] = [psycopg2.OperationalError("timeout expired")] * 2
    answers["buckets"] = [StoreError("no objects can be stored")]
    assert prepare.main() == 0
    assert not any(answers.values())
    assert [record.getMessage() for record in caplog.records] == [
        "databases: timeout expired",
        "databases: timeout expired",
        "buckets: no objects can be stored",
    ]


def test_a_server_that_never_answers_ends_it_with_the_reason(
    answers: dict[str, list[BtcError | psycopg2.Error]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(prepare, "PATIENCE_S", 0.0)
    answers["topics"] = [StoreError("Kafka does not answer")]
    assert prepare.main() == 1
    assert caplog.records[-1].getMessage() == "stopped: Kafka does not answer"


def test_data_of_another_market_is_refused_at_once(
    answers: dict[str, list[BtcError | psycopg2.Error]], caplog: pytest.LogCaptureFixture
) -> None:
    answers["topics"] = [ConfigError("Kafka holds the data of 'sim-kraken'")]
    assert prepare.main() == 1
    assert [record.getMessage() for record in caplog.records] == ["stopped: Kafka holds the data of 'sim-kraken'"]
