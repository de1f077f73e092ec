"""Ingest with two connections to the simulated exchange, one of which always stalls, breaks or is deaf."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import pytest
from prometheus_client import REGISTRY

from btc_core.clock import NS_PER_MIN, NS_PER_S, to_ns
from btc_core.market.frames import TickerFrame, TradeFrame, decode
from btc_core.stores.kafka import read_all
from streaming.ingest import Ingest
from tests.service.exchange_client import exchange

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from btc_core.market.frames import ChannelFrame
    from btc_core.market.messages import Envelope
    from btc_core.settings import Settings
    from exchange_simulator.server import Exchange

pytestmark = pytest.mark.service

SYMBOL = "LTC/USD"
STREAMS = {("ticker", SYMBOL), ("trade", SYMBOL), ("book", SYMBOL)}
PATIENCE_S = 180.0


class WatchedIngest(Ingest):
    """Knows the time of the newest quote that reached the log, by the clock of the exchange."""

    newest_ns = 0

    def publish(self, key: str, envelope: Envelope, frame: ChannelFrame) -> bool:
        """Publish a frame, and note the times of its quotes."""
        if isinstance(frame, TickerFrame):
            times = [to_ns(each.timestamp) for each in frame.data if each.timestamp is not None]
            self.newest_ns = max(self.newest_ns, *times)
        return super().publish(key, envelope, frame)


def settings_for(base: Settings, server: Exchange, connections: int) -> Settings:
    changes = {"ws_url": f"ws://127.0.0.1:{server.port}/v2", "rest_url": f"http://127.0.0.1:{server.port}",
               "history_url": "", "symbols": (SYMBOL,), "connections": connections}  # fmt: skip
    return base.model_copy(update={"exchange": base.exchange.model_copy(update=changes)})


async def until_subscribed(server: Exchange, connections: int) -> None:
    while sum(each.streams.keys() >= STREAMS for each in server.hub.connections) < connections:  # noqa: ASYNC110 - the simulator has no event for it
        await asyncio.sleep(0.05)


async def disturb(server: Exchange) -> None:
    """Stall, cut and deafen one connection after the other; the other one is sound meanwhile."""
    for disturbed, fault in ((0, "stall"), (1, "stall"), (0, "cut"), (1, "cut"), (0, "deaf")):
        await until_subscribed(server, 2)
        await asyncio.sleep(0.5)
        connection = sorted(server.hub.connections, key=lambda each: each.number)[disturbed]
        if fault == "stall":
            connection.stall(1.5)
            await asyncio.sleep(2.0)
        elif fault == "cut":
            connection.cut()
            await asyncio.sleep(0.2)
        else:
            connection.make_deaf()
            await asyncio.sleep(1.0)


def log_of(settings: Settings, begin_ns: int, end_ns: int) -> tuple[list[int], list[int]]:
    """Times of the quotes (ns) and ids of the trades in the log, in its order, by exchange time."""
    quotes: list[int] = []
    trades: list[int] = []
    for envelope, _, _ in read_all(settings.kafka):
        if SYMBOL.encode() not in envelope.raw:
            continue
        frame = decode(envelope.raw)
        if isinstance(frame, TickerFrame):
            quotes += [to_ns(each.timestamp) for each in frame.data if each.timestamp is not None]
        elif isinstance(frame, TradeFrame):
            trades += [each.trade_id for each in frame.data if begin_ns <= to_ns(each.timestamp) < end_ns]
    return [ts_ns for ts_ns in quotes if begin_ns <= ts_ns < end_ns], trades


def test_a_stall_a_cut_and_a_deaf_connection_cost_no_quote_and_no_trade(
    servers: Callable[..., Settings], tmp_path: Path
) -> None:
    base = servers("kafka")

    async def body() -> tuple[int, int, set[int], set[int]]:
        async with exchange(tmp_path, rate=20.0, symbols=(SYMBOL,)) as server:
            ingest = WatchedIngest(settings_for(base, server, 2))
            running = asyncio.create_task(ingest.run())
            await until_subscribed(server, 2)
            await asyncio.sleep(0.5)
            begin_ns = server.clock.now_ns()
            await disturb(server)
            end_ns = server.clock.now_ns()
            while ingest.newest_ns < end_ns + NS_PER_S:  # noqa: ASYNC110 - it has no event for it
                await asyncio.sleep(0.05)
            ingest.stop()
            await running
            market = server._markets[SYMBOL]
            minutes = range(begin_ns // NS_PER_MIN, end_ns // NS_PER_MIN + 1)
            quotes = [each.ts_ns for minute in minutes for each in market.quotes(minute)]
            trades = [each for minute in minutes for each in market.trades(minute)]
            return (
                begin_ns,
                end_ns,
                {ts_ns for ts_ns in quotes if begin_ns <= ts_ns < end_ns},
                {each.trade_id for each in trades if begin_ns <= each.ts_ns < end_ns},
            )

    async def limited() -> tuple[int, int, set[int], set[int]]:
        async with asyncio.timeout(PATIENCE_S):
            return await body()

    begin_ns, end_ns, quotes, trades = asyncio.run(limited())
    assert end_ns - begin_ns > 5 * NS_PER_S
    logged_quotes, logged_trades = log_of(base, begin_ns, end_ns)
    assert len(quotes) > 100
    assert set(logged_quotes) == quotes
    assert all(earlier <= later for earlier, later in itertools.pairwise(logged_quotes)), (
        "no old quote follows a newer one"
    )
    assert set(logged_trades) == trades
    for link in ("1", "2"):
        assert REGISTRY.get_sample_value(
            "btc_link_frames_total", {"exchange": "kraken", "link": link, "outcome": "first"}
        )
