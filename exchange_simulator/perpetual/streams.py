"""The streams of Binance's perpetuals: which client gets which of them, and when a message is sent.

As on Binance, best quotes and depth come on one path and everything else on another, a request for a stream that the path
does not have is confirmed like any other, and a subscription brings no snapshot.
What does not belong here: the text of a message (`messages`), or what happens on the market (`tape`).
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
from websockets.exceptions import ConnectionClosed

from exchange_simulator.market.events import Quote
from exchange_simulator.perpetual import messages

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Mapping

    from websockets.asyncio.server import ServerConnection

    from exchange_simulator.market.clock import MarketClock
    from exchange_simulator.perpetual.tape import PerpetualTape

PUBLIC_PATH, MARKET_PATH = "public/stream", "market/stream"
KINDS = {PUBLIC_PATH: ("bookTicker", "depth5@500ms"), MARKET_PATH: ("aggTrade", "markPrice@1s", "miniTicker")}
"""The streams of each path, by what follows the name of the market."""
BEAT_S = 0.5
MAX_QUEUED = 20_000
"""Messages that wait for a client; one that is further behind is disconnected."""
CLOSE_TOO_SLOW = 1008
EVENTS_AT_ONCE = 100
"""Events that are computed at once in a worker thread."""
SHORTEST_SLEEP_S = 0.0005


class Client:
    """One connection: its streams, and the messages that wait to be sent."""

    def __init__(self, kinds: tuple[str, ...], socket: ServerConnection) -> None:
        self.streams: set[str] = set()
        self.socket = socket
        self._kinds = kinds
        self.queue: asyncio.Queue[str] = asyncio.Queue(MAX_QUEUED)
        self.is_too_slow = False

    def request(self, text: str | bytes) -> str:
        """Carry out a request and return the answer."""
        try:
            request = msgspec.json.decode(text, type=dict[str, Any])
            method, streams = request.get("method"), set(request.get("params", ()))
        except (msgspec.DecodeError, TypeError) as error:
            return msgspec.json.encode({"error": {"code": 3, "msg": f"Invalid JSON: {error}"}}).decode()
        number = request.get("id")
        if method == "SUBSCRIBE":
            self.streams |= {stream for stream in streams if str(stream).partition("@")[2] in self._kinds}
        elif method == "UNSUBSCRIBE":
            self.streams -= streams
        else:
            return msgspec.json.encode({"error": {"code": 2, "msg": "Invalid request"}, "id": number}).decode()
        return msgspec.json.encode({"result": None, "id": number}).decode()

    def enqueue(self, text: str) -> None:
        """Queue a message unless the client is too slow."""
        if self.queue.full():
            self.is_too_slow = True
        else:
            self.queue.put_nowait(text)


class PerpetualStreams:
    """All clients and all perpetuals. Only the event loop uses it."""

    def __init__(self, tapes: Mapping[str, PerpetualTape], clock: MarketClock) -> None:
        self._tapes = tapes
        self._clock = clock
        self._clients: set[Client] = set()
        self._stalled_until_s = 0.0
        self._to_skip: Counter[str] = Counter()
        """How many of its next trades are not sent, by the name of the perpetual."""
        self.skipped_ids: dict[str, list[int]] = {tape.symbol: [] for tape in tapes.values()}
        """The ids of the trades that were not sent, by symbol."""
        self.quotes_sent: Counter[str] = Counter()
        """How many best quotes were sent to at least one client, by symbol."""

    @property
    def clients(self) -> int:
        """How many clients are connected."""
        return len(self._clients)

    @property
    def skips(self) -> bool:
        """Whether some of the next trades are not sent."""
        return self._to_skip.total() > 0

    def cut(self) -> None:
        """Abort every connection without a closing handshake."""
        for client in self._clients:
            client.socket.transport.abort()

    def stall(self, seconds: float) -> None:
        """Send nothing for this long, then everything that was queued meanwhile."""
        self._stalled_until_s = max(self._stalled_until_s, self._clock.monotonic_s() + seconds)

    def skip_trades(self, count: int) -> None:
        """Leave out the next trades of each perpetual."""
        self._to_skip.update(dict.fromkeys(self._tapes, count))

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """What has to run: the feed of each perpetual, and what is sent at regular times."""
        return [self._beat(), *(self._feed(tape) for tape in self._tapes.values())]

    async def serve(self, socket: ServerConnection, path: str) -> None:
        """Serve one client until it leaves."""
        client = Client(KINDS[path], socket)
        self._clients.add(client)
        sender = asyncio.create_task(self._send(client))
        try:
            async for message in socket:
                client.enqueue(client.request(message))
        finally:
            sender.cancel()
            self._clients.discard(client)

    async def _send(self, client: Client) -> None:
        try:
            while not client.is_too_slow:
                text = await client.queue.get()
                if (wait_s := self._stalled_until_s - self._clock.monotonic_s()) > 0:
                    await asyncio.sleep(wait_s)
                await client.socket.send(text)
            await client.socket.close(CLOSE_TOO_SLOW, "too slow")
        except ConnectionClosed:
            return

    def _wanted(self, stream: str) -> list[Client]:
        return [client for client in self._clients if stream in client.streams]

    def _publish(self, stream: str, texts: Iterable[str]) -> bool:
        """Queue messages for the subscribers of a stream; returns whether there are any."""
        clients = self._wanted(stream)
        if clients:
            for text in texts:
                for client in clients:
                    client.enqueue(text)
        return bool(clients)

    async def _feed(self, tape: PerpetualTape) -> None:
        """Publish what happens on a perpetual from now on, until cancelled."""
        events = tape.events(self._clock.now_ns())
        quotes, trades = (f"{tape.name.lower()}@{kind}" for kind in ("bookTicker", "aggTrade"))
        while True:
            for event in await asyncio.to_thread(list, itertools.islice(events, EVENTS_AT_ONCE)):
                wait_s = self._clock.wait_s(event.ts_ns)
                if wait_s > 0:
                    await asyncio.sleep(max(wait_s, SHORTEST_SLEEP_S))
                if isinstance(event, Quote):
                    self.quotes_sent[tape.symbol] += self._publish(quotes, (messages.book_ticker(tape, event),))
                elif self._to_skip[tape.name] > 0:
                    self._to_skip[tape.name] -= 1
                    self.skipped_ids[tape.symbol].append(event.trade_id)
                else:
                    self._publish(trades, (messages.aggregate_trade(tape, event),))
            await asyncio.sleep(0)

    async def _beat(self) -> None:
        """Send mark prices once a second, and depth and the figures of the day, which clients use as heartbeats."""
        is_second = False
        while True:
            await asyncio.sleep(BEAT_S)
            is_second = not is_second
            for stream in {stream for client in self._clients for stream in client.streams}:
                if stream.endswith("@depth5@500ms") or (is_second and stream.endswith("@miniTicker")):
                    self._publish(stream, (messages.heartbeat(stream),))
            if is_second:
                now_ns = self._clock.now_ns()
                for tape in self._tapes.values():
                    stream = f"{tape.name.lower()}@markPrice@1s"
                    if self._wanted(stream):
                        text = await asyncio.to_thread(messages.mark_price, tape, now_ns)
                        self._publish(stream, (text,))
