"""Why a baseline makes a forecast, in one sentence: what happened to the model that would make it otherwise.

What does not belong here: the gate's own words about a version (`gate_decisions`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from btc_core.names import VOLATILITY, ModelKey, Quantity
from serving.served_forecast import STALE_KINDS

if TYPE_CHECKING:
    from serving.answers import ModelInfo
    from serving.deps import Deps
    from serving.model_answers import GateDecision
    from serving.served_forecast import MarketForecast

NAMES = {
    "random_walk": "“No change”", "ar": "The autoregression", "harx": "HARX", "har": "HAR", "ewma": "EWMA",
    "naive": "The volatility of the last minutes",
}  # fmt: skip
"""What begins the sentence, by the kind of the baseline."""
SHORT_HISTORY = "history_short"
"""The reason of the quality with which the forecast worker says that the trees had too few minute bars."""


def baseline_reason(deps: Deps, forecast: MarketForecast, quantity: Quantity) -> str | None:
    """Why a baseline made the forecast of a quantity; None if a model did. Waits for no server."""
    part = forecast.of(quantity)
    if forecast.is_stale_baseline:
        return f"{NAMES[STALE_KINDS[quantity]]} makes this forecast, because the features are too old for the model."
    if not part.model.is_baseline:
        return None
    name, version = NAMES.get(part.model.kind or "", "A baseline"), part.model.version or ""
    if quantity == VOLATILITY and _lacks_bars(deps, forecast, part.symbol, part.model):
        return f"{name} makes this forecast, because minute bars are missing that the trees and the net of version {version} need."
    if not version.isdigit():
        return f"{name} serves until a trained model can be loaded."
    return _decided(name, deps.known_gate_decision(ModelKey(part.symbol, quantity), version))


def _decided(name: str, gate: GateDecision | None) -> str:
    """Why the baseline of this name serves, by what the registry says about its version."""
    if gate is None:
        return f"{name}, a baseline, serves. The model registry has not said yet why."
    if gate.took_over_from:
        return f"{name} serves: it took over from version {gate.took_over_from}, whose live forecasts were worse."
    if gate.passed:  # the first version of a market, before which no model was tried
        return f"{name} serves, because there are too few minute bars yet to judge a model."
    return f"{name} serves, because no model was certainly better on unseen data."


def _lacks_bars(deps: Deps, forecast: MarketForecast, symbol: str, made_by: ModelInfo) -> bool:
    """Whether the champion has trees that could not be used: the worker says so, or its loaded version is of another kind."""
    if forecast.quality is not None and SHORT_HISTORY in forecast.quality.reasons:
        return True
    loaded = deps.models.current.volatility(symbol)
    return loaded is not None and loaded.version == made_by.version and loaded.kind != made_by.kind
