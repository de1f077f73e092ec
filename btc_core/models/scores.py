"""How a forecast is judged: the losses that are reported, and whether a difference is more than luck.

Volatility is judged by QLIKE, and the price by its squared error against the random walk (docs/concepts/forecasting.md).
What does not belong here: R² or MAPE of a price level, which are excellent for the random walk too.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from btc_core.names import HEADLINE_MIN

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

OVERLAP_LAGS = max(HEADLINE_MIN - 5, 0)
"""How many further rows a label of the headline horizon overlaps, compared with five minutes."""


def qlike_losses(realized: Floats, forecast: Floats) -> Floats:
    """RV/F − ln(RV/F) − 1 for each row; both are positive variances, and 0 is perfect. Patton (2011), eq. 24.

    >>> float(qlike_losses(np.array([4.0]), np.array([4.0]))[0])
    0.0
    """
    ratio = np.asarray(realized, np.float64) / np.asarray(forecast, np.float64)
    return ratio - np.log(ratio) - 1.0


def qlike(realized: Floats, forecast: Floats) -> float:
    """Mean of `qlike_losses`. The conditional mean of RV minimises it. Patton (2011)."""
    return float(np.mean(qlike_losses(realized, forecast)))


def r2_log(realized: Floats, median: Floats) -> float:
    """Share of the variance of ln RV that ln of a median forecast explains; a bias of the forecast counts against it.

    >>> r2_log(np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    1.0
    """
    target, error = np.log(realized), np.log(realized) - np.log(median)
    spread = float(np.var(target))
    return 1.0 - float(np.mean(np.square(error))) / spread if spread > 0.0 else math.nan


def winkler(actual: Floats, low: Floats, high: Floats, level: float) -> Floats:
    """Width of an interval of `level`, plus 2/(1 − level) times the distance of an outcome outside it. Winkler (1972).

    >>> winkler(np.array([0.0, 3.0]), np.array([-1.0, -1.0]), np.array([1.0, 1.0]), 0.9).round(6).tolist()
    [2.0, 42.0]
    """
    outside = np.maximum(low - actual, 0.0) + np.maximum(actual - high, 0.0)
    return high - low + 2.0 / (1.0 - level) * outside


def pinball(actual: Floats, quantile: Floats, level: float) -> Floats:
    """The loss of each row that the `level` quantile minimises. Koenker and Bassett (1978).

    >>> pinball(np.array([1.0, -1.0]), np.zeros(2), 0.1).tolist()
    [0.1, 0.9]
    """
    error = actual - quantile
    return np.maximum(level * error, (level - 1.0) * error)


def crps_of_quantiles(actual: Floats, bounds: Floats, levels: tuple[float, ...]) -> Floats:
    """CRPS of each row from some of its quantiles, (n, levels): twice the pinball loss, integrated over the levels.

    The integral is the trapezoidal sum over `levels`, extended to 0 and 1 by the loss of the outermost quantiles, so it
    compares forecasts that give the same levels. Laio and Tamea (2007).
    """
    edges = np.array([0.0, *(0.5 * (low + high) for low, high in pairwise(levels)), 1.0])
    losses = [pinball(actual, bounds[:, place], level) for place, level in enumerate(levels)]
    return 2.0 * np.asarray(np.diff(edges) @ np.array(losses))


def r2_log_debiased(realized: Floats, forecast: Floats) -> float:
    """Share of the variance of ln RV that ln F explains once its mean error is subtracted.

    The error is subtracted because ln of a mean forecast lies above the mean of the logs whatever its quality (Jensen).
    """
    target, error = np.log(realized), np.log(realized) - np.log(forecast)
    spread = float(np.var(target))
    return 1.0 - float(np.var(error)) / spread if spread > 0.0 else math.nan


def median_ape(realized: Floats, forecast: Floats) -> float:
    """Median of |√F − √RV| / √RV: the typical relative error of σ."""
    sigma = np.sqrt(realized)
    return float(np.median(np.abs(np.sqrt(forecast) - sigma) / sigma))


def mse_ratio(actual: Floats, forecast: Floats) -> float:
    """Mean squared error over that of the random walk, which forecasts a return of 0; below 1 is better.

    One minus this is the out-of-sample R² of Campbell and Thompson (2008).

    >>> mse_ratio(np.array([1.0, -1.0]), np.array([0.0, 0.0]))
    1.0
    """
    walk = float(np.mean(np.square(actual)))
    return float(np.mean(np.square(actual - forecast))) / walk if walk > 0.0 else math.nan


def direction_hits(actual: Floats, forecast: Floats) -> tuple[float, float]:
    """Share of right signs and its standard error, over the rows where neither is exactly 0; NaN when there are none."""
    used = (actual != 0.0) & (forecast != 0.0)
    n = int(np.count_nonzero(used))
    if n == 0:
        return math.nan, math.nan
    share = float(np.mean(np.sign(actual[used]) == np.sign(forecast[used])))
    return share, math.sqrt(share * (1.0 - share) / n)


def diebold_mariano_t(losses: Floats, reference_losses: Floats, lags: int | None = None) -> float:
    """The t statistic of the mean of (losses − reference_losses); below −1.64 is better at one-sided 5 %.

    Diebold and Mariano (1995), with the HAC variance of Newey and West (1987) and Bartlett weights. Without `lags` it
    uses ⌊4 (n/100)^(2/9)⌋ of them (Newey and West 1994), and with horizons of more than five minutes `OVERLAP_LAGS` more, up to
    a quarter of the rows. NaN for fewer than 10 rows and for equal losses.
    """
    difference = np.asarray(losses, np.float64) - np.asarray(reference_losses, np.float64)
    n = len(difference)
    if n < 10:
        return math.nan
    usual = int(4.0 * (n / 100.0) ** (2.0 / 9.0))
    width = max(usual, min(usual + OVERLAP_LAGS, n // 4)) if lags is None else lags
    centred = difference - difference.mean()
    variance = float(centred @ centred) / n
    for lag in range(1, min(width, n - 1) + 1):
        variance += 2.0 * (1.0 - lag / (width + 1.0)) * float(centred[lag:] @ centred[:-lag]) / n
    if variance <= 0.0:
        return math.nan
    return float(difference.mean()) / math.sqrt(variance / n)


def finite_or_none(value: float) -> float | None:
    """None for NaN and infinity, which JSON does not have.

    >>> finite_or_none(0.5), finite_or_none(float("nan"))
    (0.5, None)
    """
    return float(value) if math.isfinite(value) else None
