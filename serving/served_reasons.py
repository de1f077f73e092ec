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
    USER,
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
    """Why a baseline, or the stand-in of a user's model, made the forecast of a quantity; None if the champion did.

    Waits for no server.
    """
    part = forecast.of(quantity)
    if forecast.is_stale_baseline:
        return f"{NAMES[STALE_KINDS[quantity]]} makes this forecast, because the features are too old for the model."
    if quantity == VOLATILITY and (entry := _user_model(deps, part.symbol, part.model)) and part.model.kind != USER:
        return _stand_in(entry, part.model.kind or "", of_api=forecast.origin.source == "api")
    if not part.model.is_baseline:
        return None
    version = part.model.version or ""
    if quantity == VOLATILITY and _lacks_bars(deps, forecast, part.symbol, part.model):
        name = NAMES.get(part.model.kind or "", "A baseline")
        return f"{name} makes this forecast, because minute bars are missing that the trees and the net of version {version} need."
    decision = deps.known_gate_decision(ModelKey(part.symbol, quantity), version) if version.isdigit() else None
    return version_reason(quantity, part.model.kind or "", version, decision)


def user_reason(name: str, version: str, kind_of_newest: str, gate: GateDecision | None) -> str:
    """Why a user's model serves, and what its stand-in does; `kind_of_newest` made the newest forecast, if that is known."""
    whose = f"“{name}”, a user's model, serves"
    if gate is None:
        reason = f"{whose}. The model registry has not said yet why."
    else:
        reason = f"{whose}, because its live forecasts in the league passed the gate (version {version})."
    if kind_of_newest in {"", USER}:
        return reason
    return f"{reason} {_stand_in(name, kind_of_newest, of_api=False)}"


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


def _stand_in(name: str, kind: str, *, of_api: bool) -> str:
    stand_in = NAMES.get(kind, _TREES)
    if of_api:
        return f"{stand_in}, its stand-in, makes this forecast, because only the forecast worker runs “{name}”, the user's model."
    return f"{stand_in}, its stand-in, made the newest forecast, because “{name}”, the user's model, gave none in time."


def _user_model(deps: Deps, symbol: str, made_by: ModelInfo) -> str:
    """The name of the user's model in the version that made a forecast; empty if that version has none, or is not loaded."""
    loaded = deps.models.current.volatility(symbol)
    entry = None if loaded is None or loaded.version != made_by.version else loaded.manifest.user_entry
    return "" if entry is None else entry.name


def _lacks_bars(deps: Deps, forecast: MarketForecast, symbol: str, made_by: ModelInfo) -> bool:
    """Whether the champion has trees that could not be used: the worker says so, or its loaded version is of another kind."""
    if forecast.quality is not None and SHORT_HISTORY in forecast.quality.reasons:
        return True
    loaded = deps.models.current.volatility(symbol)
    return loaded is not None and loaded.version == made_by.version and loaded.kind != made_by.kind
