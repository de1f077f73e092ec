"""The online level of the volatility forecast: outcomes of the last days raise or lower it a little.

The level is an exponential mean of RV/F, where F is the forecast before this correction; 1 is no correction. The served
forecast is F times the square root of the level: at full weight the correction followed noise and was worse on 2023.
What does not belong here: where the level is kept (`streaming.outcomes`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from btc_core.models.targets import known_outcomes
from btc_core.names import APART_MIN

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Longs = npt.NDArray[np.int64]

START = 1.0
HALF_LIFE_MIN = 1440.0
MAX_RATIO = 50.0
"""RV/F counts with at most this, so that one outcome moves the level by at most an eighth. A lower limit is a bias: on 2023,
a tenth of the mean of RV/F came from ratios above 10, and the mean of ratios up to 10 pulled every forecast down."""
POWER = 0.5
"""The forecast variance is multiplied by this power of the level."""

_RATE = 1.0 - 0.5 ** (APART_MIN / HALF_LIFE_MIN)


def update(level: float, ratio: float) -> float:
    """The level after an outcome of RV/F over the headline horizon; NaN changes nothing."""
    return level if math.isnan(ratio) else level + _RATE * (min(ratio, MAX_RATIO) - level)


def track(start: float, ratio: Floats, origin_ns: Longs) -> Floats:
    """The level in force at each of n origins in the order of time, (n,), which follows from the outcomes known by then."""
    moving, known = known_outcomes(origin_ns)
    levels = [start]
    for outcome in ratio[moving].tolist():
        levels.append(update(levels[-1], outcome))
    return np.asarray(np.array(levels)[known])


def corrected(variance: Floats, level: Floats) -> Floats:
    """Forecast variances (n, horizons) at levels (n,)."""
    return np.asarray(variance * np.power(level, POWER)[:, np.newaxis])


def sigma_factor(level: float) -> float:
    """What σ is multiplied by at a level."""
    return float(level ** (0.5 * POWER))
