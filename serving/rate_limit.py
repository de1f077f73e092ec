"""Limits how many requests a client may make: a token bucket for each address, from pyrate-limiter.

What does not belong here: limits on the size of bodies and headers (`server`) and on open streams (`event_stream`).
"""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

from pyrate_limiter import Rate, RateItem, StateBucket, TokenBucket

from serving.problem_details import Problem

if TYPE_CHECKING:
    from btc_core.clock import Clock

MAX_CLIENTS = 10_000
"""Most buckets that are kept, at 500 bytes each. Beyond it the client that was seen longest ago loses its bucket and gets
a full one when it returns."""
_PERIOD_S = 1_000
"""The limit is given to the library for this time, because it counts whole requests and `per_s` may be a fraction."""


class RateLimit:
    """Each client may make `per_s` requests a second, and as many at once after a pause."""

    def __init__(self, per_s: float, clock: Clock) -> None:
        rate = Rate(max(1, round(per_s * _PERIOD_S)), _PERIOD_S * 1_000, burst=max(1, int(per_s)))
        self._per_s = per_s
        self._clock = clock
        self._bucket_of = lru_cache(MAX_CLIENTS)(lambda _client: StateBucket([rate], TokenBucket()))

    def check(self, client: str) -> None:
        """Count a request of `client`; raises a 429 that says when to ask again if there were too many."""
        bucket = self._bucket_of(client)
        request = RateItem(client, int(self._clock.monotonic_s() * 1_000))
        if bucket.put(request) is True:
            return
        wait_s = cast("int", bucket.waiting(request)) / 1_000
        raise Problem(
            HTTPStatus.TOO_MANY_REQUESTS,
            "too_many_requests",
            f"more than {self._per_s:g} requests a second from this address; ask again in {wait_s:.3f} s",
            headers={"Retry-After": str(int(wait_s) + 1)},
            more={"retry_after_s": round(wait_s, 3)},
        )
