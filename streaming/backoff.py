"""How long to wait at most before one more try; the caller draws the pause, by chance, up to that."""

from __future__ import annotations

_MOST_DOUBLINGS = 10
"""A night of tries would be more than a float holds."""


def bound_s(tries: int, first_s: float, max_s: float) -> float:
    """Seconds: `first_s`, twice as long after each try, `max_s` at most."""
    return min(max_s, first_s * 2.0 ** min(tries, _MOST_DOUBLINGS))
