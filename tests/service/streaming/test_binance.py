"""Ingest and the workers on Binance, spot and perpetual, which a stand-in in this file plays."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from btc_core.clock import NS_PER_MS, now_ns
from btc_core.exchanges.binance import Binance, BinancePerpetual
from btc_core.names import DEADLETTERS_TOPIC
from btc_core.settings import ExchangeSettings
from btc_core.stores.kafka import read_all, read_topic
from btc_core.stores.questdb import QuestDB
from streaming import bronze, features, repair, repair_queue
from tests.http_server import answering
from tests.paths import DATA
from tests.service.stand_in_exchange import follow
from tests.service.workers import Running, count, replayed, same_bits, streamed
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from websockets.asyncio.server import ServerConnection

    from btc_core.settings import Settings

pytestmark = pytest.mark.service

HEARTBEAT_S = 0.2
TRADES, MISSING = range(1, 21), {5, 6}
STREAMS = {
    "binance": {"/stream": ("btcusdt@miniTicker", "{}@trade", "{}@bookTicker")},
    "binance-perp": {
        "/public/stream": ("btcusdt@depth5@500ms", "{}@bookTicker"),
        "/market/stream": ("btcusdt@miniTicker", "{}@aggTrade", "{}@markPrice@1s"),
    },
}
"""The streams that each path sends; Binance acknowledges others, too, and sends nothing of them."""


def routes_of(exchange: str, symbol: str) -> dict[str, set[str]]:
    """The streams of a market by path."""
    name = symbol.replace("/", "").lower()
    return {path: {stream.format(name) for stream in streams} for path, streams in STREAMS[exchange].items()}


class StandIn:
    """Binance's socket: acknowledges requests, then sends `messages` (pairs of stream and data) and heartbeats."""

    def __init__(self, routes: dict[str, set[str]], messages: list[tuple[str, Any]]) -> None:
        self.subscribed: defaultdict[str, set[str]] = defaultdict(set)
        """The streams that were subscribed to, by path."""
        self.connections = 0
        self._routes = routes
        self._messages = messages

    async def connection(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        path = socket.request.path
        offered = self._routes[path]
        asked: set[str] = set()
        self.connections += 1
        sending: asyncio.Task[None] | None = None
        async for text in socket:
            request = json.loads(text)
            assert request["method"] in {"SUBSCRIBE", "UNSUBSCRIBE"}
            if request["method"] == "SUBSCRIBE":
                asked.update(request["params"])
                self.subscribed[path].update(asked)
            await socket.send(json.dumps({"result": None, "id": request["id"]}))
            if sending is None and offered <= asked:
                sending = asyncio.create_task(self._send(socket, offered))
        if sending is not None:
            sending.cancel()

    async def _send(self, socket: ServerConnection, offered: set[str]) -> None:
        for stream, data in self._messages:
            if stream in offered:
                await socket.send(json.dumps({"stream": stream, "data": data}))
        event = "24hrMiniTicker" if "btcusdt@miniTicker" in offered else "depthUpdate"
        while True:
            await socket.send(json.dumps({"stream": "btcusdt@heartbeat", "data": {"e": event, "s": "BTCUSDT"}}))
            await asyncio.sleep(HEARTBEAT_S)


@contextmanager
def rest(symbol: str, rows: dict[int, dict[str, Any]]) -> Iterator[str]:
    """Binance's REST API, with one market, no klines and these trades by id."""
    base, _, quote = symbol.partition("/")
    listing = {"symbol": base + quote, "baseAsset": base, "quoteAsset": quote, "status": "TRADING"}

    def answer(path: str) -> tuple[int, bytes]:
        url = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        kind = url.path.rpartition("/")[2]
        if kind == "exchangeInfo":
            return 200, json.dumps({"symbols": [listing]}).encode()
        if query["symbol"] != listing["symbol"]:
            return 400, b'{"code":-1121,"msg":"Invalid symbol."}'
        first = int(query.get("fromId", 10**9))
        return 200, json.dumps([row for trade_id, row in sorted(rows.items()) if trade_id >= first]).encode()

    with answering(answer) as url:
        yield url


@pytest.fixture(scope="module")
def stream(own_servers: Callable[..., Settings]) -> Settings:
    return own_servers("questdb", "kafka", "valkey")


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    for adapter in (Binance, BinancePerpetual):
        monkeypatch.setattr(adapter, "rest_pause_s", 0.0)
    monkeypatch.setattr(repair_queue, "MIN_GAP_AGE_S", 0.1)


def messages_of(exchange: str, symbol: str, start_ms: int) -> list[tuple[str, dict[str, Any]]]:
    """A trade, a quote and, on the perpetual, a mark price for each step; the trades of `MISSING` ids are left out."""
    name = symbol.replace("/", "")
    is_spot = exchange == "binance"
    trade_event, id_field = ("trade", "t") if is_spot else ("aggTrade", "a")
    messages: list[tuple[str, dict[str, Any]]] = []
    for step in TRADES:
        time = {"E": start_ms + step + 1, "T": start_ms + step}
        trade = {"e": trade_event, "s": name, id_field: step, "p": f"{3_000 + step}.50", "q": "0.25000000",
                 "m": step % 2 == 0} | time  # fmt: skip
        quote = {"u": step, "s": name, "b": f"{3_000 + step}.50", "B": "0.50000000", "a": f"{3_001 + step}.00",
                 "A": "1.50000000"} | ({} if is_spot else {"e": "bookTicker"} | time)  # fmt: skip
        mark = {"e": "markPriceUpdate", "s": name, "p": "3000.1", "i": "3000.2", "P": "3000.3", "r": "0.0001"} | time
        if step not in MISSING:
            messages.append((f"{name.lower()}@{trade_event}", trade))
        messages += [(f"{name.lower()}@bookTicker", quote), (f"{name.lower()}@markPrice@1s", mark)]
    return messages


def rows_of(exchange: str, start_ms: int) -> dict[int, dict[str, Any]]:
    """The trades as REST has them, by id."""
    spot = {
        i: {"id": i, "price": f"{3_000 + i}.50", "qty": "0.25000000", "time": start_ms + i, "isBuyerMaker": i % 2 == 0}
        for i in TRADES
    }
    if exchange == "binance":
        return spot
    return {
        i: {"a": i, "p": row["price"], "q": row["qty"], "T": row["time"], "m": row["isBuyerMaker"], "f": i, "l": i}
        for i, row in spot.items()
    }


@pytest.mark.parametrize(
    ("exchange", "symbol", "connections"),
    [("binance", "ETH/USDT", 1), ("binance-perp", "BNB/USDT", 1), ("binance-perp", "XRP/USDT", 2)],
)
def test_trades_and_quotes_arrive_complete_and_missing_trades_are_fetched_by_their_ids(
    stream: Settings, exchange: str, symbol: str, connections: int
) -> None:
    start_ms = now_ns() // NS_PER_MS - 1_000
    stand_in = StandIn(routes_of(exchange, symbol), messages_of(exchange, symbol, start_ms))
    in_market = f"WHERE symbol = '{symbol}'"

    def done(settings: Settings) -> None:
        workers = Running(bronze.build(settings)), Running(repair.build(settings)), Running(features.build(settings))
        with QuestDB(settings.questdb) as db, workers[0], workers[1], workers[2]:
            wait_for(lambda: count(db, "bronze_trades", symbol) == len(TRADES), "every trade")
            marks = f"SELECT first_id, last_id, state FROM gap_marks {in_market}"
            wait_for(lambda: db.execute(marks) == [[5, 6, "repaired"]], "the gap")
            rows_expected = 2 * len(TRADES) - len(MISSING)
            wait_for(lambda: count(db, "silver_features", symbol) == rows_expected, "rows")
            trades = f"SELECT trade_id, price, qty, side, origin FROM bronze_trades {in_market} ORDER BY trade_id"
            assert db.execute(trades) == [
                [i, 3_000.5 + i, 0.25, "buy" if i % 2 else "sell", "rest" if i in MISSING else "ws"] for i in TRADES
            ]
            quotes = f"SELECT bid, bid_qty, ask, ask_qty, last, volume FROM bronze_ticks {in_market} ORDER BY ts_event"
            assert db.execute(quotes) == [[3_000.5 + i, 0.5, 3_001.0 + i, 1.5, None, None] for i in TRADES]
            assert same_bits(streamed(db, symbol), replayed(settings, symbol))

    with rest(symbol, rows_of(exchange, start_ms)) as url:
        settings = ExchangeSettings(name=exchange, symbols=(symbol,), rest_url=url, connections=connections)
        follow(stream, settings, stand_in.connection, done)
    assert stand_in.subscribed == routes_of(exchange, symbol)
    assert stand_in.connections == connections * len(STREAMS[exchange])
    name = symbol.replace("/", "").encode()
    marks = [
        raw for raw in (each.raw for each, _, _ in read_all(stream.kafka)) if b"markPriceUpdate" in raw and name in raw
    ]
    assert len(marks) == (0 if exchange == "binance" else len(TRADES)), "the log keeps mark prices"
    assert [value for value, _, _ in read_topic(stream.kafka, DEADLETTERS_TOPIC)] == []


def test_a_recording_gives_the_same_rows_streamed_and_replayed(stream: Settings) -> None:
    file = DATA / "binance_spot_raw_btcusdt_20240809.jsonl.gz"
    if not file.is_file():
        pytest.skip(f"the recording {file.name} is not on this machine")
    with gzip.open(file) as lines:
        recorded = [json.loads(line.split(b" ", 1)[1]) for line in lines][:6_000]
    messages = [(each["stream"], each["data"]) for each in recorded]
    used = [each for each in messages if not each[0].endswith("@depth@100ms")]
    routes = {"/stream": {"btcusdt@miniTicker", "btcusdt@trade", "btcusdt@bookTicker"}}
    first_id = next(data["t"] for name, data in used if name == "btcusdt@trade")

    def done(settings: Settings) -> None:
        with QuestDB(settings.questdb) as db, Running(features.build(settings)), Running(bronze.build(settings)):
            wait_for(lambda: count(db, "silver_features", "BTC/USDT") == len(used), "a row for each quote and trade")
            trades = sum(name == "btcusdt@trade" for name, _ in used)
            wait_for(lambda: count(db, "bronze_trades", "BTC/USDT") == trades, "every trade")
            ids = db.execute("SELECT min(trade_id) FROM bronze_trades WHERE symbol = 'BTC/USDT'")
            assert ids == [[first_id]]
            rows = streamed(db, "BTC/USDT")
            assert same_bits(rows, replayed(settings, "BTC/USDT"))
            assert np.isfinite(rows).any(axis=1).all()

    with rest("BTC/USDT", {}) as url:
        follow(stream, ExchangeSettings(name="binance", rest_url=url), StandIn(routes, used).connection, done)
