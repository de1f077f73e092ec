"""Has a feature moved away from what the model was trained on? PSI, and how much of it chance alone would give.

What does not belong here: which rows are compared (`btc_assets.skill`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

BINS = 10
"""Of equal share in training, and one for missing values."""
LARGE = 0.25
"""The usual bound of a shift that matters; counts only where it is more than chance."""
Z_999 = 3.09


class Edges(msgspec.Struct, frozen=True):
    """Deciles of one feature in training and the share of each bin, the last is that of missing values."""

    edges: tuple[float, ...]
    shares: tuple[float, ...]


def edges_of(values: Floats) -> Edges:
    """Deciles of training values; a constant or missing feature has fewer bins."""
    known = values[~np.isnan(values)]
    inner = np.unique(np.quantile(known, np.linspace(0.0, 1.0, BINS + 1)[1:-1])) if len(known) else np.empty(0)
    return Edges(tuple(inner.tolist()), tuple(_shares(values, inner).tolist()))


def psi(edges: Edges, values: Floats) -> tuple[float, float]:
    """The index of `values` against training, and its 99.9 % quantile without any drift for so many values.

    Without drift PSI times the number of values is about chi-square with bins − 1 degrees of freedom (Yurdakul 2018);
    its quantile is by Wilson and Hilferty (1931). Values of one day depend on each other, so a tenth of them counts.
    """
    expected = np.asarray(edges.shares)
    found = _shares(values, np.asarray(edges.edges))
    least = 0.5 / max(len(values), 1)  # an empty bin is half a value
    used = (expected > 0.0) | (found > 0.0)
    left, right = np.maximum(found[used], least), np.maximum(expected[used], least)
    index = float(((left - right) * np.log(left / right)).sum())
    freedom = max(int(used.sum()) - 1, 1)
    spread = 2.0 / (9.0 * freedom)
    quantile = freedom * (1.0 - spread + Z_999 * math.sqrt(spread)) ** 3
    return index, quantile / max(len(values) / 10.0, 1.0)


def _shares(values: Floats, inner: Floats) -> Floats:
    missing = np.isnan(values)
    places = np.searchsorted(inner, values[~missing], side="right")
    counts = np.append(np.bincount(places, minlength=len(inner) + 1), missing.sum())
    return np.asarray(counts / max(len(values), 1), np.float64)
