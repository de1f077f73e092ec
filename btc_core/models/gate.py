"""Which model may serve: the losses of a model compared with those of others on the same rows, and the reason in words.

The fits of one recipe compete for each market: one on its own rows, one whose trees and net are those of all markets, and
the pre-trained one that ships with the package (`choose`).
A *refresh* is the same recipe fitted on newer data. It must not be worse than the champion, and its trees must be better
than every baseline. A *change* is another recipe. It must prove to be better in shadow for weeks, because a single day has
almost no statistical power to tell models apart, and the best loss of many past runs may be luck.
What does not belong here: where losses come from, and moving aliases (`btc_core.registry`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from btc_core.models import scores
from btc_core.names import APART_MIN, BID, VOLATILITY, Quantity

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

Fit = Literal["own", "pooled", "pretrained"]
"""On what the trees and the net of a candidate were fitted."""
_FIT_WORDS: dict[Fit, str] = {"own": "own", "pooled": "pooled", "pretrained": "pre-trained"}
Z_95 = 1.645
"""Standard errors of a one-sided 95 % bound."""
REFRESH_MAX_RATIO = 1.02
"""Largest upper bound of the ratio of a refresh's loss to the champion's."""
CHANGE_MAX_RATIO = 0.99
"""A change must have at most this share of the champion's loss, and trees in shadow this share of the baseline's."""
CHANGE_MIN_BETTER_DAYS = 0.60
"""A change must be better on at least this share of the days."""
CHANGE_MAX_DAILY_RATIO = 1.25
"""On its worst day, a change's loss must be below this multiple of the champion's."""
SHADOW_DAYS: dict[Quantity, int] = {VOLATILITY: 14, BID: 28}
"""Days in shadow before a change is judged: a price model's edge is smaller, so it takes longer to see."""
COVERAGE_90 = (0.88, 0.92)
"""Lowest and highest coverage of the 90 % interval of a change."""
DEMOTE_RATIO = 1.2
"""Loss over `DEMOTE_HOURS` relative to the best baseline's, above which the baseline takes over."""
DEMOTE_COVERAGE = 0.80
"""Coverage of the 90 % interval over `DEMOTE_COVERAGE_HOURS`, below which the baseline takes over."""
DEMOTE_HOURS, DEMOTE_COVERAGE_HOURS = 24 * APART_MIN // 5, 6 * APART_MIN // 5
"""As many outcomes that do not overlap as 24 and 6 hours have with five minutes: 288 and 72."""
MIN_ROWS = 60
"""Less than an hour of rows decides nothing."""
MIN_OUTCOMES = MIN_ROWS * APART_MIN // 5
"""Outcomes of consecutive minutes overlap, so that longer horizons need more of them."""
REPLACE_HOURS = 168 * APART_MIN // 5
"""The longest time over which a champion is compared with the baselines that it could be replaced by."""
REPLACE_MIN_OUTCOMES = 720 * APART_MIN // 5
"""Half a day of outcomes of its own, before which a champion that is only a little worse is not replaced."""
WON_MIN_ROWS = 144 * APART_MIN // 5
"""Half a day of live rows, one in five minutes, before which a version in shadow is not promoted."""
REPLACE_MIN_RATIO = 1.02
"""A baseline that is less than this better replaces nothing: two that are equally good would take turns."""
Z_99 = 2.326
"""Standard errors of a one-sided 99 % bound: the live gate is asked every ten minutes, a refresh once a day."""
REST_HOURS = 48
"""After a demotion, no trees are promoted for this long: the days that judge them hardly differ from those that did before. For the
same reason, no training replaces trees that won in shadow by a baseline for this long; the live gate may."""


