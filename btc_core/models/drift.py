"""Has a feature moved away from what the model was trained on? The population stability index (PSI) and its chance level.

What does not belong here: which rows are compared (`btc_assets.skill`), and the histograms themselves (`histograms`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import chdtri

if TYPE_CHECKING:
    import numpy.typing as npt

    from btc_core.models.histograms import Histogram

    Floats = npt.NDArray[np.float64]

LARGE = 0.25
"""PSI of a shift that matters, by the usual convention. It counts only where it is also more than chance."""
CHANCE_OF_FALSE_ALARM = 0.001
"""Probability that the PSI of a feature that does not drift exceeds its chance level."""
INDEPENDENT_SHARE = 0.1
"""Share of the rows that counts as independent, since values of one day depend on each other."""


def psi(training: Histogram, values: Floats) -> tuple[float, float]:
    """PSI of `values` against their distribution in training, and the PSI that chance alone exceeds once in a thousand.

    Without drift, PSI times the number of independent values is approximately chi-square distributed with one degree of
    freedom less than there are bins (Yurdakul 2018).
    """
    expected, found = np.asarray(training.shares), training.shares_of(values)
    least = 0.5 / max(len(values), 1)  # an empty bin counts as half a value, since PSI takes the log of its share
    used = (expected > 0.0) | (found > 0.0)
    left, right = np.maximum(found[used], least), np.maximum(expected[used], least)
    index = float(((left - right) * np.log(left / right)).sum())
    freedom = max(int(used.sum()) - 1, 1)
    quantile = float(chdtri(freedom, CHANCE_OF_FALSE_ALARM))
    return index, quantile / max(len(values) * INDEPENDENT_SHARE, 1.0)
