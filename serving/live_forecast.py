"""The body of `GET /v1/forecast`, which is also the event `forecast` of the stream and what the live page shows.

What does not belong here: which forecast is served (`forecasts`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from btc_core.clock import NS_PER_MIN, NS_PER_MS
from btc_core.errors import NotReady
from btc_core.models.intervals import MIN_SCORES
from btc_core.names import BID, HORIZONS_MIN, LEVELS_PCT, VOLATILITY
from serving.answers import HorizonForecast, Interval, LiveForecast, SigmaInterval, iso
from serving.forecasts import is_current, newest_forecast, worker_forecast
from serving.quality_answers import quality_of
from serving.served_forecast import MarketForecast, age_s, annual_pct
from serving.served_reasons import forecast_reason

if TYPE_CHECKING:
    from serving.deps import Deps

WIDEST_FIRST = tuple(sorted(LEVELS_PCT, reverse=True))
"""99, 90, 80 and 50: the level of the outermost pair of quantiles first."""
NO_INTERVALS = {
    "worker": "the models behind this forecast give no intervals; train them again",
    "api": "the API made this forecast because the forecast worker is late, and knows no quantiles of the worker for the same models",
    "request": "",  # forecasts from posted features have another body
}
"""Why there are no intervals, by the source of the forecast."""
NO_WIDE_INTERVALS = (
    f"there is no {LEVELS_PCT[-1]} % interval: it needs {MIN_SCORES} scored forecasts of the market when a model is trained, and the model "
    "of the bid has fewer or is older than this level; train it again"
)
"""Why the widest intervals are missing."""
NO_BASELINE_INTERVALS = "the features are too old, so the baseline of the last forecast is served"


def live_forecast(deps: Deps, symbol: str, *, baseline_when_stale: bool = False) -> LiveForecast:
    """The newest forecast; raises what `newest_forecast` raises.

    The body of a row of the worker is made once. Until there is a newer row, only its age changes.
    """
    now_ns = deps.clock.now_ns()
    row = deps.newest_rows.forecast(symbol)
    if row is None or not is_current(deps, row, now_ns):
        forecast = newest_forecast(deps, symbol, BID, baseline_when_stale=baseline_when_stale)
        return _body(deps, forecast)
    cached = deps.live_forecasts.get(symbol)
    if cached is None or cached[0] is not row:
        cached = (row, _body(deps, worker_forecast(row, now_ns)))
        deps.live_forecasts[symbol] = cached
    return msgspec.structs.replace(cached[1], feature_age_s=age_s(now_ns, row.ts_recv_ns))


def _body(deps: Deps, forecast: MarketForecast) -> LiveForecast:
    bid, volatility, origin = forecast.of(BID), forecast.of(VOLATILITY), forecast.origin
    if origin.bid_usd is None or origin.ts_event_ns is None or origin.ts_recv_ns is None:
        raise NotReady("there is no bid yet; ask again in a second")
    horizons = tuple(
        HorizonForecast(
            horizon_min=horizon,
            at=iso(origin.ts_event_ns + horizon * NS_PER_MIN),
            bid_usd=bid.path[index],
            bid_bps=bid.path_bps[index],
            sigma_bps=volatility.path[index],
            sigma_annualized_pct=annual_pct(volatility.path[index], index),
            intervals=tuple(Interval(*pair) for pair in _level_low_high(bid.bounds, index)),
            sigma_intervals=tuple(SigmaInterval(*pair) for pair in _level_low_high(volatility.bounds, index)),
            baseline_bid_usd=bid.baseline_path[index],
            baseline_sigma_bps=volatility.baseline_path[index],
        )
        for index, horizon in enumerate(HORIZONS_MIN)
    )
    return LiveForecast(
        symbol=bid.symbol,
        bid_usd=origin.bid_usd,
        horizons=horizons,
        intervals_reason=_why_no_intervals(forecast, bid.bounds),
        bid_baseline_reason=forecast_reason(deps, forecast, BID),
        volatility_baseline_reason=forecast_reason(deps, forecast, VOLATILITY),
        quality=quality_of(forecast),
        served="baseline" if forecast.is_stale_baseline else "model",
        stale=forecast.is_stale_baseline,
        models=forecast.models,
        made_at=iso(origin.made_at_ns),
        ts_event=iso(origin.ts_event_ns),
        ts_recv=iso(origin.ts_recv_ns),
        feature_age_s=origin.feature_age_s or 0.0,
        latency_ms=round((origin.made_at_ns - origin.ts_event_ns) / NS_PER_MS, 3),
        feature_version=origin.feature_version,
        source=origin.source,
        simulated=deps.settings.simulated,
    )


def _level_low_high(bounds: list[list[float]], index: int) -> list[tuple[int, float, float]]:
    """Level in percent, low and high of each known interval of one horizon, from its ascending quantiles."""
    if not bounds:
        return []
    quantiles = bounds[index]
    pairs = ((level, quantiles[place], quantiles[-1 - place]) for place, level in enumerate(WIDEST_FIRST))
    return [pair for pair in pairs if math.isfinite(pair[1] + pair[2])]


def _why_no_intervals(forecast: MarketForecast, bounds: list[list[float]]) -> str | None:
    if forecast.is_stale_baseline:
        return NO_BASELINE_INTERVALS
    if not bounds:
        return NO_INTERVALS[forecast.origin.source]
    return None if all(math.isfinite(each) for each in bounds[-1]) else NO_WIDE_INTERVALS
