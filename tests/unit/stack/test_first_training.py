"""The training at the first start: which models are missing, what is said about the run, and when the service fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from btc_core.clock import NS_PER_DAY, now_ns
from btc_core.errors import ServiceError, StackError
from btc_core.features.catalogue import FEATURE_VERSION
from btc_core.models.manifest import LAYOUT
from btc_core.settings import Settings
from btc_core.stores.mlflow import MlflowClient, ModelVersion
from btc_core.utc_day import day_of
from stack import first_training

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.unit


def test_a_model_without_a_champion_and_one_of_other_features_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    versions: Mapping[str, str] = {"bid-price-model": FEATURE_VERSION, "volatility-model": "an older version"}
    layout = str(LAYOUT)

    def aliased_version(_client: MlflowClient, name: str, _alias: str) -> ModelVersion | None:
        version = versions.get(name)
        tags = {"kind": "harx", "feature_version": str(version), "layout": layout}
        return None if version is None else ModelVersion("1", "s3://mlflow/1", 0, tags)

    monkeypatch.setattr(MlflowClient, "aliased_version", aliased_version)
    assert first_training.missing_champions(Settings()) == ["volatility-model"]
    versions = {"volatility-model": FEATURE_VERSION}
    assert first_training.missing_champions(Settings()) == ["bid-price-model"]
    layout = str(LAYOUT - 1)
    assert set(first_training.missing_champions(Settings())) == {"bid-price-model", "volatility-model"}


def test_a_champion_of_other_horizons_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def aliased_version(_client: MlflowClient, name: str, _alias: str) -> ModelVersion:
        horizons = {"horizons_min": "2,10,30"} if name == "bid-price-model" else {}
        tags = {"feature_version": FEATURE_VERSION, "layout": str(LAYOUT)} | horizons
        return ModelVersion("1", "s3://mlflow/1", 0, tags)

    monkeypatch.setattr(MlflowClient, "aliased_version", aliased_version)
    assert first_training.missing_champions(Settings()) == ["bid-price-model"]


def trained_through(monkeypatch: pytest.MonkeyPatch, *statuses: str) -> list[str]:
    """Let a training run go through these statuses; returns the list of lines that will be printed."""
    monkeypatch.setattr(first_training, "POLL_S", 0.0)
    monkeypatch.setattr(first_training, "launch_job", lambda _settings, _job, _tags: "run-1")
    remaining = iter(statuses)
    monkeypatch.setattr(first_training, "run_status", lambda _settings, _run: next(remaining, statuses[-1]))
    return []


def test_training_reports_each_status_once_and_ends_with_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = trained_through(monkeypatch, "QUEUED", "STARTED", "STARTED", "FAILURE")
    assert first_training.train(Settings(), lines.append) == "FAILURE"
    assert [line.split()[4] for line in lines] == ["queued", "started", "failure"]
    assert "/runs/run-1" in lines[0]


def test_a_training_is_followed_on_after_an_answer_that_came_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = trained_through(monkeypatch, "")
    answers = iter(["STARTED", ServiceError("Dagster does not answer"), "STARTED", "SUCCESS"])

    def status(_settings: Settings, _run: str) -> str:
        answer = next(answers)
        if isinstance(answer, ServiceError):
            raise answer
        return answer

    monkeypatch.setattr(first_training, "run_status", status)
    assert first_training.train(Settings(), lines.append) == "SUCCESS"
    said = [line.removeprefix("training the first models: ").partition(" (")[0] for line in lines]
    assert said == ["started", "not known for now, Dagster does not answer", "started", "success"]


def test_training_that_does_not_end_is_an_error_that_says_where_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_training, "TRAINING_TIMEOUT_S", 0.01)
    lines = trained_through(monkeypatch, "STARTED")
    with pytest.raises(StackError, match=r"follow it at http://.*/runs/run-1"):
        first_training.train(Settings(), lines.append)


def test_the_service_trains_what_is_missing_and_fails_when_the_run_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    for missing, statuses, code in (([], ("FAILURE",), 0), (["bid"], ("SUCCESS",), 0), (["bid"], ("FAILURE",), 1)):
        monkeypatch.setattr(first_training, "missing_champions", lambda _settings, missing=missing: missing)
        trained_through(monkeypatch, *statuses)
        monkeypatch.setattr(first_training, "_give_dagster_results", lambda _settings, _say: None)
        assert first_training.main() == code


def test_a_new_system_fetches_yesterday_and_one_with_a_past_or_many_markets_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    launched: list[object] = []
    stored: dict[str, int] = {}
    monkeypatch.setattr("btc_core.days.stored_days.stored_days", lambda _db, _table: stored)
    monkeypatch.setattr(first_training, "launch_backfill", lambda *arguments: launched.append(arguments[1:3]))
    now = now_ns()
    monkeypatch.setattr(first_training, "now_ns", lambda: now)
    today, yesterday, lines = day_of(now), day_of(now - NS_PER_DAY), []
    stored[today] = 10
    first_training.fetch_yesterday(Settings(), lines.append)
    assert launched == [(("bronze_history",), (yesterday,))]
    assert yesterday in lines[0]
    markets = tuple(f"C{number}/USD" for number in range(first_training.PAST_DAY_MAX_MARKETS + 1))
    first_training.fetch_yesterday(Settings(exchange={"symbols": markets}), lines.append)
    stored[yesterday] = 1
    first_training.fetch_yesterday(Settings(), lines.append)
    assert len(launched) == len(lines) == 1


@pytest.mark.parametrize(("missing", "calls"), [(["bid-price-model"], 1), ([], 0)])
def test_what_can_be_done_meanwhile_begins_only_with_a_training(
    monkeypatch: pytest.MonkeyPatch, missing: list[str], calls: int
) -> None:
    monkeypatch.setattr(first_training, "missing_champions", lambda _settings: missing)
    monkeypatch.setattr(first_training, "train", lambda _settings, _say: "FAILURE")
    called: list[str] = []
    first_training.train_missing(Settings(), lambda _line: None, lambda: called.append("now"))
    assert len(called) == calls


@pytest.mark.parametrize(("mode", "fetched", "checks"), [("live", True, 1), ("sim", True, 0), ("sim", False, 1)])
def test_the_tables_are_checked_after_the_first_training_where_no_day_is_fetched(
    monkeypatch: pytest.MonkeyPatch, mode: str, *, fetched: bool, checks: int
) -> None:
    launched: list[str] = []
    monkeypatch.setattr(first_training, "missing_champions", lambda _settings: ["bid-price-model"])
    monkeypatch.setattr(first_training, "train", lambda _settings, _say: "SUCCESS")
    monkeypatch.setattr(first_training, "fetch_yesterday", lambda _settings, _say: fetched)
    monkeypatch.setattr(first_training, "launch_job", lambda _settings, job, _tags: launched.append(job) or "run-1")
    monkeypatch.setattr(Settings, "simulated", property(lambda _settings: mode == "sim"))
    settings = Settings(exchange={"history_url": "https://history.example"})
    lines: list[str] = []
    assert first_training.train_missing(settings, lines.append) == "SUCCESS"
    assert launched == ["check_tables"] * checks
    assert sum("checking the tables" in line for line in lines) == checks
    monkeypatch.setattr(first_training, "missing_champions", lambda _settings: [])
    first_training.train_missing(settings, lines.append)
    assert len(launched) == checks, "a later start checks nothing"


def test_a_dagster_that_does_not_answer_leaves_the_checks_to_the_night(monkeypatch: pytest.MonkeyPatch) -> None:
    def launch_job(*_: object) -> str:
        raise ServiceError("Dagster does not answer")

    monkeypatch.setattr(first_training, "launch_job", launch_job)
    lines: list[str] = []
    first_training._give_dagster_results(Settings(), lines.append)
    assert lines == [
        "the tables are not checked yet: Dagster does not answer. The job check_tables runs each day at 00:30 UTC"
    ]
