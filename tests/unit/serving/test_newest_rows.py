"""Reading the newest rows: a row is reused for a moment, and errors say what is wrong."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from btc_core.errors import ServiceError
from btc_core.service_settings import RedisSettings
from btc_core.stores import redis_rows
from serving.newest_rows import REUSE_S, RedisRows


class Clock:
    now_s = 100.0

    def now_ns(self) -> int:
        return 0

    def monotonic_s(self) -> float:
        return self.now_s


def test_a_row_is_read_again_after_a_moment_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    answers: list[Any] = ["first", "second", "of another symbol"]

    def read(_client: object, symbol: str) -> Any:
        asked.append(symbol)
        return answers[len(asked) - 1]

    monkeypatch.setattr(redis_rows, "read_forecast", read)
    clock = Clock()
    store = RedisRows(RedisSettings(), clock)
    assert [store.forecast("BTC/USD") for _ in range(3)] == ["first"] * 3
    clock.now_s += REUSE_S * 1.01
    assert store.forecast("BTC/USD") == "second"
    assert store.forecast("ETH/USD") == "of another symbol"
    assert asked == ["BTC/USD", "BTC/USD", "ETH/USD"]


def test_the_error_about_a_missing_redis_does_not_contain_the_password() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{probe.getsockname()[1]}/0"
    store = RedisRows(RedisSettings(url=url, password="a-secret"), Clock())
    with pytest.raises(ServiceError, match=rf"Redis at {url} does not answer: ") as caught:
        store.features("BTC/USD")
    assert "a-secret" not in str(caught.value)


def test_a_row_with_a_missing_field_is_a_service_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(_client: object, _symbol: str) -> Any:
        raise KeyError("bid_1m_usd")

    monkeypatch.setattr(redis_rows, "read_forecast", read)
    with pytest.raises(ServiceError, match="bid_1m_usd"):
        RedisRows(RedisSettings(), Clock()).forecast("BTC/USD")
