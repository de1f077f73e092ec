"""How long to wait before one more try."""

from __future__ import annotations

import random

_MOST_DOUBLINGS = 10
"""A night of tries would be more than a float holds."""


def pause_s(tries: int, first_s: float, max_s: float) -> float:
    """Seconds until the next of `tries` + 1 tries: by chance from `first_s` up to a bound that doubles, to `max_s`.

    Jitter keeps many clients from coming back together (Brooker 2015, "Exponential backoff and jitter").
    """
    bound_s = min(max_s, first_s * 2.0 ** min(tries, _MOST_DOUBLINGS))
    return random.uniform(first_s, bound_s)  # noqa: S311 - jitter is no secret
