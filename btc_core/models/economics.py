"""What a forecast of the volatility is worth: positions of a target volatility, value at risk, and quoted widths.

All are of the headline horizon, and each is compared with the same use of another forecast, with a HAC standard error.
What does not belong here: statistical scores (`scores`), and which forecasts are compared (`evaluation_results`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import chdtrc

from btc_core.models import intervals, scores

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

RISK_LEVELS = (0.01, 0.05)
SHARPE, RISK_AVERSION = 0.4, 2.0
"""The Sharpe ratio and the risk aversion of the investor in Bollerslev, Hood, Huss and Pedersen (2018)."""


def target_error(realized: Floats, forecast: Floats) -> Floats:
    """|σ of a position / its target − 1|, where the position is the target over the forecast σ. 0 is perfect."""
    return np.abs(np.sqrt(realized / forecast) - 1.0)


def realized_utility(realized: Floats, forecast: Floats) -> Floats:
    """Utility of such a position in percent of wealth a year, Bollerslev, Hood, Huss and Pedersen (2018), eq. 20.

    A perfect forecast gives SHARPE² / (2 RISK_AVERSION), which is 4 %.
    """
    ratio = realized / forecast
    return 100.0 * SHARPE**2 / RISK_AVERSION * (np.sqrt(ratio) - 0.5 * ratio)


def width_regret(realized: Floats, forecast: Floats) -> Floats:
    """Share of the best profit that a quote of the forecast's width gives away. 0 is perfect.

    A quote of half-width w earns w at a rate of fills that falls as exp(−w/σ) (Avellaneda and Stoikov 2008), so that
    the best width is the realized σ. The width quoted is the forecast σ.
    """
    relative = np.sqrt(forecast / realized)
    return 1.0 - relative * np.exp(1.0 - relative)


MEASURES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "target_error": target_error,
    "realized_utility": realized_utility,
    "width_regret": width_regret,
}
"""Each gives one number for each row from realized and forecast variances."""


def compared(ours: Floats, reference: Floats) -> dict[str, float | None]:
    """Both means, their difference, and its HAC standard error (None when it is unknown)."""
    difference = float(np.mean(ours) - np.mean(reference))
    t = scores.diebold_mariano_t(ours, reference)
    error = abs(difference / t) if math.isfinite(t) and t != 0.0 else None
    return {"model": float(np.mean(ours)), "har": float(np.mean(reference)), "difference": difference, "error": error}


def value_at_risk_bps(returns_bps: Floats, sigma_bps: Floats, level: float) -> Floats:
    """The return below which the next one falls with probability `level`, at each origin: a quantile of returns in σ.

    The quantile follows the outcomes before each origin as those of the intervals do, and starts at a normal one's.
    """
    score = returns_bps / sigma_bps
    normal = {0.01: -2.3263, 0.05: -1.6449}[level]
    width = 2.0 * 1.6449
    bound = np.empty(len(score))
    current = normal
    for row, outcome in enumerate(score.tolist()):
        bound[row] = current
        current += intervals.RATE * width * (level - (outcome < current))
    return bound * sigma_bps


def breach_tests(breached: npt.NDArray[np.bool_], level: float) -> dict[str, float]:
    """The share of breaches, and the p-values of Kupiec (1995) and Christoffersen (1998).

    Kupiec's asks whether the share is `level`, Christoffersen's whether a breach is as likely after a breach as after
    none; `conditional` tests both at once.
    """
    rows, hits = len(breached), int(breached.sum())
    unconditional = 2.0 * (_log_likelihood(rows - hits, hits, hits / rows) - _log_likelihood(rows - hits, hits, level))
    before, after = breached[:-1], breached[1:]
    counts = {(a, b): int(np.sum((before == a) & (after == b))) for a in (False, True) for b in (False, True)}
    calm, wild = counts[False, False] + counts[False, True], counts[True, False] + counts[True, True]
    free = sum(
        _log_likelihood(counts[state, False], counts[state, True], counts[state, True] / max(total, 1))
        for state, total in ((False, calm), (True, wild))
    )
    again = counts[False, True] + counts[True, True]
    independence = 2.0 * (free - _log_likelihood(calm + wild - again, again, again / max(calm + wild, 1)))
    return {
        "breaches": hits / rows,
        "breaches_after_a_breach": counts[True, True] / max(wild, 1),
        "kupiec_p": float(chdtrc(1, max(unconditional, 0.0))),
        "christoffersen_p": float(chdtrc(1, max(independence, 0.0))),
        "conditional_p": float(chdtrc(2, max(unconditional + independence, 0.0))),
    }


def _log_likelihood(misses: int, hits: int, probability: float) -> float:
    """The log likelihood of independent breaches. A count of zero contributes nothing: 0 · ln 0 is taken as 0."""
    total = misses * math.log1p(-probability) if misses else 0.0
    return total + (hits * math.log(probability) if hits else 0.0)
