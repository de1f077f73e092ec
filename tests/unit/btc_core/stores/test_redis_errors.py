"""What is said of an error of Redis, which unauthenticated answers of the API repeat."""

from __future__ import annotations

import pytest
import redis
from pydantic import SecretStr

from btc_core.service_settings import RedisSettings
from btc_core.stores.redis_connection import explain

pytestmark = pytest.mark.unit


def test_a_server_that_repeats_the_password_does_not_make_it_public() -> None:
    settings = RedisSettings(password=SecretStr("hunter2"))
    error = redis.ResponseError("unknown command 'AUTH', with args beginning with: 'default' 'hunter2'")
    assert explain(settings, error) == (
        f"Redis at {settings.url} refuses a command: ResponseError: unknown command 'AUTH', with args beginning with: 'default' '…'"
    )
