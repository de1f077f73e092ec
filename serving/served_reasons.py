"""Why a model or a baseline serves, in one sentence. The API, the live page and `btc up` all show these sentences.

What does not belong here: the gate's own words about a version (`gate_decisions`).
"""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING

from btc_core.names import (
    BASELINE_KINDS,
    HEADLINE_MIN,
    TOO_FEW_BARS,
    VOLATILITY,
    WON_IN_SHADOW,
    ModelKey,
    Quantity,
)
from serving.served_forecast import STALE_KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serving.answers import ModelInfo
    from serving.deps import Deps
    from serving.model_answers import GateDecision
    from serving.served_forecast import MarketForecast

NAMES = {
    "random_walk": "“No change”", "ar": "The autoregression", "harx": "HARX", "har": "HAR", "ewma": "EWMA",
    "naive": "The volatility of the last minutes",
}  # fmt: skip
"""What begins the sentence, by the kind of the baseline."""
_TREES = "XGBoost"
SHORT_HISTORY = "history_short"
"""The reason of the quality with which the forecast worker says that the trees had too few minute bars."""


def forecast_reason(deps: Deps, forecast: MarketForecast, quantity: Quantity) -> str | None:
    """Why a baseline made the forecast of a quantity; None if a model did. Waits for no server."""
    part = forecast.of(quantity)
    if forecast.is_stale_baseline:
        return f"{NAMES[STALE_KINDS[quantity]]} makes this forecast, because the features are too old for the model."
    if not part.model.is_baseline:
        return None
    version = part.model.version or ""
    if quantity == VOLATILITY and _lacks_bars(deps, forecast, part.symbol, part.model):
        name = NAMES.get(part.model.kind or "", "A baseline")
        return f"{name} makes this forecast, because minute bars are missing that the trees and the net of version {version} need."
    decision = deps.known_gate_decision(ModelKey(part.symbol, quantity), version) if version.isdigit() else None
    return version_reason(quantity, part.model.kind or "", version, decision)


def version_reason(
    quantity: Quantity,
    kind: str,
    version: str,
    gate: GateDecision | None,
    scores: Mapping[str, float] = MappingProxyType({}),
) -> str:
    """Why a version serves: from its kind, from what the registry says about it, and from its scores on unseen rows if given."""
    is_baseline = kind in BASELINE_KINDS or not kind
    name = NAMES.get(kind, "A baseline") if is_baseline else _TREES
    if not version.isdigit():
        return f"{name} serves until a trained model can be loaded."
    if gate is None:
        return f"{name}{', a baseline,' if is_baseline else ''} serves. The model registry has not said yet why."
    if gate.took_over_from:
        return f"{name} serves: it took over from version {gate.took_over_from}, whose live forecasts were worse."
    if gate.reason.startswith(WON_IN_SHADOW):
        return f"{name} serves: in shadow its live loss was certainly lower than that of the baseline."
    change = _change(scores) if quantity == VOLATILITY else None
    if is_baseline:
        return _of_baseline(name, gate, change)
    return f"{name} serves: its loss was {change}." if change else f"{name} serves, because it passed the gate."


def _of_baseline(name: str, gate: GateDecision, change: str | None) -> str:
    """Why a baseline serves that took over from no champion; `change` compares the trees that were tried with HARX."""
    if change:
        return f"{name} serves: the loss of XGBoost was {change}, which is not certainly better."
    if gate.reason.startswith(TOO_FEW_BARS):
        return f"{name} serves, because there are too few minute bars yet to judge a model."
    return f"{name} serves, because no model was certainly better on unseen data."


def _change(scores: Mapping[str, float]) -> str | None:
    """How the loss of the volatility's trees compares with HARX's at the headline horizon; None if one of them is not known."""
    trees, harx = (scores.get(f"{name}/{HEADLINE_MIN}m/qlike", math.nan) for name in ("xgboost", "harx"))
    if not trees > 0.0 or not harx > 0.0:
        return None
    percent = 100.0 * (trees / harx - 1.0)
    rows = f"{scores['test_rows']:,.0f} unseen rows" if scores.get("test_rows") else "unseen rows"
    return f"{abs(percent):.1f} % {'lower' if percent < 0.0 else 'higher'} than HARX’s on {rows}"


def _lacks_bars(deps: Deps, forecast: MarketForecast, symbol: str, made_by: ModelInfo) -> bool:
    """Whether the champion has trees that could not be used: the worker says so, or its loaded version is of another kind."""
    if forecast.quality is not None and SHORT_HISTORY in forecast.quality.reasons:
        return True
    loaded = deps.models.current.volatility(symbol)
    return loaded is not None and loaded.version == made_by.version and loaded.kind != made_by.kind
