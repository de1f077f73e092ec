"""The bodies of the old paths, made from the same forecasts as those of `/v1`.

What does not belong here: bodies that requests send (`legacy.bodies`), and how a forecast comes about.
"""

from __future__ import annotations

from typing import Any

import msgspec

from btc_core.names import HORIZONS_MIN, Quantity
from serving.answers import Models, Source, Unit, iso
from serving.served_forecast import MarketForecast, annual_pct


class Prediction(msgspec.Struct, frozen=True):
    """The requested quantity alone; `path` has the same numbers."""

    quantity: Quantity
    unit: Unit
    horizons_min: tuple[int, ...]
    values: tuple[float | None, ...]


class HorizonPoint(msgspec.Struct, frozen=True):
    """The forecast for one horizon. The volatility is over the whole horizon; the baselines are the random walk and HARX."""

    horizon_min: int
    bid_usd: float | None
    bid_bps: float | None
    baseline_bid_usd: float | None
    sigma_bps: float
    sigma_annualized_pct: float
    baseline_sigma_bps: float | None


class Forecast(msgspec.Struct, frozen=True):
    """A forecast, and what is needed to judge it. Fields that posted features leave open are null."""

    symbol: str
    prediction: Prediction
    bid: float | None
    path: tuple[HorizonPoint, ...]
    made_at: str
    ts_event: str | None
    ts_recv: str | None
    feature_age_s: float | None
    models: Models
    feature_version: str
    source: Source
    simulated: bool


class Batch(msgspec.Struct, frozen=True):
    """The forecasts for the rows of a batch, in their order."""

    forecasts: list[Forecast]


class Test(msgspec.Struct, frozen=True):
    """The answer of `/test`."""

    message: str
    feature_version: str
    models: Models
    simulated: bool


class Echo(msgspec.Struct, frozen=True):
    """The answer of `/test_post`."""

    message: str
    received: Any


def forecast_body(forecast: MarketForecast, quantity: Quantity, *, simulated: bool) -> Forecast:
    """The body for a forecast, with `quantity` as its prediction.

    The bid model may be missing if `quantity` is the volatility.
    """
    origin = forecast.origin
    return Forecast(
        symbol=forecast.volatility.symbol,
        prediction=_prediction(forecast, quantity),
        bid=origin.bid_usd,
        path=tuple(_point(forecast, index, horizon) for index, horizon in enumerate(HORIZONS_MIN)),
        made_at=iso(origin.made_at_ns),
        ts_event=iso(origin.ts_event_ns) if origin.ts_event_ns is not None else None,
        ts_recv=iso(origin.ts_recv_ns) if origin.ts_recv_ns is not None else None,
        feature_age_s=origin.feature_age_s,
        models=forecast.models,
        feature_version=origin.feature_version,
        source=origin.source,
        simulated=simulated,
    )


def _prediction(forecast: MarketForecast, quantity: Quantity) -> Prediction:
    served = forecast.of(quantity)
    return Prediction(quantity=quantity, unit=served.unit, horizons_min=HORIZONS_MIN, values=tuple(served.path))


def _point(forecast: MarketForecast, index: int, horizon_min: int) -> HorizonPoint:
    bid, volatility = forecast.bid, forecast.volatility
    return HorizonPoint(
        horizon_min=horizon_min,
        bid_usd=bid.path[index] if bid is not None and bid.unit == "USD" else None,
        bid_bps=bid.path_bps[index] if bid is not None else None,
        baseline_bid_usd=forecast.origin.bid_usd,
        sigma_bps=volatility.path[index],
        sigma_annualized_pct=annual_pct(volatility.path[index], index),
        baseline_sigma_bps=volatility.baseline_path[index],
    )
