"""The newest features, forecasts and minute columns, read from Redis.

What does not belong here: keys and encodings (`btc_core.stores.redis_rows`), and past rows (`stored_rows`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

import redis

from btc_core.errors import ServiceError
from btc_core.league.states import read_states
from btc_core.stores import redis_connection, redis_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.clock import Clock
    from btc_core.league.states import EntryState
    from btc_core.market.messages import ForecastRow
    from btc_core.service_settings import RedisSettings
    from btc_core.stores.redis_connection import Client
    from btc_core.stores.redis_rows import ColumnsRow, FeatureRow


REUSE_S = 0.01
"""How long a row is reused. A read costs as much as the rest of an answer, and new rows come at about 100 a second. This
time is added to the age of a forecast."""

TIMEOUT_S = 1.0
"""Longest wait for Redis, and so of a request for it. Redis answers within a millisecond unless something is wrong."""

UNREAD_S = 5.0
"""A subscription that was not read for this long is opened again, instead of reading everything that arrived meanwhile."""

Row = TypeVar("Row", "FeatureRow", "ForecastRow", "ColumnsRow")


class Announcements:
    """Waits until the forecast worker announces a forecast."""

    def __init__(self, settings: RedisSettings, symbols: tuple[str, ...], clock: Clock) -> None:
        self._client = redis_connection.connect(settings)
        self._clock = clock
        self._last_wait_s = 0.0
        self._channels = [redis_rows.update_channel(redis_rows.forecast_key(symbol)) for symbol in symbols]
        self._pubsub: redis.client.PubSub | None = None

    def wait(self, timeout_s: float) -> bool:
        """Return True as soon as there is a new forecast, or False after `timeout_s`, also if Redis does not answer."""
        last_wait_s, self._last_wait_s = self._last_wait_s, self._clock.monotonic_s()
        try:
            if self._pubsub is not None and self._last_wait_s - last_wait_s > UNREAD_S:
                self._pubsub.close()
                self._pubsub = None
            if self._pubsub is None:
                pubsub = self._client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
                pubsub.subscribe(*self._channels)
                self._pubsub = pubsub
            is_announced = self._pubsub.get_message(timeout=timeout_s) is not None
            while is_announced and self._pubsub.get_message(timeout=0) is not None:
                pass  # the newest row stands for all announcements so far
        except redis.RedisError:
            self._pubsub = None
            time.sleep(timeout_s)
            return False
        return is_announced


class RedisRows:
    """Reads rows with one client, whose pool gives each thread a connection of its own."""

    def __init__(self, settings: RedisSettings, clock: Clock) -> None:
        self._client = redis_connection.connect(settings, TIMEOUT_S)
        self._clock = clock
        self._features: dict[str, tuple[float, FeatureRow | None]] = {}
        self._forecasts: dict[str, tuple[float, ForecastRow | None]] = {}

    def features(self, symbol: str) -> FeatureRow | None:
        """The newest features; raises `ServiceError` if Redis does not answer or the row cannot be read."""
        return self._newest(self._features, redis_rows.read_features, symbol)

    def forecast(self, symbol: str) -> ForecastRow | None:
        """The newest forecast; raises `ServiceError` if Redis does not answer or the row cannot be read."""
        return self._newest(self._forecasts, redis_rows.read_forecast, symbol)

    def columns(self, symbol: str) -> ColumnsRow | None:
        """The newest minute columns; raises `ServiceError` if Redis does not answer or the row cannot be read."""
        return self._read(redis_rows.read_columns, symbol)

    def league_states(self) -> list[EntryState] | None:
        """What the entries of the league do; raises `ServiceError` if Redis does not answer."""
        return read_states(self._client)

    def _newest(
        self,
        recent: dict[str, tuple[float, Row | None]],
        read: Callable[[Client, str], Row | None],
        symbol: str,
    ) -> Row | None:
        """The row in `recent` if it was read recently, otherwise a new one. Two threads may both read it; no harm."""
        now_s = self._clock.monotonic_s()
        read_at_s, row = recent.get(symbol, (now_s, None))
        if row is None or now_s - read_at_s > REUSE_S:
            row = self._read(read, symbol)
            recent[symbol] = (now_s, row)
        return row

    def _read(self, read: Callable[[Client, str], Row | None], symbol: str) -> Row | None:
        try:
            return read(self._client, symbol)
        except (KeyError, ValueError) as error:  # a field is missing or has a bad value
            msg = f"the row of {symbol} in Redis cannot be read: {error}; the workers write a new one within seconds"
            raise ServiceError(msg) from error
