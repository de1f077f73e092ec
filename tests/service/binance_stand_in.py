"""Binance's socket and REST API, spot and perpetual, played for tests of ingest and the workers."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from tests.http_server import answering

if TYPE_CHECKING:
    from collections.abc import Iterator

    from websockets.asyncio.server import ServerConnection

HEARTBEAT_S = 0.2
TRADES, MISSING = range(1, 21), {5, 6}
STREAMS: dict[str, dict[str, tuple[str, ...]]] = {
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
