"""Several markets: each is forecast by its own models and has its own state."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from btc_core.exchange_settings import ExchangeSettings
from btc_core.models.bundle import random_walk_model
from btc_core.names import BID, HORIZONS_MIN, VOLATILITY, ModelKey
from btc_core.registry.champions import Champions
from tests.serving_world import World, build, forecast_row, harx_model


@pytest.fixture
def world() -> World:
    return build()


def test_a_market_is_forecast_by_its_own_models_and_by_no_others() -> None:
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
    assert models.bid("SOL/USD") is None
    assert models.volatility("ETH/USD") is None
    assert models.can_forecast("BTC/USD", BID)
    assert not models.can_forecast("SOL/USD", BID)
    assert not models.can_forecast("ETH/USD", BID)


def test_the_api_is_ready_when_every_market_has_a_fresh_forecast(world: World) -> None:
    world.load_models()
    rows = {"BTC/USD": forecast_row(0.25)}
    world.newest.forecast = rows.get  # type: ignore[method-assign]
    response = world.client.get("/readyz")
    assert response.status_code == 503
    assert response.get_json()["waits_for"] == ["the first features of ETH/USD"]
    assert response.get_json()["forecast_age_s"] is None, "of the market that is not ready"
    rows["ETH/USD"] = forecast_row(0.5)
    response = world.client.get("/readyz")
    assert response.status_code == 200
    assert response.get_json()["forecast_age_s"] == 0.25
    rows["BTC/USD"] = forecast_row(20.0)
    body = world.client.get("/readyz").get_json()
    assert body["status"] == "not_ready"
    assert body["forecast_age_s"] == 20.0


def test_a_market_with_too_few_bars_for_a_model_does_not_make_the_others_unready(world: World) -> None:
    world.source.too_few_bars = ("ETH/USD",)
    world.load_models()
    world.newest.forecast = {"BTC/USD": forecast_row(0.25)}.get  # type: ignore[method-assign]
    response = world.client.get("/readyz")
    assert response.status_code == 200
    states = {market["symbol"]: market for market in response.get_json()["markets"]}
    assert {symbol: state["status"] for symbol, state in states.items()} == {
        "BTC/USD": "ready",
        "ETH/USD": "waits_for_bars",
    }
    problem = world.client.get("/v1/forecast?symbol=ETH/USD")
    assert problem.status_code == 503


def test_the_models_of_each_market_are_shown_with_its_name_and_its_own_reasons(world: World) -> None:
    world.source.too_few_bars = ("ETH/USD",)
    world.load_models()
    first, second = (world.client.get(f"/v1/model?symbol={symbol}").get_json() for symbol in ("BTC/USD", "ETH/USD"))
    assert world.client.get("/v1/model").get_json() == first
    assert (first["symbol"], first["volatility"]["registered_name"]) == ("BTC/USD", "volatility-model")
    assert (first["volatility"]["pool"], first["volatility"]["choice"]) == ([], "")
    assert first["reasons"] == []
    assert (second["symbol"], second["bid"], second["volatility"]) == ("ETH/USD", None, None)
    assert all("ETHUSD" in reason for reason in second["reasons"])
    assert world.client.get("/v1/model?symbol=SOL/USD").status_code == 404


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


def test_a_market_on_another_exchange_is_asked_for_by_its_whole_symbol() -> None:
    perpetual = "BTC/USDT@binance-perp"
    world = build(exchange=ExchangeSettings(markets="kraken:BTC/USD,binance-perp:BTC/USDT"))
    world.load_models()
    rows = {"BTC/USD": forecast_row(0.25), perpetual: forecast_row(0.5, symbol=perpetual, bid=59_990.0)}
    world.newest.forecast = rows.get  # type: ignore[method-assign]
    for url in (f"/v1/forecast?symbol={perpetual}", f"/v1/forecast?symbol={quote(perpetual, safe='')}"):
        answer = world.client.get(url)
        assert answer.status_code == 200, answer.get_data(as_text=True)
        assert (answer.get_json()["symbol"], answer.get_json()["bid_usd"]) == (perpetual, 59_990.0)
    assert world.client.get("/v1/forecast").get_json()["symbol"] == "BTC/USD"
    models = world.client.get(f"/v1/model?symbol={quote(perpetual, safe='')}").get_json()
    assert models["symbol"] == perpetual
    answer = world.client.get("/v1/markets").get_json()
    markets = answer["markets"]
    assert answer["horizons_min"] == list(HORIZONS_MIN)
    assert [(each["symbol"], each["status"]) for each in markets] == [("BTC/USD", "ready"), (perpetual, "ready")]
    unknown = world.client.get("/v1/forecast?symbol=BTC/USDT")
    assert unknown.status_code == 404
    assert perpetual in unknown.get_json()["detail"]
