"""What `btc up` does until forecasts are served: what it waits for."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from btc_cli import first_forecast
from btc_core.settings import Settings

pytestmark = pytest.mark.unit


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

    monkeypatch.setattr(first_forecast.shared_client(), "get", get)
    assert first_forecast.wait_ready(Settings(), with_champions=True) == answers[-1]
    assert len(answers) == 4


def test_an_api_that_is_not_ready_in_time_is_returned_with_its_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    starting = {"status": "starting", "waits_for": ["the first features of BTC/USD"], "reasons": []}
    monkeypatch.setattr(first_forecast.shared_client(), "get", lambda _url, **_: httpx.Response(503, json=starting))
    assert first_forecast.wait_ready(Settings(), timeout_s=0.0) == starting
    said: list[str] = []
    monkeypatch.setattr(first_forecast, "FIRST_FORECAST_TIMEOUT_S", 0.0)
    first_forecast.announce_forecasts(Settings(), said.append)
    assert said[0].startswith("No forecast is served yet: it waits for the first features of BTC/USD. The components")
