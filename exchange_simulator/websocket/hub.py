"""The hub: which client is subscribed to what, and how a market event becomes frames in the clients' queues.

What does not belong here: where events come from (`feeds`), or what a frame says (`channels`, `wire`).
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, cast

from exchange_simulator.market.events import Quote
from exchange_simulator.websocket import subscriptions, wire
from exchange_simulator.websocket.connection import Connection
from exchange_simulator.websocket.subscriptions import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from websockets.asyncio.server import ServerConnection

    from exchange_simulator.market.clock import MarketClock
    from exchange_simulator.market.events import Trade
    from exchange_simulator.pairs import Pair
    from exchange_simulator.websocket.channels import SymbolChannels
    from exchange_simulator.websocket.connection import ClientSocket
    from exchange_simulator.websocket.ledger import Ledger
    from exchange_simulator.websocket.subscriptions import Request, Stream, StreamRequest

FIRST_CONNECTION_ID = 15_564_437_896_659_189_083
"""Larger than int64, like the exchange's: a client that keeps it in an int64 must fail here, not in production."""
HEARTBEAT_S = 1.0
MAX_CLIENT_EVENTS = 10_000
DRAINED_BYTES = 262_144
"""A replay at the clients' own speed waits while a client has more than this queued."""
DRAIN_POLL_S = 0.001


class FrameInterceptor(Protocol):
    """Replaces updates on their way to all subscribers by other frames, until it is done."""

    trade_ids: list[int]
    """The trades that it dropped, repeated, held back or changed."""

    @property
    def done(self) -> bool:
        """Whether it changes nothing more."""
        ...

    def __call__(self, frame: wire.Frame) -> list[wire.Frame]:
        """The frames to send in place of this one."""
        ...

    def flush(self) -> list[wire.Frame]:
        """Stop early and return the frames that it still holds back."""
        ...


class ClientEvent(NamedTuple):
    """Something that clients did, so that a test can tell how a client answered a fault."""

    kind: Literal["connected", "renewed", "refused", "rest_refused"]
    """A new connection, a subscription that the connection had before, a refused one, or a refused REST request."""
    ts_ns: int
    symbol: str
    """The pair of a subscription; empty for all else."""


