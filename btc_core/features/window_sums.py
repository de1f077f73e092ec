"""How much a count or a sum has grown over a window that ends now, and the logarithms of that.

What does not belong here: formulas of features (`formulas`), and how the sums are kept (`state`).
"""

from __future__ import annotations

import math
from typing import Any

from btc_core.compiled import njit
from btc_core.features.state import HIGH, LOW, QTY_SCALE, SECOND_SLOTS, difference, float_of


@njit
def counted_since(ring: Any, counter: int, since_s: int) -> int:
    """Return how much a count has grown since the end of the second `since_s`."""
    return difference(counter, ring[since_s % SECOND_SLOTS])


@njit
def summed_since(ring: Any, total: Any, since_s: int) -> float:
    """Return how much a sum has grown since the end of the second `since_s`, in its units."""
    return grown(total, ring[since_s % SECOND_SLOTS])


@njit
def grown(total: Any, before: Any) -> float:
    """Return how much a sum has grown since it had the words `before`, in its units."""
    return float_of(total[LOW] - before[LOW], difference(total[HIGH], before[HIGH]))


@njit
def log1p_volume(s: Any, now_s: int, minutes: int) -> float:
    """Return the log of one plus the quantity traded in the last `minutes` minutes; NaN if they are not covered."""
    since_s = now_s - 60 * minutes
    if since_s < s.volume_since_s:
        return math.nan
    return math.log1p(summed_since(s.volumes, s.volume, since_s) / QTY_SCALE)


@njit
def log1p_count(s: Any, ring: Any, counter: int, now_s: int, minutes: int) -> float:
    """Return the log of one plus the growth of a counter in the last `minutes` minutes; NaN if they are not covered."""
    since_s = now_s - 60 * minutes
    if since_s < s.ticks_since_s:
        return math.nan
    return math.log1p(counted_since(ring, counter, since_s))


@njit
def log1p_quotes(s: Any, now_s: int, minutes: int) -> float:
    """Return the log of one plus the number of quotes; NaN without one in the last hour, as on a day of imported trades."""
    if counted_since(s.quote_counts, s.quotes, now_s - 3_600) == 0:
        return math.nan
    return log1p_count(s, s.quote_counts, s.quotes, now_s, minutes)
