"""Forecasts judged and explained: live skill, coverage, contributions of the features.

What does not belong here: computing any of it; this puts stored and computed numbers into the answers of `/v1`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from btc_core.champions import BASELINE_KINDS
from btc_core.errors import NotReady
from serving.answers import Explanation, Skill, iso
from serving.forecasts import model_info

if TYPE_CHECKING:
    from serving.answers import Quantity
    from serving.deps import Deps

NO_SKILL = "forecasts are judged once their outcomes are final; there is no table of outcomes in this release yet"
NO_TREES = "a baseline serves; it is a formula and has no trees to explain"
NO_SHAP = "the models of this release cannot be explained yet"


def skill(deps: Deps, symbol: str, hours: int) -> Skill:
    """Losses of the model and its baselines over the last `hours`; empty with a reason until outcomes are final."""
    return Skill(symbol=symbol, hours=hours, rows=[], coverage=[], reason=NO_SKILL, simulated=deps.settings.simulated)


def explain(deps: Deps, symbol: str, quantity: Quantity, horizon_min: int, _top: int) -> Explanation:
    """Contributions to the forecast from the newest features; empty with a reason while a baseline serves."""
    row = deps.store.features(symbol)
    if row is None:
        raise NotReady(f"there are no features of {symbol} in Redis yet; `btc status` shows whether the workers run")
    current = deps.models.current
    model = current.bid if quantity == "bid" else current.volatility
    if model is None:
        raise NotReady(f"no model can be explained: {'; '.join(current.reasons) or 'none is loaded'}")
    return Explanation(
        symbol=symbol,
        quantity=quantity,
        horizon_min=horizon_min,
        unit="λ·σ̂" if quantity == "bid" else "ln variance",
        base=None,
        rest=None,
        contributions=(),
        model=model_info(model),
        ts_event=iso(row.ts_event_ns),
        reason=NO_TREES if model.kind in BASELINE_KINDS else NO_SHAP,
        simulated=deps.settings.simulated,
    )
