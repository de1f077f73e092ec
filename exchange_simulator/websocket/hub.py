"""The hub: who listens to what, and how an event of the market becomes frames in queues.

What does not belong here: where events come from (`feeds`), or what a frame says (`channels`, `wire`).
"""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any, cast

from exchange_simulator.faults.catalogue import RATE_LIMIT_ERROR
from exchange_simulator.market.generated import Quote
from exchange_simulator.websocket import subscriptions, wire
from exchange_simulator.websocket.connection import Connection
from exchange_simulator.websocket.subscriptions import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from websockets.asyncio.server import ServerConnection

    from exchange_simulator.faults.frame_faults import Alteration
    from exchange_simulator.market.clock import MarketClock
    from exchange_simulator.market.generated import Trade
    from exchange_simulator.pairs import Pair
    from exchange_simulator.websocket.channels import Stream, SymbolChannels
    from exchange_simulator.websocket.connection import Line
    from exchange_simulator.websocket.ledger import Ledger

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
        self.refusing = ""
        """Why subscriptions are refused; empty while they are not."""
        self.alterations: list[Alteration] = []
        """What faults do to updates before they are sent to anybody."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when a fault may have ended: an alteration is spent, a trade void, a stream back, a client gone."""
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
            frames = channels.on_quote(channels.tape.quote(event), self._listeners)
        else:
            told = channels.tape.publish(event)
            frames = channels.on_trades(told, self._listeners) if told else []
            if len(told) < len(event):
                self.on_change()
        for stream, frame in frames:
            for sent in self._altered(frame):
                for connection in self._listeners.get(stream, ()):
                    connection.enqueue(sent)

    def publish_raw(self, frame: wire.Frame) -> None:
        """Pass on a recorded frame to everybody who listens to its channel, whatever the variant."""
        if frame.trade_ids:
            self.channels[frame.symbol].count_trades(frame.trade_ids)
        self.send(self._altered(frame))

    def send(self, frames: Iterable[wire.Frame]) -> None:
        """Send these to everybody who listens to their channels, whatever the variant."""
        for frame in frames:
            for stream, connections in self._listeners.items():
                if stream.channel == frame.channel and stream.symbol == frame.symbol:
                    for connection in connections:
                        connection.enqueue(frame)

    def _altered(self, frame: wire.Frame) -> Sequence[wire.Frame]:
        """What is sent in place of this update."""
        frames = [frame]
        for alteration in tuple(self.alterations):
            frames = [changed for item in frames for changed in alteration(item)]
            if alteration.spent:
                self.alterations.remove(alteration)
                self.on_change()
        return frames

    async def drained(self, below_bytes: int = LOW_WATER_BYTES) -> None:
        """Wait until no client has more than this queued."""
        while True:
            if all(connection.queued_bytes <= below_bytes for connection in self.connections):
                return
            await asyncio.sleep(0.001)

    async def serve(self, socket: ServerConnection) -> None:
        """Look after one client from its first frame to its last."""
        connection = Connection(
            next(self._numbers),
            cast("Line", socket),
            self.ledger,
            self.clock,
            queue_limit_bytes=self._queue_limit_bytes,
        )
        self.connections.add(connection)
        self.connections_seen += 1
        self.announce_system(connection)
        writer = asyncio.create_task(connection.write())
        try:
            async for message in socket:
                self._request(connection, message)
        finally:
            writer.cancel()
            self.connections.discard(connection)
            for stream in list(connection.streams.values()):
                self._forget(connection, stream)
            self.on_change()

    def announce_system(self, connection: Connection) -> None:
        """Send the status frame."""
        connection.enqueue(wire.status(FIRST_CONNECTION_ID + connection.number, self.system))

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
        time_in_ns = self.clock.told_ns()
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
            if request.method == "subscribe" and self.refusing == RATE_LIMIT_ERROR:
                self.refused += 1
                connection.enqueue(wire.RATE_EXCEEDED)
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
            subscriptions.check(request, wish.stream, present, self.refusing)
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
        connection.silenced.discard((wish.stream.channel, wish.stream.symbol))
        self.on_change()
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
        connection.enqueue(wire.answer(body, req_id, time_in_ns, self.clock.told_ns()))

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
        published = {symbol: item.published.summary() for symbol, item in self.channels.items()}
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
