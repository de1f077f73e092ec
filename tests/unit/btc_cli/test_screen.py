"""What `btc up` says at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from btc_cli import screen
from btc_core.settings import Settings

if TYPE_CHECKING:
    import pytest


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
