"""What `btc up` does until forecasts are served: which models it trains, and what it waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from btc_cli import first_forecast
from btc_core.errors import StackError
from btc_core.features.catalogue import FEATURE_VERSION
from btc_core.models.manifest import LAYOUT
from btc_core.settings import Settings
from btc_core.stores.mlflow import MlflowClient, ModelVersion

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
    assert first_forecast.missing_champions(Settings()) == ["volatility-model"]
    versions = {"volatility-model": FEATURE_VERSION}
    assert first_forecast.missing_champions(Settings()) == ["bid-price-model"]
    layout = str(LAYOUT - 1)
    assert set(first_forecast.missing_champions(Settings())) == {"bid-price-model", "volatility-model"}


def trained_through(monkeypatch: pytest.MonkeyPatch, *statuses: str) -> list[str]:
    """Let a training run go through these statuses; returns the list of lines that will be printed."""
    monkeypatch.setattr(first_forecast, "POLL_S", 0.0)
    monkeypatch.setattr(first_forecast, "launch_job", lambda _settings, _job, _tags: "run-1")
    remaining = iter(statuses)
    monkeypatch.setattr(first_forecast, "run_status", lambda _settings, _run: next(remaining, statuses[-1]))
    return []


def test_training_reports_each_status_once_and_ends_with_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = trained_through(monkeypatch, "QUEUED", "STARTED", "STARTED", "FAILURE")
    assert first_forecast.train(Settings(), lines.append) == "FAILURE"
    assert [line.split()[4] for line in lines] == ["queued", "started", "failure"]
    assert "/runs/run-1" in lines[0]


def test_training_that_does_not_end_is_an_error_that_says_where_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_forecast, "TRAINING_TIMEOUT_S", 0.01)
    lines = trained_through(monkeypatch, "STARTED")
    with pytest.raises(StackError, match=r"follow it at http://.*/runs/run-1"):
        first_forecast.train(Settings(), lines.append)


def test_readiness_with_champions_waits_until_no_built_in_baseline_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_forecast, "POLL_S", 0.0)
    versions = iter(["builtin", "builtin", "3"])
    answers: list[dict[str, Any]] = []

    def get(_url: str, **_: Any) -> httpx.Response:
        if not answers:
            answers.append({})
            raise httpx.ConnectError("refused")
        answers.append({"status": "ready", "models": {"bid": {"version": next(versions)}}})
        return httpx.Response(200, json=answers[-1])

    monkeypatch.setattr(first_forecast.httpx, "get", get)
    assert first_forecast.wait_ready(Settings(), with_champions=True) == answers[-1]
    assert len(answers) == 4


def test_an_api_that_is_not_ready_in_time_is_returned_with_its_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    starting = {"status": "starting", "reasons": ["no features yet"]}
    monkeypatch.setattr(first_forecast.httpx, "get", lambda _url, **_: httpx.Response(503, json=starting))
    assert first_forecast.wait_ready(Settings(), timeout_s=0.0) == starting
