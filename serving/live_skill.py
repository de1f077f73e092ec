"""Forecasts judged and explained: live skill, coverage, contributions of the features.

What does not belong here: computing losses or contributions; this puts stored and computed numbers into answers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from btc_core.clock import NS_PER_S
from btc_core.errors import NotReady
from btc_core.features.catalogue import FEATURE_NAMES, MODEL_FEATURES
from btc_core.models import explain as shap
from btc_core.names import LEVELS_PCT
from serving.answers import Contribution, CoverageRow, Explanation, Skill, SkillRow, iso
from serving.forecasts import model_info

if TYPE_CHECKING:
    from btc_core.names import Quantity
    from serving.deps import Deps
    from serving.stored_rows import Scores

NO_SKILL = (
    "no forecast of these hours has a final outcome yet; the first comes five minutes after the first closed minute"
)
NO_TREES = "a baseline serves; it is a formula and has no trees to explain"
HORIZON_MIN = 5
"""Of losses and contributions: the headline horizon."""

_MODEL_COLUMNS = [FEATURE_NAMES.index(name) for name in MODEL_FEATURES]
_BASELINES: tuple[tuple[Quantity, str, str, str], ...] = (
    ("volatility", "QLIKE", "qlike_model", "qlike_harx"),
    ("volatility", "QLIKE", "qlike_model", "qlike_har"),
    ("volatility", "QLIKE", "qlike_model", "qlike_ewma"),
    ("volatility", "QLIKE", "qlike_model", "qlike_naive"),
    ("bid", "squared error, bps²", "mse_model", "mse_random_walk"),
    ("bid", "squared error, bps²", "mse_model", "mse_ar"),
)


def skill(deps: Deps, symbol: str, hours: int) -> Skill:
    """Losses of what was served and of its baselines over the last `hours`; empty with a reason without outcomes."""
    now_ns = deps.clock.now_ns()
    scores = deps.history.scores(symbol, now_ns - hours * 3_600 * NS_PER_S, now_ns)
    return Skill(
        symbol=symbol,
        hours=hours,
        rows=[_row(scores, *names) for names in _BASELINES] if scores.count else [],
        coverage=[_coverage(scores, name, level) for name in ("bid", "volatility") for level in LEVELS_PCT]
        if scores.count
        else [],
        reason=None if scores.count else NO_SKILL,
        simulated=deps.settings.simulated,
    )


def _row(scores: Scores, quantity: Quantity, loss: str, model: str, baseline: str) -> SkillRow:
    ours, theirs = scores.means[model], scores.means[baseline]
    return SkillRow(
        quantity=quantity,
        horizon_min=HORIZON_MIN,
        forecasts=scores.count,
        loss=loss,
        model_loss=ours,
        baseline=baseline.partition("_")[2],
        baseline_loss=theirs,
        ratio=ours / theirs if ours is not None and theirs else None,
    )


def _coverage(scores: Scores, quantity: Quantity, level_pct: int) -> CoverageRow:
    share = scores.means[f"{quantity}_inside_{level_pct}"]
    return CoverageRow(
        quantity=quantity,
        level_pct=level_pct,
        horizon_min=HORIZON_MIN,
        forecasts=scores.count,
        covered_pct=None if share is None else 100.0 * share,
    )


def explain(deps: Deps, symbol: str, top: int) -> Explanation:
    """Contributions to the volatility forecast from the newest features; none, with a reason, while a baseline serves."""
    row = deps.store.features(symbol)
    if row is None:
        raise NotReady(f"there are no features of {symbol} in Redis yet; `btc status` shows whether the workers run")
    current = deps.models.current
    model = current.volatility
    if model is None:
        raise NotReady(f"no model can be explained: {'; '.join(current.reasons) or 'none is loaded'}")
    matrix = np.asarray(row.values, dtype=np.float64)[_MODEL_COLUMNS].reshape(1, -1)
    parts = shap.explain(model, matrix)
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
        rest=sum(parts.trees.values()) - sum(one.contribution for one in listed),
        contributions=listed,
        model=model_info(model),
        ts_event=iso(row.ts_event_ns),
        reason=None if parts.trees else NO_TREES,
        simulated=deps.settings.simulated,
    )
