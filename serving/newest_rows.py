"""The newest rows, read from Redis.

What does not belong here: keys and encodings. Those are `btc_core.stores.redis_rows`'s.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

import redis

from btc_core.errors import ServiceError
from btc_core.stores import redis_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.clock import Clock
    from btc_core.settings import RedisSettings
    from btc_core.stores.redis_rows import FeatureRow, ForecastRow


REUSE_S = 0.01
"""A row read this recently is not read again: a read costs as much as the rest of an answer, and new rows come at some
100/s. Longer adds its length to the age of every forecast."""

TIMEOUT_S = 1.0
"""Longest wait for Redis, which answers within a millisecond or is in trouble; a request waits as long."""

FORGET_S = 5.0
"""A subscription nobody read for this long is opened anew instead of reading what piled up in it."""

Row = TypeVar("Row", "FeatureRow", "ForecastRow")


class Announcements:
    """Waits for the forecast worker's announcements; without Redis it waits just as long and says no."""

    def __init__(self, settings: RedisSettings, symbols: tuple[str, ...], clock: Clock) -> None:
        self._client = redis_rows.connect(settings)
        self._clock = clock
        self._asked_s = 0.0
        self._channels = [redis_rows.update_channel(redis_rows.forecast_key(symbol)) for symbol in symbols]
        self._pubsub: redis.client.PubSub | None = None

    def wait(self, timeout_s: float) -> bool:
        """Whether a forecast was announced since the last call, as soon as one is or after `timeout_s`."""
        was_s, self._asked_s = self._asked_s, self._clock.monotonic_s()
        try:
            if self._pubsub is not None and self._asked_s - was_s > FORGET_S:
                self._pubsub.close()
                self._pubsub = None
            if self._pubsub is None:
                pubsub = self._client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
                pubsub.subscribe(*self._channels)
                self._pubsub = pubsub
            heard = self._pubsub.get_message(timeout=timeout_s) is not None
            while heard and self._pubsub.get_message(timeout=0) is not None:
                pass  # those that came meanwhile are told by the same row
        except redis.RedisError:
            self._pubsub = None
            time.sleep(timeout_s)
            return False
        return heard


class RedisStore:
    """Reads through one client; redis-py's pool gives each thread its own connection."""

    def __init__(self, settings: RedisSettings, clock: Clock) -> None:
        self._client = redis_rows.connect(settings, TIMEOUT_S)
        self._clock = clock
        self._features: dict[str, tuple[float, FeatureRow | None]] = {}
        self._forecasts: dict[str, tuple[float, ForecastRow | None]] = {}

    def features(self, symbol: str) -> FeatureRow | None:
        """The newest features; `ServiceError` when Redis is away or the row can't be read."""
        return self._newest(self._features, redis_rows.read_features, symbol)

    def forecast(self, symbol: str) -> ForecastRow | None:
        """The newest forecast; `ServiceError` when Redis is away or the row can't be read."""
        return self._newest(self._forecasts, redis_rows.read_forecast, symbol)

    def _newest(
        self,
        recent: dict[str, tuple[float, Row | None]],
        read: Callable[[redis.Redis, str], Row | None],
        symbol: str,
    ) -> Row | None:
        """The row of `recent` while it is recent, else a new one; two threads may both read, which does no harm."""
        now_s = self._clock.monotonic_s()
        read_at_s, row = recent.get(symbol, (now_s, None))
        if row is None or now_s - read_at_s > REUSE_S:
            row = self._read(read, symbol)
            recent[symbol] = (now_s, row)
        return row

    def _read(self, read: Callable[[redis.Redis, str], Row | None], symbol: str) -> Row | None:
        try:
            return read(self._client, symbol)
        except redis.RedisError as error:
            # The type only: the message of an authentication error may carry what was sent.
            msg = f"Redis does not answer ({type(error).__name__}); `btc status` shows whether it runs"
            raise ServiceError(msg) from error
        except (KeyError, ValueError) as error:  # a field is missing, or msgspec or float() refuses one
            msg = f"the row of {symbol} in Redis cannot be read: {error}; the workers write a new one within seconds"
            raise ServiceError(msg) from error
