"""The newest rows, read from Redis.

What does not belong here: keys and encodings. Those are `btc_core.redis_row`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import redis

from btc_core import redis_row
from btc_core.errors import ServiceError

if TYPE_CHECKING:
    from btc_core.redis_row import FeatureRow, ForecastRow
    from btc_core.settings import RedisSettings


class RedisStore:
    """Reads through one client; redis-py's pool gives each thread its own connection."""

    def __init__(self, settings: RedisSettings) -> None:
        self._client = redis_row.connect(settings)

    def features(self, symbol: str) -> FeatureRow | None:
        """The newest features; `ServiceError` when Redis is away."""
        try:
            return redis_row.read_features(self._client, symbol)
        except redis.RedisError as error:
            raise _away(error) from error

    def forecast(self, symbol: str) -> ForecastRow | None:
        """The newest forecast; `ServiceError` when Redis is away."""
        try:
            return redis_row.read_forecast(self._client, symbol)
        except redis.RedisError as error:
            raise _away(error) from error


def _away(error: redis.RedisError) -> ServiceError:
    # The type only: the message of an authentication error may carry what was sent.
    msg = f"Redis does not answer ({type(error).__name__}); `btc status` shows whether it runs"
    return ServiceError(msg)
