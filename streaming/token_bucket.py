"""A token bucket: so many actions at once, and so many per second after that.

What does not belong here: the limits of an exchange, which stand beside the code that must keep them (`exchange_link`).
"""

from __future__ import annotations


class TokenBucket:
    """`burst` tokens, refilled at `per_s`. `now_s` is monotonic seconds.

    >>> bucket = TokenBucket(per_s=2.0, burst=1)
    >>> bucket.take(10.0), bucket.take(10.0), bucket.take(10.5)
    (0.0, 0.5, 0.0)
    """

    def __init__(self, per_s: float, burst: int) -> None:
        self._per_s = per_s
        self._burst = float(burst)
        self._tokens = float(burst)
        self._filled_s: float | None = None
        self._closed_until_s = 0.0

    def take(self, now_s: float) -> float:
        """Take a token and return 0; without a token, return the seconds until there is one."""
        if self._filled_s is not None:
            self._tokens = min(self._burst, self._tokens + max(0.0, now_s - self._filled_s) * self._per_s)
        self._filled_s = now_s
        if now_s < self._closed_until_s:
            return self._closed_until_s - now_s
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self._per_s

    def close(self, until_s: float) -> None:
        """Give no token before `until_s`."""
        self._closed_until_s = max(self._closed_until_s, until_s)
