"""The body of `GET /v1/skill`: live losses beside those of the baselines, and how often the intervals held.

What does not belong here: computing losses. The forecast worker does so when it writes an outcome.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from btc_core.clock import NS_PER_S
from btc_core.names import BID, LEVELS_PCT, QUANTITIES, VOLATILITY
from serving.answers import CoverageRow, Skill, SkillRow

if TYPE_CHECKING:
    from btc_core.names import Quantity
    from serving.deps import Deps
    from serving.stored_rows import Scores

NO_OUTCOMES = (
    "no forecast of these hours has a final outcome yet; the first comes five minutes after the first closed minute"
)
HORIZON_MIN = 5
"""The horizon of all scores."""

_COMPARISONS: tuple[tuple[Quantity, str, str, str], ...] = (
    (VOLATILITY, "QLIKE", "qlike_model", "qlike_harx"),
    (VOLATILITY, "QLIKE", "qlike_model", "qlike_har"),
    (VOLATILITY, "QLIKE", "qlike_model", "qlike_ewma"),
    (VOLATILITY, "QLIKE", "qlike_model", "qlike_naive"),
    (BID, "squared error, bps²", "mse_model", "mse_random_walk"),
    (BID, "squared error, bps²", "mse_model", "mse_ar"),
)
"""Quantity, loss, and the names of the model's and the baseline's score."""


def live_skill(deps: Deps, symbol: str, hours: int) -> Skill:
    """The scores of the last `hours`; without any outcome there are no rows but a reason."""
    now_ns = deps.clock.now_ns()
    scores = deps.stored_rows.scores(symbol, now_ns - hours * 3_600 * NS_PER_S, now_ns)
    rows: list[SkillRow] = []
    coverage: list[CoverageRow] = []
    if scores.count:
        rows = [_skill_row(scores, *comparison) for comparison in _COMPARISONS]
        coverage = [_coverage_row(scores, quantity, level) for quantity in QUANTITIES for level in LEVELS_PCT]
    return Skill(
        symbol=symbol,
        hours=hours,
        rows=rows,
        coverage=coverage,
        reason=None if scores.count else NO_OUTCOMES,
        simulated=deps.settings.simulated,
    )


def _skill_row(scores: Scores, quantity: Quantity, loss: str, model: str, baseline: str) -> SkillRow:
    model_loss, baseline_loss = scores.means[model], scores.means[baseline]
    return SkillRow(
        quantity=quantity,
        horizon_min=HORIZON_MIN,
        forecasts=scores.count,
        loss=loss,
        model_loss=model_loss,
        baseline=baseline.partition("_")[2],
        baseline_loss=baseline_loss,
        ratio=model_loss / baseline_loss if model_loss is not None and baseline_loss else None,
    )


def _coverage_row(scores: Scores, quantity: Quantity, level_pct: int) -> CoverageRow:
    share = scores.means[f"{quantity}_inside_{level_pct}"]
    return CoverageRow(
        quantity=quantity,
        level_pct=level_pct,
        horizon_min=HORIZON_MIN,
        forecasts=scores.count,
        covered_pct=None if share is None else 100.0 * share,
    )
