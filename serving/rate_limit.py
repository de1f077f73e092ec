"""How much one client may ask: a token bucket per address, and a bound on open streams.

What does not belong here: sizes of bodies and headers (`server`).
"""

from __future__ import annotations

import threading
from http import HTTPStatus
from typing import TYPE_CHECKING

from serving.problem_details import Problem

if TYPE_CHECKING:
    from btc_core.clock import Clock

MAX_CLIENTS = 10_000
"""Buckets kept, some 200 bytes each; beyond it the oldest are forgotten, which gives those clients a full one again."""


class RateLimit:
    """Each client may make `per_s` requests a second on average and as many again at once; 0 lets everything pass."""

    def __init__(self, per_s: float, clock: Clock) -> None:
        self._per_s = per_s
        self._burst = max(per_s, 1.0)
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}

    def check(self, client: str) -> None:
        """Count one request of `client`; raises a 429 that says when to ask again."""
        if self._per_s <= 0:
            return
        now_s = self._clock.monotonic_s()
        with self._lock:
            tokens, seen_s = self._buckets.pop(client, (self._burst, now_s))
            tokens = min(self._burst, tokens + (now_s - seen_s) * self._per_s)
            allowed = tokens >= 1.0
            self._buckets[client] = (tokens - 1.0 if allowed else tokens, now_s)
            if len(self._buckets) > MAX_CLIENTS:
                del self._buckets[next(iter(self._buckets))]
        if not allowed:
            wait_s = (1.0 - tokens) / self._per_s
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                "too_many_requests",
                f"more than {self._per_s:g} requests a second from this address; ask again in {wait_s:.3f} s",
                headers={"Retry-After": str(int(wait_s) + 1)},
                more={"retry_after_s": round(wait_s, 3)},
            )
