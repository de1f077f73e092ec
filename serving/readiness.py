"""Whether forecasts are served right now, and if not, why.

What does not belong here: alarms and history; the metrics have those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from btc_core.clock import NS_PER_S
from btc_core.errors import BtcError
from serving.answers import ModelInfo, Models, Readiness, ServedModel, ServedModels
from serving.forecasts import age_s, models_of, row_models

if TYPE_CHECKING:
    from btc_core.market.messages import ForecastRow
    from btc_core.stores.redis_rows import FeatureRow
    from serving.deps import Deps


def readiness(deps: Deps) -> Readiness:
    """Ready means: the first symbol has a fresh forecast in Redis, made by models or by flagged baselines."""
    symbol = deps.settings.exchange.symbols[0]
    features: FeatureRow | None = None
    row: ForecastRow | None = None
    reasons: list[str] = []
    try:
        row = deps.store.forecast(symbol)
        features = deps.store.features(symbol)
    except BtcError as error:
        reasons.append(str(error))
    now_ns = deps.clock.now_ns()
    limit_s = deps.settings.api.max_feature_age_s
    fresh = row is not None and now_ns - row.ts_recv_ns <= limit_s * NS_PER_S
    if row is None and not reasons:
        reasons.append(f"there is no forecast of {symbol} in Redis yet")
    elif row is not None and not fresh:
        age = age_s(now_ns, row.ts_recv_ns)
        reasons.append(f"the forecast of {symbol} is {age:.1f} s old, at most {limit_s:g} s are served")
    models = _serving(models_of(deps.models.current, symbol), row_models(row) if row is not None else None)
    reasons.extend(deps.models.reasons)
    has_models = models.bid.kind is not None and models.volatility.kind is not None
    status: Literal["ready", "starting"] = "ready" if fresh and has_models else "starting"
    return Readiness(
        status=status,
        simulated=deps.settings.simulated,
        reasons=tuple(reasons),
        feature_age_s=age_s(now_ns, features.ts_recv_ns) if features is not None else None,
        forecast_age_s=age_s(now_ns, row.ts_recv_ns) if row is not None else None,
        models=models,
    )


def _serving(loaded: Models, in_row: Models | None) -> ServedModels:
    """The models behind `GET /predict_*`: those of the worker's row, else those loaded here."""
    chosen = in_row or loaded
    return ServedModels(bid=_short(chosen.bid), volatility=_short(chosen.volatility))


def _short(model: ModelInfo) -> ServedModel:
    return ServedModel(kind=model.kind, version=model.version)
