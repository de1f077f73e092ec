"""What each partition of the log may keep, from the free space of the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stack import kafka_retention
from stack.kafka_retention import retention_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from btc_core.settings import Settings
    from stack.layout import Layout

FREE = 60_000


@pytest.fixture(autouse=True)
def disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_retention, "free_bytes", lambda _path: FREE)


def with_markets(layout: Layout, *symbols: str) -> Settings:
    settings = layout.settings()
    return settings.model_copy(update={"exchange": settings.exchange.model_copy(update={"symbols": symbols})})


def hold(data: Path, partition: str, size: int) -> None:
    (data / partition).mkdir(parents=True)
    (data / partition / "00000000000000000000.log").write_bytes(bytes(size))
    (data / partition / "00000000000000000000.index").write_bytes(bytes(10_000))


def test_a_new_log_may_take_half_of_the_free_space(layout: Layout, tmp_path: Path) -> None:
    assert retention_bytes(with_markets(layout, "BTC/USD"), tmp_path) == FREE / 2 / 3


def test_each_market_takes_a_partition_until_there_are_no_more(layout: Layout, tmp_path: Path) -> None:
    names = [f"{letter}/USD" for letter in "ABCDEF"]
    assert retention_bytes(with_markets(layout, *names[:2]), tmp_path) == FREE / 2 / 3 / 2
    assert retention_bytes(with_markets(layout, *names), tmp_path) == FREE / 2 / 3 / 4


def test_a_log_that_has_messages_keeps_them(layout: Layout, tmp_path: Path) -> None:
    hold(tmp_path, "market.events-3", 90_000)
    hold(tmp_path, "features-3", 3_000)
    hold(tmp_path, "gaps-0", 5_000)
    hold(tmp_path, "features-3.0123-stray", 7_000)
    assert retention_bytes(with_markets(layout, "BTC/USD"), tmp_path) == 90_000
    assert retention_bytes(with_markets(layout, "BTC/USD"), tmp_path / "empty") == 10_000


def test_a_setting_wins(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTC_KAFKA_RETENTION_BYTES", "123456789")
    assert retention_bytes(layout.settings(), tmp_path) == 123_456_789
