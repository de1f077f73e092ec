"""Forecasts: `/predict_bid`, `/predict_volatility` (also as `/predict_vol`), and the order of a feature list.

What does not belong here: how a forecast comes about (`serving.forecasts`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, Response, request
from msgspec import UNSET

from btc_core.features.catalogue import FEATURE_VERSION, FEATURES, MODEL_FEATURES
from serving.answers import Batch, FeatureOrder, Forecast, OrderedFeature, respond
from serving.deps import deps
from serving.endpoints import SymbolQuery, promises
from serving.forecasts import from_given, live
from serving.legacy.bodies import given
from serving.symbols import followed

if TYPE_CHECKING:
    from btc_core.names import Quantity

blueprint = Blueprint("forecast", __name__)

_BY_NAME = {feature.name: feature for feature in FEATURES}
_ORDER = FeatureOrder(
    feature_version=FEATURE_VERSION,
    count=len(MODEL_FEATURES),
    features=tuple(
        OrderedFeature(index=index, name=name, unit=_BY_NAME[name].unit, meaning=_BY_NAME[name].meaning)
        for index, name in enumerate(MODEL_FEATURES)
    ),
)


_REFUSALS = (404, 503)


@blueprint.get("/predict_bid")
@promises("forecasts", Forecast, query=SymbolQuery, problems=_REFUSALS)
def predict_bid() -> Response:
    """The bid 1 to 5 minutes ahead, from live features."""
    return respond(live(deps(), followed(request.args.get("symbol", UNSET)), "bid"))


@blueprint.post("/predict_bid")
@promises("forecasts", Forecast, Batch, query=SymbolQuery, body="FeatureBody", problems=_REFUSALS)
def predict_bid_given() -> Response:
    """The bid 1 to 5 minutes ahead, from the features in the body."""
    return _from_body("bid")


@blueprint.get("/predict_volatility")
@blueprint.get("/predict_vol")
@promises("forecasts", Forecast, query=SymbolQuery, problems=_REFUSALS)
def predict_volatility() -> Response:
    """The volatility over the next 1 to 5 minutes, from live features."""
    return respond(live(deps(), followed(request.args.get("symbol", UNSET)), "volatility"))


@blueprint.post("/predict_volatility")
@blueprint.post("/predict_vol")
@promises("forecasts", Forecast, Batch, query=SymbolQuery, body="FeatureBody", problems=_REFUSALS)
def predict_volatility_given() -> Response:
    """The volatility over the next 1 to 5 minutes, from the features in the body."""
    return _from_body("volatility")


@blueprint.get("/v1/features/order")
@promises("market", FeatureOrder)
def feature_order() -> Response:
    """The order of a feature list, with units and meaning."""
    return respond(_ORDER)


def _from_body(quantity: Quantity) -> Response:
    symbol = followed(request.args.get("symbol", UNSET))
    checked = given(request.get_data())
    forecasts = from_given(deps(), checked, symbol, quantity)
    return respond(Batch(forecasts=forecasts) if checked.is_batch else forecasts[0])