class Hub:
    """All clients and all symbols of one simulated exchange. Only the event loop uses it."""

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
        self.channels = {each.pair.symbol: each for each in channels}
        self.clock = clock
        self.ledger = ledger
        self.system = "online"
        """The state of the exchange's engine that `status` frames report."""
        self.subscribe_error = ""
        """The `error` with which every new subscription is refused; empty when none is."""
        self.subscribe_limited = False
        """Whether every new subscription is answered with the bare rate-limit frame."""
        self.flapping = False
        """Whether every new connection is closed after its first snapshot."""
        self.deaf = False
        """Whether the subscriptions of every new connection are acknowledged but get no data."""
        self.blocked_status = 0
        """The HTTP status that answers every handshake; 0 when connections are accepted."""
        self.delisted: frozenset[str] = frozenset()
        """Pairs to which every new subscription is refused."""
        self.wrong_checksums: frozenset[str] = frozenset()
        """Pairs whose book frames all have a wrong checksum."""
        self.interceptors: list[FrameInterceptor] = []
        self.on_change: Callable[[], None] = lambda: None
        """Called when a fault may have ended: an interceptor is done, a trade is voided, a client subscribes or leaves."""
        self.finished = False
        """Whether a replay has ended."""
        self.connections: set[Connection] = set()
        self.connections_seen = 0
        self.refused = 0
        self.client_events: deque[ClientEvent] = deque(maxlen=MAX_CLIENT_EVENTS)
        self.subscribed = asyncio.Event()
        """Set at every new subscription; a feed that waits for subscribers clears it."""
        self._subscribers: dict[Stream, set[Connection]] = {}
        self._queue_limit_bytes = queue_limit_bytes
        self._numbers = itertools.count(1)

    def has_subscribers(self, channel: str, symbol: str) -> bool:
        """Whether any client is subscribed to this channel of this symbol."""
        return any(stream.channel == channel and stream.symbol == symbol for stream in self._subscribers)

    def publish(self, symbol: str, event: Quote | Sequence[Trade]) -> None:
        """Send subscribers what happened: a quote, or the trades of one time."""
        channels = self.channels[symbol]
        if isinstance(event, Quote):
            frames = channels.on_quote(channels.tape.quote(event), self._subscribers)
        else:
            was_pending = channels.tape.changes_pending
            published = channels.tape.publish(event)
            frames = channels.on_trades(published, self._subscribers) if published else []
            if was_pending:
                self.on_change()
        for stream, frame in frames:
            for sent in self._intercepted(self._with_checksum(frame)):
                for connection in self._subscribers.get(stream, ()):
                    connection.enqueue(sent)

    def publish_late(self, symbol: str, trades: Sequence[Trade]) -> None:
        """Send all subscribers trades of the past."""
        channels = self.channels[symbol]
        channels.count_published([trade.trade_id for trade in trades])
        self.broadcast([wire.trade(channels.pair, "update", trades)])

    def publish_recorded(self, frame: wire.Frame) -> None:
        """Send a recorded frame to all subscribers of its channel, whatever the variant."""
        if frame.trade_ids:
            self.channels[frame.symbol].count_published(frame.trade_ids)
        self.broadcast(self._intercepted(frame))

    def broadcast(self, frames: Iterable[wire.Frame]) -> None:
        """Send each frame to all subscribers of its channel and symbol, whatever the variant."""
        for frame in frames:
            for stream, connections in self._subscribers.items():
                if stream.channel == frame.channel and stream.symbol == frame.symbol:
                    for connection in connections:
                        connection.enqueue(frame)

    def _with_checksum(self, frame: wire.Frame) -> wire.Frame:
        """The frame, with a wrong checksum if it is a book of a pair in `wrong_checksums`."""
        if frame.channel == "book" and frame.symbol in self.wrong_checksums:
            return wire.with_wrong_checksum(frame)
        return frame

    def _intercepted(self, frame: wire.Frame) -> Sequence[wire.Frame]:
        """The frames that are sent in place of this update.

        The first interceptor that changes it is the only one, because two faults on one trade could send only its wrong
        version.
        """
        for interceptor in tuple(self.interceptors):
            frames = interceptor(frame)
            if interceptor.done:
                self.interceptors.remove(interceptor)
                self.on_change()
            if frames != [frame]:
                return frames
        return [frame]

    async def wait_until_drained(self, below_bytes: int = DRAINED_BYTES) -> None:
        """Wait until no client has more than this queued."""
        while any(  # noqa: ASYNC110 - only replays wait here, and an event would cost every frame
            connection.queued_bytes > below_bytes for connection in self.connections
        ):
            await asyncio.sleep(DRAIN_POLL_S)

    async def serve(self, socket: ServerConnection) -> None:
        """Serve one client until it leaves."""
        connection = Connection(
            next(self._numbers),
            cast("ClientSocket", socket),
            self.ledger,
            self.clock,
            queue_limit_bytes=self._queue_limit_bytes,
        )
        if self.deaf:
            connection.make_deaf()
        self.connections.add(connection)
        self.connections_seen += 1
        self.note("connected")
        self.send_status(connection)
        sender = asyncio.create_task(connection.send_queued())
        try:
            async for message in socket:
                self._handle(connection, message)
        finally:
            sender.cancel()
            self.connections.discard(connection)
            for stream in list(connection.streams.values()):
                self._unsubscribe(connection, stream)
            self.on_change()

    def note(self, kind: Literal["connected", "renewed", "refused", "rest_refused"], symbol: str = "") -> None:
        """Remember what a client just did."""
        self.client_events.append(ClientEvent(kind, self.clock.now_ns(), symbol))

    def send_status(self, connection: Connection) -> None:
        """Send the state of the exchange's engine."""
        connection.enqueue(wire.status(FIRST_CONNECTION_ID + connection.number, self.system))

    async def send_heartbeats(self) -> None:
        """Send a heartbeat to every subscribed client that was sent nothing for a second; runs until cancelled."""
        while True:
            await asyncio.sleep(HEARTBEAT_S / 4)
            self.ledger.flush()
            now_s = self.clock.monotonic_s()
            for connection in self.connections:
                if connection.streams and now_s - connection.last_queued_s >= HEARTBEAT_S:
                    connection.enqueue(wire.HEARTBEAT)

    def _handle(self, connection: Connection, message: str | bytes) -> None:
        """Answer one request of a client."""
        time_in_ns = self.clock.exchange_now_ns()
        if not connection.request_limit.allows(self.clock.monotonic_s()):
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
            if request.method == "subscribe" and self.subscribe_limited:
                self.refused += 1
                self.note("refused")
                connection.enqueue(wire.RATE_EXCEEDED)
                return
            for symbol in subscriptions.requested_symbols(request):
                self._handle_symbol(connection, request, symbol, time_in_ns)
        except Refusal as refusal:
            self._refuse(connection, request.method, request.req_id, refusal, time_in_ns)

    def _handle_symbol(self, connection: Connection, request: Request, symbol: str, time_in_ns: int) -> None:
        """Carry out a request for one symbol, with an answer of its own."""
        try:
            asked = subscriptions.stream_request(request, symbol, self.channels)
            current = connection.streams.get((asked.stream.channel, asked.stream.symbol))
            subscriptions.check_allowed(request, asked.stream, current, self._outage_error(symbol))
        except Refusal as refusal:
            self._refuse(connection, request.method, request.req_id, refusal, time_in_ns)
            return
        if current is not None:
            self._unsubscribe(connection, current)
        body = {"method": request.method, "result": asked.result, "success": True}
        self._answer(connection, body, request.req_id, time_in_ns)
        if request.method == "subscribe":
            self._subscribe(connection, asked)

    def _outage_error(self, symbol: str) -> str:
        """The error with which a new subscription to this symbol is refused; empty when it is accepted."""
        return subscriptions.NOT_SUPPORTED.format(symbol) if symbol in self.delisted else self.subscribe_error

    def _subscribe(self, connection: Connection, asked: StreamRequest) -> None:
        stream = asked.stream
        connection.streams[stream.channel, stream.symbol] = stream
        if (stream.channel, stream.symbol) in connection.subscribed_before:
            self.note("renewed", stream.symbol)
        connection.subscribed_before.add((stream.channel, stream.symbol))
        self._subscribers.setdefault(stream, set()).add(connection)
        if connection.deaf:
            connection.silenced.add((stream.channel, stream.symbol))
        else:
            connection.silenced.discard((stream.channel, stream.symbol))
        self.on_change()
        snapshot = self._snapshot(stream)
        if asked.snapshot and snapshot is not None:
            connection.close_when_sent = self.flapping and bool(stream.symbol)
            connection.enqueue(self._with_checksum(snapshot))
        self.subscribed.set()

    def _snapshot(self, stream: Stream) -> wire.Frame | None:
        if stream.channel == "instrument":
            return wire.instrument(self.pairs)
        return self.channels[stream.symbol].snapshot(stream)

    def _unsubscribe(self, connection: Connection, stream: Stream) -> None:
        del connection.streams[stream.channel, stream.symbol]
        subscribers = self._subscribers[stream]
        subscribers.discard(connection)
        if not subscribers:
            del self._subscribers[stream]
            if stream.symbol:
                self.channels[stream.symbol].end_stream(stream)

    def _answer(self, connection: Connection, body: dict[str, Any], req_id: int | None, time_in_ns: int) -> None:
        connection.enqueue(wire.answer(body, req_id, time_in_ns, self.clock.exchange_now_ns()))

    def _refuse(
        self, connection: Connection, method: str, req_id: int | None, refusal: Refusal, time_in_ns: int
    ) -> None:
        self.refused += 1
        self.note("refused", refusal.symbol or "")
        body: dict[str, Any] = {"error": str(refusal), "method": method, "success": False}
        if refusal.symbol:
            body["symbol"] = refusal.symbol
        self._answer(connection, body, req_id, time_in_ns)

    def summary(self) -> dict[str, Any]:
        """What was sent (the ledger), what the market published, the connections, and whether a replay has ended."""
        published = {symbol: channels.published.summary() for symbol, channels in self.channels.items()}
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
