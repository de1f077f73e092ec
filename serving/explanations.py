"""The body of `GET /v1/explain`: what each feature contributes to the newest forecast of the volatility.

What does not belong here: computing contributions (`btc_core.models.explain`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from btc_core.errors import NotReady
from btc_core.features.catalogue import FEATURES, MODEL_FEATURES
from btc_core.features.column_meanings import COLUMN_MEANINGS
from btc_core.features.minute_columns import COLUMNS
from btc_core.models.explain import explain
from btc_core.models.row_forecasts import MODEL_COLUMNS
from btc_core.names import HEADLINE_MIN, USER
from serving.answers import iso
from serving.forecasts import columns_of, no_features
from serving.model_answers import Contribution, Explanation
from serving.served_forecast import model_info

if TYPE_CHECKING:
    from btc_core.market.messages import ForecastRow
    from serving.deps import Deps

NO_TREES = "a baseline serves; it is a formula and has no trees to explain"
NO_COLUMNS = "a baseline serves until the forecast worker knows the last day of minute bars"
OF_USER = "a user's model serves, and only its own code knows how it forecasts"
NET = "net"
"""The name under which the net's correction of HARX is listed as a whole, among the inputs of the trees."""
_WORDS = (
    {feature.name: (feature.meaning, feature.unit) for feature in FEATURES}
    | {name: (column.meaning, column.unit) for name, column in COLUMN_MEANINGS.items()}
    | {NET: ("the neural net's correction of HARX", "")}
)
"""The meaning and the unit of every input."""


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
    newest = deps.newest_rows.forecast(symbol)
    if newest is not None and newest.volatility_model_kind == USER:
        return _of_user(deps, newest)
    matrix = np.asarray(row.values, dtype=np.float64)[MODEL_COLUMNS].reshape(1, -1)
    row_columns = columns_of(deps, row)
    columns = np.full((1, len(COLUMNS)), np.nan, np.float32) if row_columns is None else row_columns.columns
    parts = explain(model, matrix, columns)
    if not math.isfinite(parts.log_variance):
        raise NotReady("the features are still warming up; ask again in a minute")
    kind = model.manifest.kind
    values = dict(zip((*MODEL_FEATURES, *COLUMNS), np.hstack([matrix, columns])[0].tolist(), strict=True))
    effects = ({NET: parts.net} if parts.trees else {}) | parts.trees
    ranked = sorted(effects.items(), key=lambda pair: -abs(pair[1]))
    listed = tuple(
        Contribution(name, *_WORDS[name], values[name] if math.isfinite(values.get(name, math.nan)) else None, effect)
        for name, effect in ranked[:top]
    )
    return Explanation(
        symbol=symbol,
        horizon_min=HEADLINE_MIN,
        unit=f"ln of the variance over {HEADLINE_MIN} min",
        log_variance=parts.log_variance,
        base=parts.base,
        harx=parts.harx,
        offset=parts.offset,
        rest=sum(effects.values()) - sum(each.contribution for each in listed),
        contributions=listed,
        model=model_info("harx" if kind == "xgboost" and not parts.trees else kind, model.version),
        ts_event=iso(row.ts_event_ns),
        reason=None if parts.trees else NO_COLUMNS if kind == "xgboost" else NO_TREES,
        simulated=deps.settings.simulated,
    )


def _of_user(deps: Deps, row: ForecastRow) -> Explanation:
    """The newest forecast if a user's model made it: HARX, and the difference from it."""
    served, harx = (2.0 * math.log(path[-1] / 1e4) for path in (row.sigma_path_bps, row.baseline_sigma_path_bps))
    return Explanation(
        symbol=row.symbol,
        horizon_min=HEADLINE_MIN,
        unit=f"ln of the variance over {HEADLINE_MIN} min",
        log_variance=served,
        base=0.0,
        harx=harx,
        offset=served - harx,
        rest=0.0,
        contributions=(),
        model=model_info(USER, row.volatility_model_version),
        ts_event=iso(row.ts_event_ns),
        reason=OF_USER,
        simulated=deps.settings.simulated,
    )
