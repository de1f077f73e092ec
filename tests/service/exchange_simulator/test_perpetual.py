"""The simulated perpetual, seen through the adapter and the ingest of the product."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

from btc_core.clock import NS_PER_MIN, NS_PER_MS, NS_PER_S, now_ns
from btc_core.errors import NotOffered
from btc_core.exchange_settings import ExchangeSettings
from btc_core.exchanges.adapters import exchange_for
from btc_core.exchanges.binance import BinancePerpetual
from btc_core.market.frames import MarkPriceFrame, TickerFrame, TradeFrame
from btc_core.market.messages import GapNotice
from btc_core.names import qualified
from tests.service.exchange_client import exchange, get, run

if TYPE_CHECKING:
    from pathlib import Path

    from websockets.asyncio.client import ClientConnection

    from exchange_simulator.server import Exchange

pytestmark = pytest.mark.service

SYMBOL = qualified("BTC/USDT", "binance-perp")
LEAD_S = 1.5
STREAMS = {
    "public": ["btcusdt@bookTicker", "btcusdt@depth5@500ms", "btcusdt@aggTrade"],
    "market": ["btcusdt@aggTrade", "btcusdt@markPrice@1s", "btcusdt@miniTicker"],
}


def settings_of(server: Exchange) -> ExchangeSettings:
    address = f"127.0.0.1:{server.port}/binance-perp"
    return ExchangeSettings(
        markets="kraken:BTC/USD,binance-perp:BTC/USDT",
        ws_urls={"binance-perp": f"ws://{address}"},
        rest_urls={"binance-perp": f"http://{address}"},
    )


async def is_quiet(client: ClientConnection, seconds: float) -> bool:
    """Whether no message comes for this long; one that comes is dropped."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await client.recv()
        return False
    return True


async def listen(server: Exchange, path: str, streams: tuple[str, ...] = (), count: int = 50) -> list[dict[str, Any]]:
    """What a client gets on a path until it has messages of all these streams and so many in total."""
    found: list[dict[str, Any]] = []
    async with connect(f"ws://127.0.0.1:{server.port}/binance-perp/{path}/stream") as client:
        await client.send(json.dumps({"method": "SUBSCRIBE", "params": STREAMS[path], "id": 1}))
        assert json.loads(await client.recv()) == {"result": None, "id": 1}
        async with asyncio.timeout(60.0):
            while len(found) < count or not {each["stream"] for each in found}.issuperset(streams):
                found.append(json.loads(await client.recv()))
    return found


def test_the_perpetual_streams_on_its_paths_and_rest_has_its_trades_and_bars(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BinancePerpetual, "rest_pause_s", 0.0)

    async def body() -> None:
        async with exchange(tmp_path, perpetuals=("BTC/USDT",), rate=20.0) as server:
            public, market = await asyncio.gather(
                listen(server, "public", tuple(STREAMS["public"][:2])),
                listen(server, "market", tuple(STREAMS["market"])),
            )
            perpetual = exchange_for(settings_of(server), SYMBOL)
            assert {each["stream"] for each in public} == set(STREAMS["public"][:2]), "aggTrade is not on this path"
            assert {each["stream"] for each in market} == set(STREAMS["market"])
            frames = [perpetual.decode(json.dumps(each)) for each in (*public, *market)]
            quotes = [frame for frame in frames if isinstance(frame, TickerFrame)]
            trades = [frame.data[0] for frame in frames if isinstance(frame, TradeFrame)]
            marks = [frame for frame in frames if isinstance(frame, MarkPriceFrame)]
            assert quotes[0].data[0].symbol == trades[0].symbol == SYMBOL
            assert marks
            ids = [trade.trade_id for trade in trades]
            assert ids == list(range(ids[0], ids[0] + len(ids)))
            notice = GapNotice(SYMBOL, ids[0], ids[-1], "open", 0, 0, now_ns())
            search = perpetual.gap_search(notice)
            page = await asyncio.to_thread(perpetual.trade_page, SYMBOL, search.begins[0])
            fetched = {each.trade_id: perpetual.decode(each.frame).data[0] for each in page.trades}  # type: ignore[union-attr]
            assert [fetched[trade.trade_id] for trade in trades] == trades
            bars, _ = await asyncio.to_thread(perpetual.minute_bars, SYMBOL, 1)
            newest_ns = int(bars["ts_ns"][-1])
            assert len(bars) > 1_400
            assert now_ns() - newest_ns < 3 * NS_PER_MIN
            answer = await get(server, "/binance-perp/fapi/v1/aggTrades?symbol=NOUSDT&fromId=1")
            assert (answer.status_code, answer.json()["code"]) == (400, -1121)
            with pytest.raises(NotOffered):
                await asyncio.to_thread(perpetual.minute_bars, qualified("ETH/USDT", "binance-perp"), 1)

    run(body)


