"""The views of the old paths: forecasts from live or posted features, and two that try out a connection.

What does not belong here: how a forecast comes about (`serving.forecasts`).
"""

from __future__ import annotations

from http import HTTPStatus

from flask import Blueprint, Response, request
from msgspec import UNSET

from btc_core.features.catalogue import FEATURE_VERSION
from btc_core.names import BID, VOLATILITY, Quantity
from serving.answers import respond
from serving.deps import deps
from serving.endpoints import SymbolQuery, documented
from serving.forecasts import forecast_rows, newest_forecast
from serving.legacy.answers import Batch, Echo, Forecast, Test, forecast_body
from serving.legacy.bodies import ANY_JSON, FEATURE_BODY, decode_json, parse_features
from serving.problem_details import Problem
from serving.served_forecast import Origin, models_of
from serving.symbols import default_symbol, requested_symbol

blueprint = Blueprint("legacy", __name__)

_REFUSALS = (404, 503)


@blueprint.get("/predict_bid")
@documented("forecasts", Forecast, query=SymbolQuery, problems=_REFUSALS, is_fast=True)
def predict_bid() -> Response:
    """The bid at each horizon, from live features."""
    return _from_live_features(BID)


@blueprint.post("/predict_bid")
@documented("forecasts", Forecast, Batch, query=SymbolQuery, body=FEATURE_BODY, problems=_REFUSALS)
def predict_bid_from_posted_features() -> Response:
    """The bid at each horizon, from the features in the body."""
    return _from_posted_features(BID)


@blueprint.get("/predict_volatility")
@blueprint.get("/predict_vol")
@documented("forecasts", Forecast, query=SymbolQuery, problems=_REFUSALS, is_fast=True)
def predict_volatility() -> Response:
    """The volatility over each horizon, from live features."""
    return _from_live_features(VOLATILITY)


@blueprint.post("/predict_volatility")
@blueprint.post("/predict_vol")
@documented("forecasts", Forecast, Batch, query=SymbolQuery, body=FEATURE_BODY, problems=_REFUSALS)
def predict_volatility_from_posted_features() -> Response:
    """The volatility over each horizon, from the features in the body."""
    return _from_posted_features(VOLATILITY)


@blueprint.get("/test")
@documented("state", Test)
def test() -> Response:
    """Whether the API works, and which models it has loaded."""
    models, symbol = deps().models.current, default_symbol(deps().settings)
    return respond(
        Test(
            message="The API works.",
            feature_version=FEATURE_VERSION,
            models=models_of(models.bid(symbol), models.volatility(symbol)),
            simulated=deps().settings.simulated,
        )
    )


@blueprint.post("/test_post")
@documented("state", Echo, body=ANY_JSON)
def test_post() -> Response:
    """The JSON of the request, sent back."""
    return respond(Echo(message="The API read this.", received=decode_json(request.get_data())))


def _from_live_features(quantity: Quantity) -> Response:
    symbol = requested_symbol(request.args.get("symbol", UNSET))
    forecast = newest_forecast(deps(), symbol, quantity)
    return respond(forecast_body(forecast, quantity, simulated=deps().settings.simulated))


def _from_posted_features(quantity: Quantity) -> Response:
    symbol = requested_symbol(request.args.get("symbol", UNSET))
    posted = parse_features(request.get_data())
    now_ns = deps().clock.now_ns()
    origins = [Origin("request", now_ns, FEATURE_VERSION, bid_usd) for bid_usd in posted.bids_usd]
    bodies = []
    forecasts = forecast_rows(deps().models.current, symbol, quantity, posted.matrix, origins)
    for index, forecast in enumerate(forecasts):
        if not forecast.is_finite:
            raise _not_finite(f"rows[{index}]" if posted.is_batch else "features")
        bodies.append(forecast_body(forecast, quantity, simulated=deps().settings.simulated))
    return respond(Batch(forecasts=bodies) if posted.is_batch else bodies[0])


def _not_finite(where: str) -> Problem:
    return Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "no_finite_forecast",
        f"{where} give no finite forecast with these models; give at least the log_rv_ features, in their units",
    )
