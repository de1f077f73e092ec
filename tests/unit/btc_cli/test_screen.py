"""What `btc up` says at its end."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from rich.console import Console

from btc_cli import screen
from btc_core.settings import Settings
from stack.status import Status

if TYPE_CHECKING:
    import pytest


def test_nothing_in_the_table_of_components_is_cut_off_in_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    told = io.StringIO()
    monkeypatch.setattr(screen, "console", Console(file=told, width=80))
    address = "http://127.0.0.1:24010/metrics"
    ages_s = {"dagster-daemon": 59 * 60 + 59, "dagster-code": 23 * 3_600 + 59 * 60, "features-2": 99 * 86_400}
    statuses = [
        Status(name, "", "restarting", address, 4_194_304, 1_203, age_s, False, "") for name, age_s in ages_s.items()
    ]
    screen.components(statuses, Settings())
    shown = told.getvalue()
    assert "…" not in shown
    assert shown.count("4194304") == 3
    for age in ("59m59s", "23h59m", "99d00h"):
        assert age in shown


def served(symbol: str, version: str) -> dict[str, Any]:
    models = {name: {"kind": "harx", "version": version} for name in ("bid", "volatility")}
    return {"symbol": symbol, "status": "ready", "reasons": [], "models": models}


def test_each_of_several_markets_is_named_with_its_models_or_with_the_reason_for_having_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    waiting = served("NEW/USD", "") | {"status": "waits_for_bars", "reasons": ["too few bars"]}
    answer = {"status": "ready", "feature_age_s": 0.5, "models": served("BTC/USD", "3")["models"]}
    screen.readiness(answer | {"markets": [served("BTC/USD", "3"), served("ETH/USD", "8"), waiting]}, Settings())
    said = capsys.readouterr().out
    assert "Serving 3 markets" in said
    assert "ETH/USD: bid by harx version 8, volatility by harx version 8" in said
    assert "NEW/USD: too few bars" in said
    screen.readiness(answer | {"markets": [served("BTC/USD", "3")]}, Settings())
    assert "Serving: bid by harx version 3" in capsys.readouterr().out


def card(symbol: str, **of_the_bid: Any) -> dict[str, Any]:
    bid = {"kind": "random_walk", "version": "1", "is_baseline": True, "serves_because": "It serves."} | of_the_bid
    return {"symbol": symbol, "bid": bid, "volatility": {"kind": "xgboost", "version": "1", "is_baseline": False}}


def test_the_end_of_up_gives_the_reason_for_each_baseline_and_ends_with_the_live_page(
    capsys: pytest.CaptureFixture[str],
) -> None:
    reason = "“No change” serves, because no model was certainly better on unseen data."
    answer = {"status": "ready", "feature_age_s": 0.5, "models": {}, "markets": [served("BTC/USD", "1")]}
    screen.readiness(answer, Settings(), [card("BTC/USD", serves_because=reason)])
    said = capsys.readouterr().out.splitlines()
    (why,) = [line for line in said if "baseline" in line]
    assert why == f"A baseline forecasts the bid. {reason} Each training, which runs every night, tries trees again."
    assert said[0].startswith("Serving: bid by random_walk version 1, volatility by xgboost version 1;"), (
        "a model that was loaded between both answers"
    )
    assert said[-1] == "Live page: http://127.0.0.1:5050/live"
    screen.readiness(answer, Settings(), [card("BTC/USD", version="builtin"), card("ETH/USD", kind="ar")])
    said = capsys.readouterr().out.splitlines()
    assert said[1].startswith("A baseline forecasts the bid of BTC/USD. ")
    assert "A training registers one" in said[1]
    assert said[2].startswith("A baseline forecasts the bid of ETH/USD. ")
    assert said[2].endswith("tries trees again.")
    screen.readiness({"status": "starting"}, Settings())
    assert capsys.readouterr().out.splitlines()[-1].endswith("/live")


def test_the_table_says_which_components_start_after_the_first_forecast(capsys: pytest.CaptureFixture[str]) -> None:
    statuses = [
        Status(name, "", "healthy", "", 1, 1, 1, False, "", after_forecasts=is_later)
        for name, is_later in {"questdb": False, "mlflow": True, "dagster-web": True}.items()
    ]
    screen.components(statuses, Settings())
    assert "These start after the first forecast, because no forecast needs them: mlflow, dagster-web." in (
        capsys.readouterr().out
    )
