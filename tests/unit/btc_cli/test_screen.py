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
