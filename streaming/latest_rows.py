"""The newest row of each symbol in Redis.

Only the newest row of a key has a meaning, so the stream never waits for Redis: rows that it did not accept stay here,
are replaced by newer ones, and are tried again. The log and the tables continue meanwhile.
What does not belong here: what is in a row (`btc_core.stores.redis_rows`).
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from btc_core import metrics
from btc_core.errors import ServiceError
from btc_core.stores.redis_rows import connect, replace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from btc_core.settings import RedisSettings

log = logging.getLogger(__name__)

RETRY_S = 0.5
"""Least time between two attempts while Redis is unavailable; each may take as long as the socket's timeout."""


class LatestRows:
    """Writes rows to Redis and keeps those it has not accepted. `worker` labels the counter of retries."""

    def __init__(self, settings: RedisSettings, worker: str) -> None:
        self._redis = connect(settings)
        self._ttl_s = settings.ttl_s
        self._worker = worker
        self._unwritten: dict[str, dict[str, Any]] = {}
        self._retry_at_s = 0.0

    def write(self, rows: Mapping[str, dict[str, Any]]) -> bool:
        """Replace the rows at these keys and write those left from before; False when Redis has not accepted all of them."""
        self._unwritten.update(rows)
        now_s = time.monotonic()
        if not self._unwritten or now_s < self._retry_at_s:
            return not self._unwritten
        try:
            replace(self._redis, self._unwritten, self._ttl_s)
        except ServiceError as error:
            metrics.RETRIES.labels(self._worker).inc()
            if self._retry_at_s == 0.0:
                log.warning("%s; the newest rows will be written once it answers again", error)
            self._retry_at_s = now_s + RETRY_S
            return False
        if self._retry_at_s:
            log.info("Redis answers again")
        self._retry_at_s = 0.0
        self._unwritten.clear()
        return True
