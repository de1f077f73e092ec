"""Which model may serve: losses on the same rows are compared, and the reason is given in words.

A *refresh* is the champion's recipe on newer data: it must not be worse than the champion, and better than every
baseline. A *change* is another recipe: it must prove itself better in shadow, over weeks. One day has almost no power to
tell models apart, and requiring the lowest loss ever measured could keep one lucky champion for a year.
What does not belong here: where losses come from, and moving aliases (`btc_core.registry`).
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
"""Standard errors to a one-sided 95 % bound."""
REFRESH_WORSE_AT_MOST = 1.02
"""The 95 % bound of a refresh's loss over the champion's must be below this."""
CHANGE_RATIO = 0.99
"""A change must have at most this share of the champion's loss."""
CHANGE_DAYS_BETTER = 0.60
"""A change must be better on at least this share of the days."""
CHANGE_WORST_DAY = 1.25
"""On its worst day, a change's loss must be below this multiple of the champion's."""
SHADOW_DAYS = {VOLATILITY_MODEL: 14, BID_MODEL: 28}
"""Days in shadow before a change is judged. The edge of a price model is smaller, so it takes longer to measure."""
COVERAGE_90 = (0.88, 0.92)
"""Lowest and highest coverage of the 90 % interval of a change."""
DEMOTE_RATIO = 1.2
"""Above this ratio of the champion's loss to the best baseline's, the baseline serves."""
DEMOTE_COVERAGE = 0.80
"""Below this coverage of the 90 % interval, the baseline serves."""
DEMOTE_COVERAGE_HOURS = 6
"""The newest hours over which coverage is measured; losses are compared over 24."""
MIN_ROWS = 60
"""Fewer rows than an hour's decide nothing."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate decided, why, and the figures it decided by."""

    passed: bool
    reason: str
    beats_baselines: bool = True
    """False when the model passed only as the baseline that is inside it."""
    figures: dict[str, float] = {}


def ratio_bound(losses: Floats, reference: Floats) -> tuple[float, float]:
    """Ratio of the mean losses, and its upper 95 % bound from the HAC standard error of their difference.

    >>> ratio_bound(np.ones(50), np.ones(50))
    (1.0, 1.0)
    """
    mean = float(np.mean(reference))
    ratio = float(np.mean(losses)) / mean
    t = scores.diebold_mariano_t(losses, reference)
    error = abs((float(np.mean(losses)) - mean) / t) if math.isfinite(t) and t != 0.0 else 0.0
    return ratio, ratio + Z_95 * error / mean


def refresh(losses: Floats, champion: Floats | None, baselines: dict[str, Floats]) -> Verdict:
    """Judge a candidate with the champion's recipe; all losses are on the same rows, in time order.

    The champion's losses are NaN on rows it was fitted on; it is compared on the others, if these are at least an hour.
    The candidate fails only when it may be worse than the champion. A candidate that is not better than the best baseline
    passes as that baseline: `beats_baselines` is false, and training must leave its trees out.
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
    """Judge another recipe by its time in shadow: losses of both models on the same rows, and each row's UTC day number."""
    shadow_days, place = np.unique(days, return_inverse=True)
    sums = np.bincount(place, losses), np.bincount(place, champion)
    daily = sums[0] / sums[1]
    ratio = float(np.mean(losses)) / float(np.mean(champion))
    t = scores.diebold_mariano_t(losses, champion)
    needed = SHADOW_DAYS[name]
    low, high = COVERAGE_90
    rules = {
        f"{len(shadow_days)} days in shadow, {needed} are needed": len(shadow_days) >= needed,
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
    failed = [rule for rule, passed in rules.items() if not passed]
    figures = {"ratio_to_champion": ratio, "dm_t": t, "days": float(len(shadow_days)), "coverage_90": coverage_90}
    return Verdict(passed=not failed, reason="; ".join(failed or rules), figures=figures)


def live(losses: Floats, baselines: dict[str, Floats], inside_90: npt.NDArray[np.bool_]) -> Verdict:
    """Whether the champion may continue, by its losses and the baselines' over the last 24 h, and its coverage over 6 h.

    Rows are outcomes in time order; `inside_90` covers only the last `DEMOTE_COVERAGE_HOURS`.
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
