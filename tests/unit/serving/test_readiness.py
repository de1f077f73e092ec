"""`/healthz` and `/readyz`: what a system says while it starts, serves, and fails."""

from __future__ import annotations

import dataclasses

import pytest

from btc_core.errors import ServiceError
from serving.readiness import readiness
from tests.serving_world import World, build, feature_row, forecast_row


@pytest.fixture
def world() -> World:
    return build()


def test_healthz_depends_on_no_other_process(world: World) -> None:
    world.newest.error = ServiceError("away")
    response = world.client.get("/healthz")
    assert (response.status_code, response.get_json()) == (200, {"status": "alive"})
    assert world.newest.reads == 0


def test_readyz_is_503_with_what_it_waits_for_until_there_is_a_fresh_forecast(world: World) -> None:
    response = world.client.get("/readyz")
    assert response.status_code == 503
    body = response.get_json()
    markets = body.pop("markets")
    assert [(market["symbol"], market["status"]) for market in markets] == [
        ("BTC/USD", "starting"),
        ("ETH/USD", "starting"),
    ]
    assert (markets[1]["waits_for"], markets[1]["reasons"]) == (["the models of ETH/USD"], [])
    assert body == {
        "status": "starting",
        "simulated": True,
        "waits_for": ["the models of BTC/USD", "the models of ETH/USD"],
        "reasons": [],
        "feature_age_s": None,
        "forecast_age_s": None,
        "models": {"bid": {"kind": None, "version": None}, "volatility": {"kind": None, "version": None}},
    }
    world.load_models()
    assert world.client.get("/readyz").get_json()["waits_for"][0] == "the first features of BTC/USD"
    world.newest.feature_row = feature_row(0.1)
    assert world.client.get("/readyz").get_json()["waits_for"][0] == "the first forecast of BTC/USD"
    world.newest.forecast_row, world.newest.feature_row = forecast_row(11.0), feature_row(11.0)
    response = world.client.get("/readyz")
    assert (response.status_code, response.get_json()["status"]) == (503, "not_ready")
    assert response.get_json()["reasons"] == [
        f"the forecast of {symbol} is 11.0 s old, at most 10 s is allowed" for symbol in ("BTC/USD", "ETH/USD")
    ]


def test_while_models_are_loaded_nobody_is_told_to_train_one(world: World) -> None:
    world.newest.feature_row = feature_row(0.1)
    assert "are being loaded" in world.client.get("/v1/forecast").get_json()["detail"]


def test_a_start_that_takes_too_long_and_a_forecast_that_is_gone_are_called_not_ready(world: World) -> None:
    world.load_models()
    assert world.client.get("/readyz").get_json()["status"] == "starting"
    world.clock.now += 301 * 10**9
    body = world.client.get("/readyz").get_json()
    assert (body["status"], body["waits_for"]) == ("not_ready", [])
    assert body["reasons"] == [f"there is no forecast of {symbol} in Redis" for symbol in ("BTC/USD", "ETH/USD")]


def test_a_forecast_that_has_expired_is_no_start(world: World) -> None:
    world.load_models()
    world.newest.forecast_row, world.newest.feature_row = forecast_row(0.25), feature_row(0.125)
    assert world.client.get("/readyz").status_code == 200
    world.newest.forecast_row = None
    assert world.client.get("/readyz").get_json()["status"] == "not_ready"


def test_readyz_is_200_with_a_fresh_forecast_and_names_the_models(world: World) -> None:
    world.load_models()
    world.newest.forecast_row, world.newest.feature_row = forecast_row(0.25), feature_row(0.125)
    response = world.client.get("/readyz")
    assert response.status_code == 200
    body = response.get_json()
    assert [market["status"] for market in body.pop("markets")] == ["ready", "ready"]
    assert body == {
        "status": "ready",
        "simulated": True,
        "waits_for": [],
        "reasons": [],
        "feature_age_s": 0.125,
        "forecast_age_s": 0.25,
        "models": {"bid": {"kind": "random_walk", "version": "3"}, "volatility": {"kind": "xgboost", "version": "7"}},
    }


def test_readyz_names_a_suspended_table_and_is_ready_all_the_same(world: World) -> None:
    world.load_models()
    world.newest.forecast_row, world.newest.feature_row = forecast_row(0.25), feature_row(0.125)
    problem = "QuestDB has suspended bronze_trades: it acknowledges rows and does not show them, 3 transactions wait"
    state = readiness(dataclasses.replace(world.deps, storage_problems=lambda: (problem,)))
    assert (state.status, state.reasons) == ("ready", (problem,))


def test_readyz_says_that_redis_does_not_answer(world: World) -> None:
    world.newest.error = ServiceError("Redis does not answer")
    response = world.client.get("/readyz")
    assert response.status_code == 503
    assert response.get_json()["reasons"][0] == "Redis does not answer"
