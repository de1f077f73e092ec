"""Leaving frames out while the disk is nearly full: books first, then superseded quotes, never trades."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, cast

import pytest
from prometheus_client import REGISTRY

import streaming.disk_saver
from btc_core.market.frames import BookFrame, TickerFrame, TradeFrame
from btc_core.market.messages import Envelope
from btc_core.settings import DiskSettings
from streaming.disk_saver import DiskSaver

if TYPE_CHECKING:
    from btc_core.market.frames import ChannelFrame
    from streaming.conflation import ConflatingPublisher

QUOTE, TRADE, BOOK = TickerFrame("update", []), TradeFrame("update", []), BookFrame("update", [])
ROOMY, LOW, LOWER, FULL = 10_000, 1_500, 500, 0


class Passed:
    """A publisher that keeps what it is given."""

    full = False

    def __init__(self) -> None:
        self.names: list[str] = []
        self.conflated: list[bool] = []

    def publish(self, key: str, envelope: Envelope, _frame: ChannelFrame) -> None:
        self.names.append(f"{key}:{envelope.raw.decode()}")
        self.conflated.append(envelope.conflated)

    def poll(self) -> None:
        pass


class World:
    """A disk, a clock, and the saver between ingest and its publisher."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = ROOMY
        self.now_s = 100.0
        monkeypatch.setattr(streaming.disk_saver, "free_bytes", lambda _path: self.free)
        settings = DiskSettings(
            path="/data", books_below_bytes=2_000, quotes_below_bytes=1_000, kafka_stops_below_bytes=100
        )
        self.publisher = Passed()
        self.saver = DiskSaver(cast("ConflatingPublisher", self.publisher), settings, self)

    def now_ns(self) -> int:
        return 0

    def monotonic_s(self) -> float:
        return self.now_s

    def later(self, seconds: float, free: int | None = None) -> None:
        self.now_s += seconds
        self.free = self.free if free is None else free
        self.saver.poll()

    def put(self, name: str, frame: ChannelFrame, key: str = "BTC") -> None:
        self.saver.publish(key, Envelope(0, 1, 1, "", "ws", name.encode()), frame)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def left_out(channel: str) -> float:
    return REGISTRY.get_sample_value("btc_disk_left_out_total", {"channel": channel, "symbol": "BTC"}) or 0.0


def test_with_room_everything_passes_in_order(world: World) -> None:
    world.later(5)
    for name, frame in (("q1", QUOTE), ("b1", BOOK), ("q2", QUOTE), ("t1", TRADE)):
        world.put(name, frame)
    assert world.publisher.names == ["BTC:q1", "BTC:b1", "BTC:q2", "BTC:t1"]


def test_books_are_left_out_first_and_counted(world: World) -> None:
    before = left_out("book")
    world.later(5, LOW)
    for name, frame in (("q1", QUOTE), ("b1", BOOK), ("q2", QUOTE), ("t1", TRADE)):
        world.put(name, frame)
    assert world.publisher.names == ["BTC:q1", "BTC:q2", "BTC:t1"]
    assert left_out("book") - before == 1


@pytest.mark.parametrize("free", [LOWER, FULL])
def test_then_one_quote_a_second_and_the_newest_before_each_trade_are_kept(world: World, free: int) -> None:
    before = left_out("ticker")
    world.later(5, free)
    for name, frame in (("q1", QUOTE), ("q2", QUOTE), ("q3", QUOTE), ("b1", BOOK), ("t1", TRADE), ("t2", TRADE)):
        world.put(name, frame)
    assert world.publisher.names == ["BTC:q1", "BTC:q3", "BTC:t1", "BTC:t2"]
    assert world.publisher.conflated == [False, True, False, False]
    assert left_out("ticker") - before == 1


def test_the_last_quote_of_a_market_that_falls_silent_is_kept(world: World) -> None:
    world.later(5, LOWER)
    world.put("q1", QUOTE)
    world.put("q2", QUOTE)
    world.put("other", QUOTE, "ETH")
    world.later(0.9)
    assert world.publisher.names == ["BTC:q1", "ETH:other"]
    world.later(0.1)
    assert world.publisher.names == ["BTC:q1", "ETH:other", "BTC:q2"]


def test_when_there_is_room_again_everything_passes_and_both_changes_are_logged(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        world.later(5, LOWER)
        world.put("q1", QUOTE)
        world.put("q2", QUOTE)
        world.later(1, ROOMY)
        world.put("b1", BOOK)
        world.put("q3", QUOTE)
    assert world.publisher.names == ["BTC:q1", "BTC:q2", "BTC:b1", "BTC:q3"]
    said = [record.getMessage() for record in caplog.records]
    assert [text.partition("at /data: ")[2] for text in said] == [
        "order books and superseded quotes are left out; trades are recorded",
        "everything is recorded again",
    ]
