"""The hub: who listens to what, and how an event of the market becomes frames in queues.

What does not belong here: where events come from (`feeds`), or what a frame says (`channels`, `wire`).
"""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

from stack.exchange import subscriptions, wire
from stack.exchange.connection import Connection
from stack.exchange.market import Quote
from stack.exchange.subscriptions import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from websockets.asyncio.server import ServerConnection

    from stack.exchange.channels import Stream, SymbolChannels
    from stack.exchange.feeds import MarketClock
    from stack.exchange.ledger import Ledger
    from stack.exchange.market import Trade
    from stack.exchange.pairs import Pair

FIRST_CONNECTION_ID = 15_564_437_896_659_189_083
"""Larger than int64, as the exchange's are: a client that keeps it in one must fail here and not in production."""
HEARTBEAT_S = 1.0
LOW_WATER_BYTES = 262_144
"""A replay as fast as clients read waits while a client has more than this queued."""


class Hub:
    """All clients and all symbols of one simulated exchange; used from the event loop only."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        channels: Sequence[SymbolChannels],
        clock: MarketClock,
        ledger: Ledger,
        *,
        queue_limit_bytes: int,
    ) -> None:
        self.pairs = tuple(pairs)
        self.channels = {item.pair.symbol: item for item in channels}
        self.clock = clock
        self.ledger = ledger
        self.system = "online"
        self.finished = False
        self.connections: set[Connection] = set()
        self.connections_seen = 0
        self.refused = 0
        self.subscribed = asyncio.Event()
        """Set at every new subscription; a feed that waits for listeners clears it."""
        self._listeners: dict[Stream, set[Connection]] = {}
        self._queue_limit_bytes = queue_limit_bytes
        self._numbers = itertools.count(1)

    def listened(self, channel: str, symbol: str) -> bool:
        """Whether anybody listens to this channel of this symbol."""
        return any(stream.channel == channel and stream.symbol == symbol for stream in self._listeners)

    def publish(self, symbol: str, event: Quote | Sequence[Trade]) -> None:
        """Tell the listeners what happened: a quote, or trades of one moment."""
        channels = self.channels[symbol]
        if isinstance(event, Quote):
            frames = channels.on_quote(event, self._listeners)
        else:
            frames = channels.on_trades(event, self._listeners)
        for stream, frame in frames:
            for connection in self._listeners.get(stream, ()):
                connection.enqueue(frame)

    def publish_raw(self, frame: wire.Frame) -> None:
        """Pass on a recorded frame to everybody who listens to its channel, whatever the variant."""
        if frame.trade_ids:
            self.channels[frame.symbol].count_trades(frame.trade_ids)
        for stream, connections in self._listeners.items():
            if stream.channel == frame.channel:
                for connection in connections:
                    connection.enqueue(frame)

    async def drained(self, below_bytes: int = LOW_WATER_BYTES) -> None:
        """Wait until no client has more than this queued."""
        while True:
            if all(connection.queued_bytes <= below_bytes for connection in self.connections):
                return
            await asyncio.sleep(0.001)

    async def serve(self, socket: ServerConnection) -> None:
        """Look after one client from its first frame to its last."""
        connection = Connection(
            next(self._numbers), socket, self.ledger, self.clock, queue_limit_bytes=self._queue_limit_bytes
        )
        self.connections.add(connection)
        self.connections_seen += 1
        connection.enqueue(wire.status(FIRST_CONNECTION_ID + connection.number, self.system))
        writer = asyncio.create_task(connection.write())
        try:
            async for message in socket:
                self._request(connection, message)
        finally:
            writer.cancel()
            self.connections.discard(connection)
            for stream in list(connection.streams.values()):
                self._forget(connection, stream)

    async def heartbeats(self) -> None:
        """Send a heartbeat to every subscribed client that was sent nothing for a second."""
        while True:
            await asyncio.sleep(HEARTBEAT_S / 4)
            self.ledger.flush()
            now_s = self.clock.monotonic_s()
            for connection in self.connections:
                if connection.streams and now_s - connection.last_queued_s >= HEARTBEAT_S:
                    connection.enqueue(wire.HEARTBEAT)

    def _request(self, connection: Connection, message: str | bytes) -> None:
        time_in_ns = self.clock.now_ns()
        if not connection.requests.allows(self.clock.monotonic_s()):
            connection.enqueue(wire.RATE_EXCEEDED)
            return
        try:
            request = subscriptions.parse(message)
        except Refusal as refusal:
            self._refuse(connection, "error", None, refusal, time_in_ns)
            return
        try:
            if request.method == "ping":
                self._answer(connection, {"method": "pong"}, request.req_id, time_in_ns)
                return
            for symbol in subscriptions.symbols(request):
                self._one(connection, request, symbol, time_in_ns)
        except Refusal as refusal:
            self._refuse(connection, request.method, request.req_id, refusal, time_in_ns)

    def _one(self, connection: Connection, request: subscriptions.Request, symbol: str, time_in_ns: int) -> None:
        """Carry out a request for one symbol; each has an answer of its own."""
        try:
            wish = subscriptions.wish(request, symbol, self.channels)
            present = connection.streams.get((wish.stream.channel, wish.stream.symbol))
            subscriptions.check(request, wish.stream, present)
        except Refusal as refusal:
            self._refuse(connection, request.method, request.req_id, refusal, time_in_ns)
            return
        if present is not None:
            self._forget(connection, present)
        body = {"method": request.method, "result": wish.result, "success": True}
        self._answer(connection, body, request.req_id, time_in_ns)
        if request.method == "subscribe":
            self._listen(connection, wish)

    def _listen(self, connection: Connection, wish: subscriptions.Wish) -> None:
        connection.streams[wish.stream.channel, wish.stream.symbol] = wish.stream
        self._listeners.setdefault(wish.stream, set()).add(connection)
        snapshot = self._snapshot(wish.stream)
        if wish.snapshot and snapshot is not None:
            connection.enqueue(snapshot)
        self.subscribed.set()

    def _snapshot(self, stream: Stream) -> wire.Frame | None:
        if stream.channel == "instrument":
            return wire.instrument(self.pairs)
        return self.channels[stream.symbol].snapshot(stream)

    def _forget(self, connection: Connection, stream: Stream) -> None:
        del connection.streams[stream.channel, stream.symbol]
        listeners = self._listeners[stream]
        listeners.discard(connection)
        if not listeners:
            del self._listeners[stream]
            if stream.symbol:
                self.channels[stream.symbol].closed(stream)

    def _answer(self, connection: Connection, body: dict[str, Any], req_id: int | None, time_in_ns: int) -> None:
        connection.enqueue(wire.answer(body, req_id, time_in_ns, self.clock.now_ns()))

    def _refuse(
        self, connection: Connection, method: str, req_id: int | None, refusal: Refusal, time_in_ns: int
    ) -> None:
        self.refused += 1
        body: dict[str, Any] = {"error": str(refusal), "method": method, "success": False}
        if refusal.symbol:
            body["symbol"] = refusal.symbol
        self._answer(connection, body, req_id, time_in_ns)

    def summary(self) -> dict[str, Any]:
        """What was sent (the ledger), what the market published, who is here, and whether a replay has ended."""
        published = {
            symbol: {"count": item.trades_published, "first_id": item.first_trade_id, "last_id": item.last_trade_id}
            for symbol, item in self.channels.items()
        }
        return self.ledger.summary() | {
            "published": published,
            "connections": {
                "open": len(self.connections),
                "seen": self.connections_seen,
                "queued_bytes": sum(connection.queued_bytes for connection in self.connections),
            },
            "refused": self.refused,
            "finished": self.finished,
        }
