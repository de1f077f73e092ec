"""The token bucket behind the request limits of WebSocket and REST.

What does not belong here: the answer to a client above its limit (`websocket.hub`, `rest.api`).
"""

from __future__ import annotations


class RateLimit:
    """A token bucket that allows `per_s` requests a second on average, and `burst` at once."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._tokens = burst
        self._refilled_s: float | None = None

    def allows(self, now_s: float) -> bool:
        """Take a token if there is one; `now_s` is monotonic."""
        if self._refilled_s is not None:
            self._tokens = min(self._burst, self._tokens + (now_s - self._refilled_s) * self._per_s)
        self._refilled_s = now_s
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
