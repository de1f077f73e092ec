"""The newest row of each symbol in Redis.

Only the newest value of a key means anything, so no row waits for Redis: what it did not take is owed, replaced by
newer rows, and tried again. The log and the tables go on meanwhile.
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
"""A Redis that is away is tried this often; each try may wait for its socket timeout."""


class LatestRows:
    """The rows that Redis should hold. `worker` names the counter of retries."""

    def __init__(self, settings: RedisSettings, worker: str) -> None:
        self._redis = connect(settings)
        self._ttl_s = settings.ttl_s
        self._worker = worker
        self._owed: dict[str, dict[str, Any]] = {}
        self._retry_at_s = 0.0

    def put(self, rows: Mapping[str, dict[str, Any]]) -> bool:
        """Replace these keys, and those that are owed; False when Redis is away and all of it is owed."""
        self._owed.update(rows)
        now_s = time.monotonic()
        if not self._owed or now_s < self._retry_at_s:
            return not self._owed
        try:
            replace(self._redis, self._owed, self._ttl_s)
        except ServiceError as error:
            metrics.RETRIES.labels(self._worker).inc()
            if self._retry_at_s == 0.0:
                log.warning("%s; the newest rows follow when it is back", error)
            self._retry_at_s = now_s + RETRY_S
            return False
        if self._retry_at_s:
            log.info("Redis is back")
        self._retry_at_s = 0.0
        self._owed.clear()
        return True
