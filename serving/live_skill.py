"""The body of `GET /v1/skill`: live losses beside those of the baselines, and how often the intervals held.

What does not belong here: computing losses. The forecast worker does so when it writes an outcome.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from btc_core.clock import NS_PER_MIN, NS_PER_S
from btc_core.names import APART_MIN, BID, HEADLINE_MIN, HEADLINE_TEXT, LEVELS_PCT, QUANTITIES, VOLATILITY
from serving.answers import iso
from serving.skill_answers import CoverageRow, GainPoint, GainSeries, Skill, SkillRow

if TYPE_CHECKING:
    import numpy.typing as npt

    from btc_core.names import Quantity
    from serving.deps import Deps
    from serving.stored_rows import LossBlock, Scores

NO_OUTCOMES = (
    f"no forecast of these hours has a final outcome yet; the first comes {HEADLINE_TEXT} after the first closed minute"
)
BLOCK_S = 2 * APART_MIN * 60
"""Length of a block of losses. Two forecasts of the same block overlap, those of blocks further apart do not."""
MIN_BLOCKS = 6
"""Fewer blocks give no error."""
WINDOW_BLOCKS = 36
"""Blocks of a point of the gain over time: six hours with a headline horizon of five minutes."""
MAX_POINTS = 144
"""Most points of a series over time, so that a month is no larger than a day."""
Z_95 = 1.96
"""Standard errors of half a two-sided 95 % interval."""

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
    end_ns = now_ns - now_ns % NS_PER_MIN + NS_PER_MIN  # the same for all who ask in this minute
    window = (symbol, end_ns - hours * 3_600 * NS_PER_S, end_ns)
    scores = deps.stored_rows.scores(*window)
    rows: list[SkillRow] = []
    coverage: list[CoverageRow] = []
    over_time: tuple[GainSeries, ...] = ()
    if scores.count:
        blocks = deps.stored_rows.loss_blocks(*window, BLOCK_S, scores.volatility_target)
        rows = [_skill_row(scores, blocks, *comparison) for comparison in _COMPARISONS]
        over_time = tuple(_series(blocks, *comparison) for comparison in _COMPARISONS)
        coverage = [_coverage_row(scores, quantity, level) for quantity in QUANTITIES for level in LEVELS_PCT]
    return Skill(
        symbol=symbol,
        hours=hours,
        rows=rows,
        coverage=coverage,
        reason=None if scores.count else NO_OUTCOMES,
        simulated=deps.settings.simulated,
        over_time=over_time,
        volatility_target=scores.volatility_target if scores.count else None,
    )


def gain_pct(model: npt.NDArray[np.float64], baseline: npt.NDArray[np.float64]) -> tuple[float | None, float | None]:
    """How much smaller the sum of the model's losses is, percent, and half of its 95 % interval, from sums of blocks.

    The gain is a ratio of sums, so its error is that of the blocks' residuals `model − ratio · baseline` (delta method),
    with the HAC variance of Newey and West (1987).

    >>> gain_pct(np.array([1.0, 1.0]), np.array([2.0, 2.0]))
    (50.0, None)
    """
    total = float(baseline.sum())
    if not total > 0.0:
        return None, None
    ratio = float(model.sum()) / total
    count = len(model)
    if count < MIN_BLOCKS:
        return 100.0 * (1.0 - ratio), None
    residuals = model - ratio * baseline
    variance = float(residuals @ residuals)
    lags = min(int(4.0 * (count / 100.0) ** (2.0 / 9.0)), count - 1)
    for lag in range(1, lags + 1):
        variance += 2.0 * (1.0 - lag / (lags + 1.0)) * float(residuals[lag:] @ residuals[:-lag])
    return 100.0 * (1.0 - ratio), 100.0 * Z_95 * max(variance, 0.0) ** 0.5 / total


def _sums(
    blocks: list[LossBlock], model: str, baseline: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The summed losses of each block that has both."""
    pairs = [
        (block.count * mine, block.count * its)
        for block in blocks
        if (mine := block.means[model]) is not None and (its := block.means[baseline]) is not None
    ]
    sums = np.array(pairs, np.float64).reshape(-1, 2)
    return sums[:, 0], sums[:, 1]


def _series(blocks: list[LossBlock], quantity: Quantity, _loss: str, model: str, baseline: str) -> GainSeries:
    every = -(-len(blocks) // MAX_POINTS) if blocks else 1
    points = []
    for end in range(len(blocks), 0, -every):
        window = blocks[max(0, end - WINDOW_BLOCKS) : end]
        gain, error = gain_pct(*_sums(window, model, baseline))
        points.append(GainPoint(iso(window[-1].end_ns), sum(block.count for block in window), gain, error))
    return GainSeries(quantity, baseline.partition("_")[2], tuple(reversed(points)))


def _skill_row(  # noqa: PLR0913, PLR0917 - the scores, and what is compared
    scores: Scores, blocks: list[LossBlock], quantity: Quantity, loss: str, model: str, baseline: str
) -> SkillRow:
    model_loss, baseline_loss = scores.means[model], scores.means[baseline]
    gain, error = gain_pct(*_sums(blocks, model, baseline))
    return SkillRow(
        quantity=quantity,
        horizon_min=HEADLINE_MIN,
        forecasts=scores.count,
        loss=loss,
        model_loss=model_loss,
        baseline=baseline.partition("_")[2],
        baseline_loss=baseline_loss,
        ratio=model_loss / baseline_loss if model_loss is not None and baseline_loss else None,
        gain_pct=gain,
        gain_error_pct=error,
    )


def _coverage_row(scores: Scores, quantity: Quantity, level_pct: int) -> CoverageRow:
    share = scores.means[f"{quantity}_inside_{level_pct}"]
    return CoverageRow(
        quantity=quantity,
        level_pct=level_pct,
        horizon_min=HEADLINE_MIN,
        forecasts=scores.count,
        covered_pct=None if share is None else 100.0 * share,
    )
