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
    """What is forecast: `bid` or `volatility`."""
    unit: Unit
    """Unit of the values."""
    horizons_min: tuple[int, ...]
    """Minutes ahead, one for each value."""
    values: tuple[float | None, ...]
    """The forecast at each horizon; null if it is not finite."""


class HorizonPoint(msgspec.Struct, frozen=True):
    """The forecast for one horizon. The volatility is over the whole horizon; the baselines are the random walk and HARX."""

    horizon_min: int
    """Minutes ahead."""
    bid_usd: float | None
    """The bid that is forecast; null without a bid to start from."""
    bid_bps: float | None
    """Log return from the current bid; null without a model of the bid."""
    baseline_bid_usd: float | None
    """The random walk: the current bid."""
    sigma_bps: float
    """Volatility over the whole horizon."""
    sigma_annualized_pct: float
    """The same volatility in percent a year."""
    baseline_sigma_bps: float | None
    """That of HARX."""


class Forecast(msgspec.Struct, frozen=True):
    """A forecast, and what is needed to judge it. Fields that posted features leave open are null."""

    symbol: str
    """Market, such as BTC/USD."""
    prediction: Prediction
    """The requested quantity."""
    bid: float | None
    """The best bid that the forecast starts from, USD."""
    path: tuple[HorizonPoint, ...]
    """Both quantities at each horizon, the longest last."""
    made_at: str
    """When the forecast was made."""
    ts_event: str | None
    """Exchange time of the newest event in the features."""
    ts_recv: str | None
    """When this system received that event."""
    feature_age_s: float | None
    """Time since `ts_recv`."""
    models: Models
    """The models or baselines that made the numbers."""
    feature_version: str
    """Version of the set of features: a hash of names and units."""
    source: Source
    """Who made the forecast: the forecast worker, or this API from the newest features (`api`) or from posted ones (`request`)."""
    simulated: bool
    """True if the market is made up by the simulator."""


class Batch(msgspec.Struct, frozen=True):
    """The forecasts for the rows of a batch, in their order."""

    forecasts: list[Forecast]
    """One forecast for each row."""


class Test(msgspec.Struct, frozen=True):
    """The answer of `/test`."""

    message: str
    """A sentence that says that the API works."""
    feature_version: str
    """Version of the set of features: a hash of names and units."""
    models: Models
    """The models of the first market that are loaded."""
    simulated: bool
    """True if the market is made up by the simulator."""


class Echo(msgspec.Struct, frozen=True):
    """The answer of `/test_post`."""

    message: str
    """A sentence that says that the body was received."""
    received: Any
    """The body of the request."""


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