GateResult = Literal["passed", "baseline", "failed"]
"""`baseline`: no model was certainly better than the baseline, so the baseline serves."""
MAY_SERVE: tuple[GateResult, ...] = ("passed", "baseline")


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate decided, the reason, and the figures behind it."""

    passed: bool
    reason: str
    beats_baselines: bool = True
    """False when the model passed only as the baseline that is part of it."""
    best: str = ""
    """The best baseline on the rows of the live gate; empty if it did not compare any."""
    figures: dict[str, float] = {}

    @property
    def result(self) -> GateResult:
        """The decision in one word."""
        if not self.passed:
            return "failed"
        return "passed" if self.beats_baselines else "baseline"


class Choice(msgspec.Struct, frozen=True):
    """Which of the fits a market gets, and why."""

    fit: Fit
    reason: str
    figures: dict[str, float] = {}

    @property
    def is_pooled(self) -> bool:
        """Whether it is the fit over all markets."""
        return self.fit == "pooled"


def choose(
    own: Floats,
    pooled: Floats | None,
    markets: int,
    pretrained: Floats | None = None,
    *,
    is_new_market: bool = False,
) -> Choice:
    """Choose between a market's own fit, the fit over several markets and the pre-trained one by their losses.

    All losses are of the same unseen rows. The smallest mean loss decides. No fit is a change of specification, so a wrong
    choice between two that are equally good costs nothing; whether the chosen one may serve is up to `refresh`.

    A market that `is_new_market` has too few rows to tell fits apart. There the pre-trained model is chosen unless another
    fit is better beyond the 95 % bound, or the live gate would demote it at once, because it has been better on many fresh
    starts in other markets.
    """
    candidates: dict[Fit, Floats | None] = {"pooled": pooled, "pretrained": pretrained}
    others = {
        name: losses for name, losses in candidates.items() if losses is not None and not np.array_equal(losses, own)
    }
    if not others:
        return Choice("own", "the pooled fit forecasts the same as the market's own fit" if pooled is not None else "")
    fits: dict[Fit, Floats] = {"own": own, **others}
    best = min(fits, key=lambda name: float(np.mean(fits[name])))
    if is_new_market and "pretrained" in fits and best != "pretrained":
        ratio, bound = ratio_bound(fits[best], fits["pretrained"])
        best = best if bound < 1.0 or ratio * DEMOTE_RATIO < 1.0 else "pretrained"
    figures: dict[str, float] = {}
    compared = []
    for name, losses in others.items():
        ratio, bound = ratio_bound(losses, own)
        figures |= {f"ratio_{name}_to_own": ratio, f"ratio_{name}_to_own_bound": bound}
        compared.append(f"{_FIT_WORDS[name]} loss {ratio:.3f} of the own fit's (95 % bound {bound:.3f})")
    candidate = {
        "own": "the market's own fit",
        "pooled": f"the fit over {markets} markets",
        "pretrained": "the pre-trained model",
    }[best]
    reason = f"{candidate} is the candidate: {', '.join(compared)} on {len(own)} unseen rows"
    return Choice(best, reason, figures)


def ratio_bound(losses: Floats, reference: Floats) -> tuple[float, float]:
    """The ratio of the mean losses, and its upper 95 % bound from the HAC standard error of their difference.

    >>> ratio_bound(np.ones(50), np.ones(50))
    (1.0, 1.0)
    """
    ratio, error = _ratio_error(losses, reference)
    return ratio, ratio + Z_95 * error


def ratio_lower_bound(losses: Floats, reference: Floats) -> tuple[float, float]:
    """The ratio of the mean losses, and its lower 99 % bound, from the same error as that of `ratio_bound`."""
    ratio, error = _ratio_error(losses, reference)
    return ratio, ratio - Z_99 * error


def _ratio_error(losses: Floats, reference: Floats) -> tuple[float, float]:
    mean = float(np.mean(reference))
    t = scores.diebold_mariano_t(losses, reference)
    error = abs((float(np.mean(losses)) - mean) / t) if math.isfinite(t) and t != 0.0 else 0.0
    return float(np.mean(losses)) / mean, error / mean


def refresh(
    losses: Floats,
    champion: Floats | None,
    baselines: dict[str, Floats],
    *,
    is_new_market: bool = False,
    is_pretrained: bool = False,
) -> Verdict:
    """Judge a candidate with the champion's recipe; all losses are of the same rows, in time order.

    The champion's losses are NaN on rows that it was fitted on. It is compared on the others, if these are at least an
    hour's. The candidate fails only if it may be worse than the champion. If it is not better than the best baseline it
    passes with `beats_baselines` false, and the training leaves its trees out.

    A market that `is_new_market` has too few rows for such a bound. There a smaller loss is enough, against the baseline
    that would serve, because trees that other markets have grown must be better in those markets, too.
    """
    best = _best(baselines)
    ratio, bound = ratio_bound(losses, baselines[best])
    figures = {"ratio_to_baseline": ratio, "ratio_to_baseline_bound": bound}
    if is_new_market and is_pretrained:
        lower = 2.0 * ratio - bound
        figures["ratio_to_baseline_lower_bound"] = lower
        reason = (
            f"loss {ratio:.3f} of {best}'s (at most {DEMOTE_RATIO:g} for the pre-trained model in a new market, and its "
            f"lower 95 % bound {lower:.3f} below 1) on {len(losses)} rows"
        )
        beats_baselines = lower < 1.0 and ratio <= DEMOTE_RATIO
    elif is_new_market:
        reason = f"loss {ratio:.3f} of {best}'s (must be below 1 in a new market) on {len(losses)} rows"
        beats_baselines = ratio < 1.0
    else:
        reason = f"loss {ratio:.3f} of {best}'s (95 % bound {bound:.3f}, must be below 1) on {len(losses)} rows"
        beats_baselines = bound < 1.0
    if not beats_baselines:
        reason = f"{reason}: the baseline serves until trees are better"
        return Verdict(passed=True, beats_baselines=beats_baselines, figures=figures, reason=reason)
    if champion is None:
        return Verdict(passed=True, reason=f"{reason}; there is no champion to compare with", figures=figures)
    unseen = np.isfinite(champion)
    if unseen.sum() < MIN_ROWS:
        reason = f"{reason}; not compared with the champion, which was fitted on all but {unseen.sum()} of them"
        return Verdict(passed=True, reason=reason, figures=figures)
    ratio, bound = ratio_bound(losses[unseen], champion[unseen])
    figures |= {"ratio_to_champion": ratio, "ratio_to_champion_bound": bound}
    reason = (
        f"{reason}, {ratio:.3f} of the champion's (95 % bound {bound:.3f}, must be below {REFRESH_MAX_RATIO:g}) on the "
        f"{unseen.sum()} that it was not fitted on"
    )
    return Verdict(passed=bound < REFRESH_MAX_RATIO, reason=reason, figures=figures)


def unproven(losses: Floats, baselines: dict[str, Floats], shrinkage: float) -> Verdict:
    """The verdict on trees of the bid that may not serve because no λ above 0 was proven; the losses are with the least one."""
    best = _best(baselines)
    ratio, bound = ratio_bound(losses, baselines[best])
    reason = (
        "no share λ of what the trees forecast was certainly better than no change on the days that choose it; with λ = "
        f"{shrinkage:g}, loss {ratio:.4f} of {best}'s (95 % bound {bound:.4f}) on {len(losses)} rows: the baseline serves "
        "until trees are better"
    )
    figures = {"ratio_to_baseline": ratio, "ratio_to_baseline_bound": bound}
    return Verdict(passed=True, beats_baselines=False, figures=figures, reason=reason)


def change(
    losses: Floats, champion: Floats, days: npt.NDArray[np.int64], quantity: Quantity, coverage_90: float
) -> Verdict:
    """Judge another recipe by its time in shadow: losses of both models on the same rows, and each row's UTC day number."""
    if not champion.any():
        return Verdict(passed=False, reason=f"the champion's loss is 0 on all {len(champion)} rows: none is smaller")
    distinct_days, day_index = np.unique(days, return_inverse=True)
    with np.errstate(divide="ignore", invalid="ignore"):  # a day without any loss of the champion passes no rule
        daily_ratios = np.bincount(day_index, losses) / np.bincount(day_index, champion)
    better_days = float(np.mean(daily_ratios < 1.0))
    worst_ratio = float(daily_ratios.max())
    ratio = float(np.mean(losses)) / float(np.mean(champion))
    t = float(scores.diebold_mariano_t(losses, champion))
    needed_days = SHADOW_DAYS[quantity]
    low, high = COVERAGE_90
    rules = {
        f"{len(distinct_days)} days in shadow, {needed_days} are needed": len(distinct_days) >= needed_days,
        f"loss ratio {ratio:.4f}, at most {CHANGE_MAX_RATIO:g}": ratio <= CHANGE_MAX_RATIO,
        f"HAC-DM t {t:.2f}, must be below {-Z_95:g} to exclude luck": t < -Z_95,
        f"better on {better_days:.0%} of days, at least {CHANGE_MIN_BETTER_DAYS:.0%}": (
            better_days >= CHANGE_MIN_BETTER_DAYS
        ),
        f"worst day {worst_ratio:.2f} of the champion's, must be below {CHANGE_MAX_DAILY_RATIO:g}": (
            worst_ratio < CHANGE_MAX_DAILY_RATIO
        ),
        f"90 % interval covers {coverage_90:.1%}, {low:.0%} to {high:.0%} is right": low <= coverage_90 <= high,
    }
    broken = [rule for rule, is_kept in rules.items() if not is_kept]
    figures = {"ratio_to_champion": ratio, "dm_t": t, "days": float(len(distinct_days)), "coverage_90": coverage_90}
    return Verdict(passed=not broken, reason="; ".join(broken or rules), figures=figures)


