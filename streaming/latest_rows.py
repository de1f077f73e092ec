"""The newest row of each symbol in Redis, written by a thread of its own.

Only the newest row of a key has a meaning, so a worker never waits for Redis: a row waits here until Redis accepts it or a
newer one replaces it. The log and the tables continue meanwhile.
What does not belong here: what is in a row (`btc_core.stores.redis_rows`).
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import msgspec
from redis.backoff import NoBackoff
from redis.retry import Retry

from btc_core import metrics
from btc_core.clock import NS_PER_S, now_ns
from btc_core.errors import ServiceError
from btc_core.stores.redis_connection import connect
from btc_core.stores.redis_rows import replace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from btc_core.service_settings import RedisSettings

log = logging.getLogger(__name__)

RETRY_S = 0.5
"""Time between two attempts while Redis is unavailable."""
DEADLINE_S = 0.25
"""Longest time for one answer of Redis, which normally takes less than a millisecond. The client makes two attempts, because
the first one fails when Redis has closed an old connection."""


class WaitingRow(msgspec.Struct, frozen=True):
    """A row that Redis has not accepted yet."""

    fields: dict[str, Any]
    received_ns: int
    """When the oldest frame was received whose result at this key is not readable yet."""


class LatestRows:
    """Writes the newest rows to Redis. `worker` labels the counter of retries and the latency of the stage."""

    def __init__(self, settings: RedisSettings, worker: str) -> None:
        self._redis = connect(settings, DEADLINE_S)
        self._redis.set_retry(Retry(NoBackoff(), 1))
        self._ttl_s = settings.ttl_s
        self._worker = worker
        self._waiting: dict[str, WaitingRow] = {}
        self._changed = threading.Condition()
        self._available = True
        self._thread = threading.Thread(target=self._run, name="redis", daemon=True)

    def write(self, rows: Mapping[str, dict[str, Any]], received_ns: int) -> None:
        """Let these rows replace those at their keys, and return at once.

        `received_ns` is when the oldest frame behind them was received.
        """
        with self._changed:
            self._waiting = _merged(self._waiting, {key: WaitingRow(row, received_ns) for key, row in rows.items()})
            self._changed.notify()
        if self._thread.ident is None:
            self._thread.start()
        elif not self._thread.is_alive():
            msg = "the thread that writes to Redis has ended; its traceback is in the log"
            raise RuntimeError(msg)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                rows, self._waiting = self._waiting, {}
            if not self._accepted(rows):
                with self._changed:
                    self._waiting = _merged(rows, self._waiting)
                time.sleep(RETRY_S)

    def _accepted(self, rows: dict[str, WaitingRow]) -> bool:
        try:
            replace(self._redis, {key: row.fields for key, row in rows.items()}, self._ttl_s)
        except ServiceError as error:
            metrics.RETRIES.labels(self._worker).inc()
            if self._available:
                log.warning("%s; the newest rows will be written once it answers again", error)
            self._available = False
            return False
        oldest_ns = min(row.received_ns for row in rows.values())
        metrics.STAGE_LATENCY.labels(self._worker).observe((now_ns() - oldest_ns) / NS_PER_S)
        if not self._available:
            log.info("Redis answers again")
        self._available = True
        return True


def _merged(older: dict[str, WaitingRow], newer: dict[str, WaitingRow]) -> dict[str, WaitingRow]:
    """The newer row of each key, with the time of the older one: that frame's result was not readable either."""
    merged = older | newer
    for key in older.keys() & newer.keys():
        merged[key] = WaitingRow(newer[key].fields, min(older[key].received_ns, newer[key].received_ns))
    return merged
