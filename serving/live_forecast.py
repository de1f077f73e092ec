"""The newest forecast, features and models as `/v1` answers them.

What does not belong here: how a forecast comes about (`forecasts`), and the past (`history`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from btc_core.clock import NS_PER_MIN, NS_PER_MS
from btc_core.errors import NotReady
from btc_core.features.catalogue import FEATURE_NAMES
from btc_core.names import BASELINE_KINDS, HORIZONS_MIN, LEVELS_PCT
from serving.answers import (
    HorizonForecast,
    Interval,
    LiveFeatures,
    LiveForecast,
    LoadedModels,
    ModelCard,
    SigmaInterval,
    iso,
)
from serving.forecasts import Made, Paths, age_s, annual_pct, from_worker, is_current, is_stale, newest

if TYPE_CHECKING:
    from btc_core.models.bundle import BidModel, VolatilityModel
    from btc_core.stores.redis_rows import ForecastRow
    from serving.deps import Deps

WIDEST_FIRST = tuple(sorted(LEVELS_PCT, reverse=True))
"""90, 80 and 50: the outermost pair of quantiles first."""
NO_INTERVALS = {
    "worker": "the models behind this forecast give no intervals; train them again",
    "api": "the API made this forecast because the worker is behind; intervals come with the worker's",
    "request": "",
}
NO_BASELINE_INTERVALS = "the features are stale and the baseline of the last row is served"


def live_forecast(deps: Deps, symbol: str, *, baseline_when_stale: bool = False) -> LiveForecast:
    """The newest forecast; 503 as `forecasts.live` gives it, or the flagged baseline of the last row when asked for."""
    now_ns = deps.clock.now_ns()
    row = deps.store.forecast(symbol)
    if row is not None and is_current(row, now_ns):
        return _of_row(deps, row, now_ns)
    if row is not None and baseline_when_stale and is_stale(deps, now_ns, row.ts_recv_ns):
        features = deps.store.features(symbol)
        if features is None or is_stale(deps, now_ns, features.ts_recv_ns):
            return _answer(from_worker(deps, row, now_ns, however_old=True), baseline=True)
    return _answer(newest(deps, symbol, "bid"), baseline=False)


def _of_row(deps: Deps, row: ForecastRow, now_ns: int) -> LiveForecast:
    """The answer of a worker's row: put together once, then only its age changes until the next row is read."""
    held = deps.answered.get(row.symbol)
    if held is None or held[0] is not row:
        held = deps.answered[row.symbol] = (row, _answer(from_worker(deps, row, now_ns), baseline=False))
    return msgspec.structs.replace(held[1], feature_age_s=age_s(now_ns, row.ts_recv_ns))


def _answer(made: Made, *, baseline: bool) -> LiveForecast:
    paths, origin, bids_usd = made.paths, made.provenance, made.bids_usd()
    if paths.bid is None or paths.bid_bps is None or bids_usd is None or origin.ts_event_ns is None:
        raise NotReady("there is no bid yet; ask again in a second")
    sigmas = paths.baseline_sigma_bps if baseline else paths.sigma_bps
    return LiveForecast(
        symbol=origin.symbol,
        bid_usd=paths.bid,
        horizons=tuple(
            HorizonForecast(
                horizon_min=horizon,
                at=iso(origin.ts_event_ns + horizon * NS_PER_MIN),
                bid_usd=paths.bid if baseline else bids_usd[index],
                bid_bps=0.0 if baseline else paths.bid_bps[index],
                sigma_bps=sigmas[index],
                sigma_annualized_pct=annual_pct(sigmas[index], index),
                intervals=() if baseline else _bid_intervals(paths, index),
                sigma_intervals=() if baseline else _sigma_intervals(paths, index),
                baseline_bid_usd=paths.bid,
                baseline_sigma_bps=paths.baseline_sigma_bps[index],
            )
            for index, horizon in enumerate(HORIZONS_MIN)
        ),
        intervals_reason=_no_intervals(made, baseline=baseline),
        served="baseline" if baseline else "model",
        stale=baseline,
        models=origin.models,
        made_at=iso(origin.made_at_ns),
        ts_event=iso(origin.ts_event_ns),
        ts_recv=iso(origin.ts_recv_ns or origin.ts_event_ns),
        feature_age_s=origin.feature_age_s or 0.0,
        latency_ms=round((origin.made_at_ns - origin.ts_event_ns) / NS_PER_MS, 3),
        feature_version=origin.feature_version,
        source=origin.source,
        simulated=origin.simulated,
    )


def _pairs(bounds: list[list[float]], index: int) -> list[tuple[int, float, float]]:
    """Level, low and high of each interval of one horizon, from its ascending quantiles."""
    if not bounds:
        return []
    quantiles = bounds[index]
    return [(level, quantiles[place], quantiles[-1 - place]) for place, level in enumerate(WIDEST_FIRST)]


def _bid_intervals(paths: Paths, index: int) -> tuple[Interval, ...]:
    return tuple(Interval(*pair) for pair in _pairs(paths.bid_bounds_usd, index))


def _sigma_intervals(paths: Paths, index: int) -> tuple[SigmaInterval, ...]:
    return tuple(SigmaInterval(*pair) for pair in _pairs(paths.sigma_bounds_bps, index))


def _no_intervals(made: Made, *, baseline: bool) -> str | None:
    if baseline:
        return NO_BASELINE_INTERVALS
    return None if made.paths.bid_bounds_usd else NO_INTERVALS[made.provenance.source]


def live_features(deps: Deps, symbol: str) -> LiveFeatures:
    """The newest features, however old, with their age; 503 when there are none."""
    row = deps.store.features(symbol)
    if row is None:
        raise NotReady(f"there are no features of {symbol} in Redis yet; `btc status` shows whether the workers run")
    now_ns = deps.clock.now_ns()
    return LiveFeatures(
        symbol=row.symbol,
        values={
            name: value if math.isfinite(value) else None for name, value in zip(FEATURE_NAMES, row.values, strict=True)
        },
        ts_event=iso(row.ts_event_ns),
        ts_recv=iso(row.ts_recv_ns),
        age_s=age_s(now_ns, row.ts_recv_ns),
        stale=is_stale(deps, now_ns, row.ts_recv_ns),
        feature_version=row.feature_version,
        simulated=deps.settings.simulated,
    )


def loaded_models(deps: Deps) -> LoadedModels:
    """The models this process has loaded."""
    current = deps.models.current
    return LoadedModels(
        bid=_card(current.bid),
        volatility=_card(current.volatility),
        reasons=deps.models.reasons,
        simulated=deps.settings.simulated,
    )


def _card(model: BidModel | VolatilityModel | None) -> ModelCard | None:
    if model is None:
        return None
    manifest = model.manifest
    return ModelCard(
        name=manifest.name,
        kind=manifest.kind,
        version=manifest.version,
        is_baseline=manifest.kind in BASELINE_KINDS,
        created_at=iso(manifest.created_ns),
        trained_from=iso(manifest.trained_from_ns) if manifest.trained_from_ns else None,
        trained_to=iso(manifest.trained_to_ns) if manifest.trained_to_ns else None,
        train_rows=manifest.train_rows,
        features=len(manifest.features),
        feature_version=manifest.feature_version,
        targets=manifest.targets,
        unit=manifest.unit,
        shrinkage=manifest.shrinkage,
        scores={name: score if math.isfinite(score) else None for name, score in manifest.scores.items()},
    )
