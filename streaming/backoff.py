"""Exponential backoff: how long to wait before the next attempt.

What does not belong here: jitter and sleeping, which each caller does in its own way.
"""

from __future__ import annotations

_MAX_DOUBLINGS = 10
"""Beyond this every bound in use is reached; 2.0 to the power of a night's retries would overflow a float."""


def backoff_s(retries: int, first_s: float, max_s: float) -> float:
    """The pause in seconds: `first_s` before the first retry, twice as long before each further one, at most `max_s`."""
    return min(max_s, first_s * 2.0 ** min(retries, _MAX_DOUBLINGS))