def test_the_perpetual_shows_a_moment_earlier_what_happens_on_the_pair(tmp_path: Path) -> None:
    async def body() -> None:
        async with exchange(tmp_path, perpetuals=("BTC/USDT",), perpetual_lead_s=LEAD_S, rate=20.0) as server:
            since_ns = now_ns() - 60 * NS_PER_S
            market = await listen(server, "market", ("btcusdt@aggTrade",))
            ahead = {each["data"]["a"]: each["data"] for each in market if each["data"]["e"] == "aggTrade"}
            pairs: list[tuple[dict[str, Any], int, float]] = []
            while len(pairs) < len(ahead):  # until the pair has traded as the perpetual has
                tape = (await get(server, f"/ledger/tape?symbol=BTC/USD&since_ns={since_ns}")).json()["trades"]
                pairs = [(ahead[trade_id], ts_ns, price) for trade_id, ts_ns, price, _, _ in tape if trade_id in ahead]
            assert len(pairs) == len(ahead) > 5
            for trade, ts_ns, price in pairs:
                assert float(trade["p"]) == price
                assert abs(ts_ns - trade["T"] * NS_PER_MS - LEAD_S * NS_PER_S) <= NS_PER_MS

    run(body)


def test_faults_of_the_perpetual_lose_trades_stall_refuse_and_cut(tmp_path: Path) -> None:
    async def body() -> None:
        async with exchange(tmp_path, perpetuals=("BTC/USDT",), rate=20.0) as server:
            uri = f"ws://127.0.0.1:{server.port}/binance-perp/market/stream"
            async with connect(uri) as client:
                await client.send(json.dumps({"method": "SUBSCRIBE", "params": ["btcusdt@aggTrade"], "id": 1}))
                await client.recv()
                first_id = json.loads(await client.recv())["data"]["a"]
                await get(server, "/faults/inject?kind=perpetual_skip_trades&count=3")
                found = [first_id]
                while found[-1] - found[0] < len(found):
                    found.append(json.loads(await client.recv())["data"]["a"])
                missing = sorted(set(range(found[0], found[-1])) - set(found))
                effects = (await get(server, "/faults/effects")).json()
                assert effects["trades"]["perpetual_skip_trades"] == {SYMBOL: missing}
                assert len(missing) == 3
                perpetual = exchange_for(settings_of(server), SYMBOL)
                notice = GapNotice(SYMBOL, missing[0], missing[-1], "open", 0, 0, now_ns())
                page = await asyncio.to_thread(perpetual.trade_page, SYMBOL, perpetual.gap_search(notice).begins[0])
                assert set(missing) <= {each.trade_id for each in page.trades}, "REST has them"

                await get(server, "/faults/inject?kind=perpetual_rest_throttle&seconds=5")
                refused = await get(server, "/binance-perp/fapi/v1/time")
                assert (refused.status_code, refused.json()["code"]) == (429, -1003)
                assert 1 <= int(refused.headers["Retry-After"]) <= 5
                assert (await get(server, "/0/public/Time")).json()["error"] == [], "the other markets notice nothing"

                stalled = (await get(server, "/faults/inject?kind=perpetual_stall&seconds=2")).json()
                assert stalled["clients"] == 1
                async with asyncio.timeout(30.0):
                    while not await is_quiet(client, 1.0):
                        pass  # what was on its way
                assert json.loads(await client.recv())["data"]["e"] == "aggTrade"
                await get(server, "/faults/inject?kind=perpetual_cut")
                async with asyncio.timeout(30.0):
                    with suppress(ConnectionClosedError):
                        while True:
                            await client.recv()
                assert client.close_code == 1006

    run(body)


def test_an_exchange_without_perpetuals_refuses_their_faults(tmp_path: Path) -> None:
    async def body() -> None:
        async with exchange(tmp_path) as server:
            answer = await get(server, "/faults/inject?kind=perpetual_cut")
            assert answer.status_code == 400
            assert "start the simulator with --perpetuals" in answer.json()["error"]

    run(body)