def live(losses: Floats, baselines: dict[str, Floats], inside_90: npt.NDArray[np.bool_]) -> Verdict:
    """Whether the champion may stay: its losses of the last `DEMOTE_HOURS` against the baselines', and its coverage.

    Rows are outcomes in time order. `inside_90` says of those of the last `DEMOTE_COVERAGE_HOURS` whether the 90 % interval
    held them.
    """
    if len(losses) < MIN_OUTCOMES:
        reason = f"only {len(losses)} outcomes in {DEMOTE_HOURS} h, {MIN_OUTCOMES} are needed"
        return Verdict(passed=True, reason=reason)
    best = _best(baselines)
    ratio = float(np.mean(losses)) / float(np.mean(baselines[best]))
    coverage = float(np.mean(inside_90)) if len(inside_90) >= MIN_OUTCOMES else math.nan
    figures = {"ratio_to_baseline": ratio, "coverage_90": coverage}
    reason = (
        f"{DEMOTE_HOURS} h loss {ratio:.3f} of {best}'s (at most {DEMOTE_RATIO:g}), 90 % interval covers {coverage:.1%} over "
        f"{DEMOTE_COVERAGE_HOURS} h "
        f"(at least {DEMOTE_COVERAGE:.0%})"
    )
    stays = ratio <= DEMOTE_RATIO and not coverage < DEMOTE_COVERAGE
    return Verdict(passed=stays, reason=reason, beats_baselines=ratio < 1.0, best=best, figures=figures)


