"""The body of `GET /v1/explain`: what each feature contributes to the newest forecast of the volatility.

What does not belong here: computing contributions (`btc_core.models.explain`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from btc_core.errors import NotReady
from btc_core.features.catalogue import MODEL_FEATURES
from btc_core.models.explain import explain
from serving.answers import Contribution, Explanation, iso
from serving.forecasts import MODEL_COLUMNS, no_features
from serving.served_forecast import model_info

if TYPE_CHECKING:
    from serving.deps import Deps

NO_TREES = "a baseline serves; it is a formula and has no trees to explain"
HORIZON_MIN = 5
"""The horizon that the trees are grown for; the shorter ones follow from it."""


def explanation(deps: Deps, symbol: str, top: int) -> Explanation:
    """The `top` largest contributions; none, but a reason, while a baseline serves."""
    row = deps.newest_rows.features(symbol)
    if row is None:
        raise no_features(symbol)
    models = deps.models.current
    model = models.volatility(symbol)
    if model is None:
        raise NotReady(
            f"no model of {symbol} can be explained: {'; '.join(models.reasons_of(symbol)) or 'none is loaded'}"
        )
    matrix = np.asarray(row.values, dtype=np.float64)[MODEL_COLUMNS].reshape(1, -1)
    parts = explain(model, matrix)
    if not math.isfinite(parts.log_variance):
        raise NotReady("the features are still warming up; ask again in a minute")
    values = dict(zip(MODEL_FEATURES, matrix[0].tolist(), strict=True))
    listed = tuple(
        Contribution(name, values[name] if math.isfinite(values[name]) else None, effect)
        for name, effect in list(parts.trees.items())[:top]
    )
    return Explanation(
        symbol=symbol,
        horizon_min=HORIZON_MIN,
        unit="ln of the variance over 5 min",
        log_variance=parts.log_variance,
        base=parts.base,
        harx=parts.harx,
        offset=parts.offset,
        rest=sum(parts.trees.values()) - sum(each.contribution for each in listed),
        contributions=listed,
        model=model_info(model.kind, model.version),
        ts_event=iso(row.ts_event_ns),
        reason=None if parts.trees else NO_TREES,
        simulated=deps.settings.simulated,
    )
