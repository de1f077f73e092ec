"""What `btc up` does until forecasts are served: what it waits for."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from btc_cli import first_forecast
from btc_core.settings import Settings
from btc_core.stores.shared_http import shared_client

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

    monkeypatch.setattr(shared_client(), "get", get)
    assert first_forecast.wait_ready(Settings(), with_champions=True) == answers[-1]
    assert len(answers) == 4


def test_an_api_that_is_not_ready_in_time_is_returned_with_its_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    starting = {"status": "starting", "waits_for": ["the first features of BTC/USD"], "reasons": []}
    monkeypatch.setattr(shared_client(), "get", lambda _url, **_: httpx.Response(503, json=starting))
    assert first_forecast.wait_ready(Settings(), timeout_s=0.0) == starting
    said: list[str] = []
    monkeypatch.setattr(first_forecast, "FIRST_FORECAST_TIMEOUT_S", 0.0)
    first_forecast.announce_forecasts(Settings(), said.append)
    assert said[0].startswith("No forecast is served yet: it waits for the first features of BTC/USD. The components")


def test_the_cards_of_ready_markets_are_asked_for_with_the_token_for_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, str]]] = []

    def get(url: str, *, params: dict[str, str], headers: dict[str, str], **_: Any) -> httpx.Response:
        asked.append((params["symbol"], headers))
        status = 200 if params["symbol"] == "BTC/USD" else 503
        return httpx.Response(status, json={"symbol": params["symbol"]}, request=httpx.Request("GET", url))

    monkeypatch.setattr(shared_client(), "get", get)
    monkeypatch.setenv("BTC_API_READ_TOKENS", "us=0123456789abcdef")
    states = {"BTC/USD": "ready", "ETH/USD": "ready", "NEW/USD": "waits_for_bars"}
    answer = {"markets": [{"symbol": symbol, "status": status} for symbol, status in states.items()]}
    assert first_forecast.serving_cards(Settings(), answer) == [{"symbol": "BTC/USD"}]
    assert asked == [(symbol, {"Authorization": "Bearer 0123456789abcdef"}) for symbol in ("BTC/USD", "ETH/USD")]
