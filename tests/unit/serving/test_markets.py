"""Several markets: which models forecast which market, and readiness of all that have models of their own."""

from __future__ import annotations

import pytest

from btc_core.models.bundle import random_walk_model
from btc_core.names import BID, VOLATILITY, ModelKey
from btc_core.registry.champions import Champions
from btc_core.settings import ExchangeSettings
from tests.serving_world import World, build, forecast_row, harx_model


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A world in which both followed markets have models of their own."""
    monkeypatch.setattr(ExchangeSettings, "modelled_symbols", property(lambda exchange: exchange.symbols))
    return build()


def test_a_market_with_models_of_its_own_is_forecast_by_them_and_others_by_the_first() -> None:
    first, second = random_walk_model(), random_walk_model()
    volatility = harx_model()
    models = Champions(
        ("BTC/USD", "ETH/USD"),
        {
            ModelKey("BTC/USD", BID): first,
            ModelKey("BTC/USD", VOLATILITY): volatility,
            ModelKey("ETH/USD", BID): second,
        },
    )
    assert models.bid("BTC/USD") is first
    assert models.bid("ETH/USD") is second
    assert models.bid("SOL/USD") is first
    assert models.volatility("SOL/USD") is volatility
    assert models.volatility("ETH/USD") is None
    assert models.can_forecast("SOL/USD", BID)
    assert not models.can_forecast("ETH/USD", BID)


def test_the_api_is_ready_when_every_market_with_models_has_a_fresh_forecast(world: World) -> None:
    world.load_models()
    rows = {"BTC/USD": forecast_row(0.25)}
    world.newest.forecast = rows.get  # type: ignore[method-assign]
    response = world.client.get("/readyz")
    assert response.status_code == 503
    assert response.get_json()["reasons"] == ["there is no forecast of ETH/USD in Redis yet"]
    assert response.get_json()["forecast_age_s"] is None, "of the market that is not ready"
    rows["ETH/USD"] = forecast_row(0.5)
    response = world.client.get("/readyz")
    assert response.status_code == 200
    assert response.get_json()["forecast_age_s"] == 0.25
    rows["BTC/USD"] = forecast_row(20.0)
    body = world.client.get("/readyz").get_json()
    assert body["status"] == "starting"
    assert body["forecast_age_s"] == 20.0


@pytest.mark.parametrize(
    ("path", "symbol"),
    [("/v1/forecast", "BTC/USD"), ("/predict_bid", "BTC/USD"), ("/v1/forecast?symbol=ETH/USD", "ETH/USD")],
)
def test_a_request_without_a_symbol_is_about_the_first_market_that_is_followed(
    world: World, path: str, symbol: str
) -> None:
    world.newest.forecast = {symbol: forecast_row(symbol=symbol)}.get  # type: ignore[method-assign]
    response = world.client.get(path)
    assert response.status_code == 200
    assert response.get_json()["symbol"] == symbol
