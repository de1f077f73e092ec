"""The distribution of a feature in training, kept in a model's bundle as a histogram with bins of equal share.

What does not belong here: how far live values have moved away from it (`drift`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


class Histogram(msgspec.Struct, frozen=True):
    """Shares of the values of one feature; the last share is that of missing values."""

    edges: tuple[float, ...]
    """Inner edges of the bins, ascending; a value on an edge belongs to the bin above it."""
    shares: tuple[float, ...]
    low: float | None = None
    high: float | None = None
    """The least and the largest value; None in bundles from before these fields, and if no value was known."""

    def shares_of(self, values: Floats) -> Floats:
        """The shares of other values in the same bins."""
        return _shares(values, np.asarray(self.edges))


def histogram_of(values: Floats, bins: int) -> Histogram:
    """Histogram of `values` (n,) with `bins` bins of equal share; a constant or missing feature has fewer bins."""
    known = values[~np.isnan(values)]
    inner = np.unique(np.quantile(known, np.linspace(0.0, 1.0, bins + 1)[1:-1])) if len(known) else np.empty(0)
    low, high = (float(known.min()), float(known.max())) if len(known) else (None, None)
    return Histogram(tuple(inner.tolist()), tuple(_shares(values, inner).tolist()), low, high)


def _shares(values: Floats, inner: Floats) -> Floats:
    missing = np.isnan(values)
    places = np.searchsorted(inner, values[~missing], side="right")
    counts = np.append(np.bincount(places, minlength=len(inner) + 1), missing.sum())
    return np.asarray(counts / max(len(values), 1), np.float64)
