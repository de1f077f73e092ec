"""Whether forecasts are served right now, and if not, why: the body of `/readyz` and the event `health` of the stream.

What does not belong here: alerts, which are made from the metrics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from btc_core.clock import NS_PER_S
from btc_core.errors import BtcError
from btc_core.names import BID
from btc_core.registry.champions import NOT_LOADED
from serving.answers import MarketReadiness, ModelInfo, Models, Readiness, ServedModel, ServedModels
from serving.forecasts import is_stale
from serving.metrics import START_S
from serving.served_forecast import age_s, model_info, models_of

if TYPE_CHECKING:
    from btc_core.market.messages import ForecastRow
    from btc_core.registry.champions import Champions
    from btc_core.stores.redis_rows import FeatureRow
    from serving.deps import Deps

WORST_FIRST = ("not_ready", "starting", "waits_for_bars", "ready")
"""The states of a market. The system has the worst state of its markets."""


def readiness(deps: Deps) -> Readiness:
    """Ready if every market has a fresh forecast in Redis, from models or flagged baselines.

    A market that has too few bars for a model does not count, unless it is the only one. A market that is not ready for
    another reason than the start of the system counts before one that starts.
    """
    markets = market_states(deps)
    counted = [market for market in markets if market.status != "waits_for_bars"] or list(markets)
    shown = min(counted, key=lambda market: WORST_FIRST.index(market.status))
    reasons = [reason for market in markets for reason in market.reasons] + list(deps.models.reasons)
    if shown.status == "starting":
        reasons = [reason for reason in reasons if reason != NOT_LOADED]
    waited = [each for market in counted for each in market.waits_for] if shown.status == "starting" else []
    return Readiness(
        status=shown.status,
        simulated=deps.settings.simulated,
        waits_for=tuple(dict.fromkeys(waited)),
        reasons=tuple(dict.fromkeys([*reasons, *deps.storage_problems()])),
        feature_age_s=shown.feature_age_s,
        forecast_age_s=shown.forecast_age_s,
        models=ServedModels(bid=_served_model(shown.models.bid), volatility=_served_model(shown.models.volatility)),
        markets=markets,
    )


def market_states(deps: Deps) -> tuple[MarketReadiness, ...]:
    """The state of each market that is followed."""
    models = deps.models.current
    return tuple(_market_state(deps, models, symbol) for symbol in deps.settings.exchange.symbols)


def _market_state(deps: Deps, models: Champions, symbol: str) -> MarketReadiness:
    features: FeatureRow | None = None
    row: ForecastRow | None = None
    reasons: list[str] = []
    try:
        row = deps.newest_rows.forecast(symbol)
        features = deps.newest_rows.features(symbol)
    except BtcError as error:
        reasons.append(str(error))
    now_ns = deps.clock.now_ns()
    is_fresh = row is not None and not is_stale(deps, now_ns, row.ts_recv_ns)
    if row is not None:
        deps.forecast_seen.add(symbol)
    waits = row is None and models.waits_for_bars(symbol)
    is_starting = not reasons and not waits and _is_starting(deps, symbol, now_ns)
    if row is None and not reasons and not is_starting and not waits:
        reasons.append(f"there is no forecast of {symbol} in Redis")
    elif row is not None and not is_fresh:
        limit_s = deps.settings.api.max_feature_age_s
        age = age_s(now_ns, row.ts_recv_ns)
        reasons.append(f"the forecast of {symbol} is {age:.1f} s old, at most {limit_s:g} s is allowed")
    serving = _models_of(row) if row is not None else models_of(models.bid(symbol), models.volatility(symbol))
    is_ready = is_fresh and serving.bid.kind is not None and serving.volatility.kind is not None
    return MarketReadiness(
        symbol=symbol,
        status="ready" if is_ready else "waits_for_bars" if waits else "starting" if is_starting else "not_ready",
        waits_for=(_next_step(models, symbol, features),) if is_starting else (),
        reasons=tuple(reasons),
        feature_age_s=age_s(now_ns, features.ts_recv_ns) if features is not None else None,
        forecast_age_s=age_s(now_ns, row.ts_recv_ns) if row is not None else None,
        models=serving,
    )


def _is_starting(deps: Deps, symbol: str, now_ns: int) -> bool:
    """Whether this process waits for the first forecast of a market, for no longer than a start takes."""
    awaited_ns = deps.forecast_awaited_ns.setdefault(symbol, now_ns)
    return symbol not in deps.forecast_seen and now_ns - awaited_ns < START_S * NS_PER_S


def _next_step(models: Champions, symbol: str, features: FeatureRow | None) -> str:
    """What a market that starts waits for."""
    if not models.can_forecast(symbol, BID):
        return f"the models of {symbol}"
    return f"the first {'features' if features is None else 'forecast'} of {symbol}"


def _models_of(row: ForecastRow) -> Models:
    return Models(
        bid=model_info(row.bid_model_kind, row.bid_model_version),
        volatility=model_info(row.volatility_model_kind, row.volatility_model_version),
    )


def _served_model(model: ModelInfo) -> ServedModel:
    return ServedModel(kind=model.kind, version=model.version)