def outdone(losses: Floats, baselines: dict[str, Floats]) -> Verdict:
    """Whether the champion of any kind may stay, or a baseline forecasts better beyond all doubt; `best` names it.

    The losses are those of the outcomes since a champion of its kind began to serve, in time order. A baseline that takes
    over is judged by new outcomes, so it serves for `REPLACE_MIN_OUTCOMES` at least, and the one before returns only if it has
    become as much better in turn.
    """
    if not baselines:
        return Verdict(passed=True, reason="it contains no other baseline")
    if len(losses) < REPLACE_MIN_OUTCOMES:
        reason = f"{len(losses)} outcomes since its kind began to serve, {REPLACE_MIN_OUTCOMES} are needed"
        return Verdict(passed=True, reason=reason)
    best = _best(baselines)
    ratio, lower = ratio_lower_bound(losses, baselines[best])
    reason = (
        f"live loss {ratio:.3f} of {best}'s (replaced from {REPLACE_MIN_RATIO:g} if the lower 99 % bound, {lower:.3f}, is above 1) "
        f"on {len(losses)} outcomes"
    )
    stays = ratio < REPLACE_MIN_RATIO or lower <= 1.0
    figures = {"ratio_to_baseline": ratio, "ratio_to_baseline_lower_bound": lower}
    return Verdict(passed=stays, reason=reason, beats_baselines=ratio < 1.0, best=best, figures=figures)


def won(ratio: float, bound: float, rows: int) -> Verdict:
    """Whether trees that a training refused may serve after all, by their live losses over those of the baseline that serves.

    `ratio` and its upper 95 % `bound` are of `rows` that are `RECIPE.dataset.origin_step_min` apart. The shadow is judged every
    hour, so the gain must be that of a change, beyond the 99 % bound.
    """
    upper = ratio + (bound - ratio) * Z_99 / Z_95
    reason = (
        f"live loss {ratio:.4f} of the baseline's (at most {CHANGE_MAX_RATIO:g}, 99 % bound {upper:.4f}, must be below 1) on "
        f"{rows} rows (at least {WON_MIN_ROWS})"
    )
    passed = rows >= WON_MIN_ROWS and ratio <= CHANGE_MAX_RATIO and upper < 1.0
    return Verdict(passed=passed, reason=reason, figures={"ratio_to_baseline": ratio, "ratio_to_baseline_bound": upper})


def serving_baseline(baselines: dict[str, Floats], default: str) -> str:
    """The baseline that serves in a market where none has served: `default`, unless another is better beyond the 95 % bound."""
    best = _best(baselines)
    is_better = best != default and ratio_bound(baselines[best], baselines[default])[1] < 1.0
    return best if is_better else default


def _best(baselines: dict[str, Floats]) -> str:
    return min(baselines, key=lambda name: float(np.mean(baselines[name])))
