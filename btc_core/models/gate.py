"""Who may serve: losses of the same rows compared, with the reason in words.

A *refresh* is the same recipe on newer data: it must not be worse than the champion, and better than every baseline.
A *change* is another recipe: it must prove itself better in shadow, over weeks. One day has almost no power to tell
models apart, and the lowest metric of all runs ever may keep a champion for a year.
What does not belong here: where losses come from, and moving aliases (`registry`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from btc_core.models import scores
from btc_core.names import BID_MODEL, VOLATILITY_MODEL

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

Z_95 = 1.645
"""Of a one-sided 95 % bound."""
REFRESH_WORSE_AT_MOST = 1.02
"""Upper bound of the loss ratio of a refresh to the champion."""
CHANGE_RATIO = 0.99
CHANGE_DAYS_BETTER = 0.60
CHANGE_WORST_DAY = 1.25
SHADOW_DAYS = {VOLATILITY_MODEL: 14, BID_MODEL: 28}
"""Days in shadow before a change is judged: a price model's edge is smaller, so it takes longer to see."""
COVERAGE_90 = (0.88, 0.92)
DEMOTE_RATIO = 1.2
"""24 h loss over the best baseline's, above which the baseline serves."""
DEMOTE_COVERAGE = 0.80
"""Coverage of the 90 % interval over 6 h, below which the baseline serves."""
DEMOTE_HOURS, DEMOTE_COVERAGE_HOURS = 24, 6
MIN_ROWS = 60
"""Fewer than an hour's decide nothing."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate decided, why, and the figures it looked at."""

    passed: bool
    reason: str
    beats_baselines: bool = True
    figures: dict[str, float] = {}


def ratio_bound(losses: Floats, reference: Floats) -> tuple[float, float]:
    """Ratio of the mean losses, and its upper 95 % bound by the HAC error of their difference.

    >>> ratio_bound(np.ones(50), np.ones(50))
    (1.0, 1.0)
    """
    mean = float(np.mean(reference))
    ratio = float(np.mean(losses)) / mean
    t = scores.diebold_mariano_t(losses, reference)
    error = abs((float(np.mean(losses)) - mean) / t) if math.isfinite(t) and t != 0.0 else 0.0
    return ratio, ratio + Z_95 * error / mean


def refresh(losses: Floats, champion: Floats | None, baselines: dict[str, Floats]) -> Verdict:
    """Judge a candidate of the champion's recipe; all losses are of the same rows, in time order.

    The champion's are NaN on rows it was fitted on, and are compared on the others, if these are an hour's at least.
    The candidate fails only when it may be worse than the champion. Not better than the best baseline, it passes as that
    baseline: `beats_baselines` is false, and whoever trains leaves its trees out.
    """
    best = min(baselines, key=lambda name: float(np.mean(baselines[name])))
    to_best = ratio_bound(losses, baselines[best])
    figures = {"ratio_to_baseline": to_best[0], "ratio_to_baseline_bound": to_best[1]}
    beats = to_best[1] < 1.0
    words = f"loss {to_best[0]:.3f} of {best}'s (95 % bound {to_best[1]:.3f}, below 1) on {len(losses)} rows"
    if not beats:
        return Verdict(
            passed=True, beats_baselines=False, figures=figures, reason=f"{words}: the baseline serves until trees win"
        )
    if champion is None:
        return Verdict(passed=True, reason=f"{words}; there is no champion to compare with", figures=figures)
    new = np.isfinite(champion)
    if new.sum() < MIN_ROWS:
        words = f"{words}; the champion was fitted on all but {new.sum()} of them, and is not compared"
        return Verdict(passed=True, reason=words, figures=figures)
    ratio, bound = ratio_bound(losses[new], champion[new])
    figures |= {"ratio_to_champion": ratio, "ratio_to_champion_bound": bound}
    words = (
        f"{words}, {ratio:.3f} of the champion's (95 % bound {bound:.3f}, below {REFRESH_WORSE_AT_MOST:g}) on the "
        f"{new.sum()} that it was not fitted on"
    )
    return Verdict(passed=bound < REFRESH_WORSE_AT_MOST, reason=words, figures=figures)


def change(losses: Floats, champion: Floats, days: npt.NDArray[np.int64], name: str, coverage_90: float) -> Verdict:
    """Judge another recipe by its shadow: losses of both on the same rows, and the UTC day number of each."""
    seen, place = np.unique(days, return_inverse=True)
    sums = np.bincount(place, losses), np.bincount(place, champion)
    daily = sums[0] / sums[1]
    ratio = float(np.mean(losses)) / float(np.mean(champion))
    t = scores.diebold_mariano_t(losses, champion)
    needed = SHADOW_DAYS[name]
    low, high = COVERAGE_90
    rules = {
        f"{len(seen)} days in shadow, {needed} are needed": len(seen) >= needed,
        f"loss ratio {ratio:.4f}, at most {CHANGE_RATIO:g}": ratio <= CHANGE_RATIO,
        f"HAC-DM t {t:.2f}, below {-Z_95:g} is more than luck": t < -Z_95,
        f"better on {np.mean(daily < 1.0):.0%} of days, at least {CHANGE_DAYS_BETTER:.0%}": bool(
            np.mean(daily < 1.0) >= CHANGE_DAYS_BETTER
        ),
        f"worst day {daily.max():.2f} of the champion's, below {CHANGE_WORST_DAY:g}": bool(
            daily.max() < CHANGE_WORST_DAY
        ),
        f"90 % interval covers {coverage_90:.1%}, {low:.0%} to {high:.0%}": low <= coverage_90 <= high,
    }
    failed = [rule for rule, kept in rules.items() if not kept]
    figures = {"ratio_to_champion": ratio, "dm_t": t, "days": float(len(seen)), "coverage_90": coverage_90}
    return Verdict(passed=not failed, reason="; ".join(failed or rules), figures=figures)


def live(losses: Floats, baselines: dict[str, Floats], inside_90: npt.NDArray[np.bool_]) -> Verdict:
    """Whether the champion may go on: its last 24 h of losses beside the baselines', and coverage over the last 6 h.

    Rows are outcomes in time order; `inside_90` are those of the last 6 h.
    """
    if len(losses) < MIN_ROWS:
        return Verdict(passed=True, reason=f"only {len(losses)} outcomes in 24 h, {MIN_ROWS} are needed")
    best = min(baselines, key=lambda name: float(np.mean(baselines[name])))
    ratio = float(np.mean(losses)) / float(np.mean(baselines[best]))
    covered = float(np.mean(inside_90)) if len(inside_90) >= MIN_ROWS else math.nan
    figures = {"ratio_to_baseline": ratio, "coverage_90": covered}
    words = f"24 h loss {ratio:.3f} of {best}'s (at most {DEMOTE_RATIO:g}), 90 % interval covers {covered:.1%} over 6 h"
    good = ratio <= DEMOTE_RATIO and not covered < DEMOTE_COVERAGE
    return Verdict(passed=good, reason=words, beats_baselines=ratio < 1.0, figures=figures)
