"""Intervals of a forecast that the API makes: with the quantiles in force in the newest forecast of the forecast worker.

The quantiles are in units of a forecast and move a little with each outcome, so those of a minute ago still hold. They belong
to a model, so they are taken only if both models are those of the worker's forecast. What does not belong here: how outcomes
move quantiles (`btc_core.models.intervals`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from btc_core.models.intervals import bid_bounds_bps, bid_score, volatility_bounds_bps, volatility_score
from serving.served_forecast import BPS, from_worker_row

if TYPE_CHECKING:
    import numpy.typing as npt

    from btc_core.market.messages import ForecastRow
    from serving.served_forecast import MarketForecast, ServedForecast


def with_intervals_of(forecast: MarketForecast, row: ForecastRow | None) -> MarketForecast:
    """A forecast with the intervals that the quantiles of the worker's row give; unchanged if it has none or is of other models."""
    if row is None or not row.bid_bounds_usd or not row.sigma_bounds_bps:
        return forecast
    worker = from_worker_row(row, row.made_at_ns)
    if worker.bid is None or worker.models != forecast.models or forecast.bid is None:
        return forecast
    with np.errstate(invalid="ignore", divide="ignore"):  # unknown tails are NaN and stay so
        return msgspec.structs.replace(
            forecast,
            bid=_bid(forecast.bid, forecast.volatility, worker.bid, worker.volatility),
            volatility=_volatility(forecast.volatility, worker.volatility),
        )


def _bid(
    bid: ServedForecast, volatility: ServedForecast, worker_bid: ServedForecast, worker_volatility: ServedForecast
) -> ServedForecast:
    start = bid.origin.bid_usd
    worker_start = worker_bid.origin.bid_usd
    if start is None or worker_start is None:
        return bid
    returns_bps = BPS * np.log(np.asarray(worker_bid.bounds) / worker_start)
    quantiles = bid_score(returns_bps, _column(worker_bid.path_bps), _column(worker_volatility.path))
    bounds_bps = bid_bounds_bps(quantiles, np.asarray(bid.path_bps), np.asarray(volatility.path))
    return msgspec.structs.replace(bid, bounds=(start * np.exp(bounds_bps / BPS)).tolist())


def _volatility(volatility: ServedForecast, worker: ServedForecast) -> ServedForecast:
    quantiles = volatility_score(np.square(worker.bounds), np.square(_column(worker.path)))
    bounds = volatility_bounds_bps(quantiles, np.asarray(volatility.path))
    return msgspec.structs.replace(volatility, bounds=bounds.tolist())


def _column(path: list[float]) -> npt.NDArray[np.float64]:
    """A path as (horizons, 1), beside quantiles of (horizons, 8)."""
    return np.asarray(path)[:, np.newaxis]
