"""The ingest worker: the exchange's socket in, the log `market.events` out, every frame as it was received.

Frames that cannot be read go to the dead letters. While Kafka is away frames wait in memory; when too many wait, quotes
that a newer one has replaced are left out and counted, trades never; when there is no room, the socket waits.
What does not belong here: what a frame means beyond its channel, symbol and the book's checksum.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import signal
from typing import TYPE_CHECKING

import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from btc_core import metrics
from btc_core.clock import SYSTEM_CLOCK, to_ns
from btc_core.errors import BadFrame, ExchangeError, InvalidInput, ServiceError, SubscriptionRefused
from btc_core.exchanges.adapters import exchange_of
from btc_core.market.book import ChecksumMismatch, OrderBook
from btc_core.market.frames import (
    BookFrame,
    HeartbeatFrame,
    InstrumentFrame,
    OhlcFrame,
    Reply,
    StatusFrame,
    TickerFrame,
    TradeFrame,
)
from btc_core.market.messages import Envelope, encode_envelope
from btc_core.names import EVENTS_TOPIC
from streaming.backoff import bound_s
from streaming.exchange_clock import ExchangeClock
from streaming.outbox import Outbox
from streaming.publish import Publisher
from streaming.subscriptions import Subscriptions
from streaming.warm_up_bars import recent_bars

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

    from btc_core.clock import Clock
    from btc_core.market.frames import ChannelFrame
    from btc_core.settings import Settings

log = logging.getLogger(__name__)

BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.5, 30.0
"""After one immediate retry: full jitter up to a doubling bound. Below half a second the exchange bans."""
HISTORY_AFTER_S = 60.0
"""After a longer silence the missing minutes are fetched as bars, so that the features have no hole."""
HISTORY_TRIES, HISTORY_PAUSE_S = 3, 1.5
"""REST takes one request a second."""
HISTORY_DEADLINE_S = 30.0
"""Of all markets together; the socket is opened then, whatever REST does."""
MAX_SOCKET_FRAME_BYTES = 16 * 1024 * 1024
"""The socket itself closes beyond this; between the setting's bound and this a frame is a dead letter."""
SOCKET_QUEUE_FRAMES = 1_024
"""Frames that the socket reads ahead; the library's 16 make it stop and start at every burst."""
OPEN_TIMEOUT_S = 10.0
TEND_S = 0.5
"""How often deadlines are looked at."""
PING_S = 5.0
FIRST_PING = 1_000_000
"""Request ids of pings lie above those of subscriptions."""
WARN_S = 3.0
FRAMES_AT_ONCE = 200
"""A burst must not keep deadlines and signals waiting for longer than some milliseconds."""

_json = msgspec.json.Encoder()


class Ingest:
    """One process's connections to the exchange, one after another."""

    def __init__(self, settings: Settings, clock: Clock = SYSTEM_CLOCK) -> None:
        self._settings = settings
        self._clock = clock
        self._publisher = Publisher(settings.kafka, "ingest")
        self._outbox = Outbox(self._publisher, settings.stream.conflate_above_messages)
        self._exchange_clock = ExchangeClock()
        self._exchange = exchange_of(settings.exchange)
        self._connection = 0
        self._sequence = 0
        self._subscriptions = Subscriptions(self._exchange, (), 0.0)
        self._requests: asyncio.Queue[dict[str, object]] = asyncio.Queue()
        self._books: dict[str, OrderBook] = {}
        self._broken: set[str] = set()
        self._precision: dict[str, tuple[int, int]] = {}
        self._last_trade_id: dict[str, int] = {}
        self._pings: dict[int, int] = {}
        self._ping_numbers = itertools.count(FIRST_PING)
        self._last_frame_s = 0.0
        self._last_data_s: float | None = None
        self._data_on_this_connection = False
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Connect, read, connect again, until stopped.

        Raises `SubscriptionRefused` when the exchange refuses a subscription: that is a setting to mend, not an outage.
        """
        attempt = 0
        while not self._stop.is_set():
            self._data_on_this_connection = False
            try:
                await self._catch_up()
                await self._session()
            except SubscriptionRefused:
                raise
            except (OSError, TimeoutError, ConnectionClosed, InvalidHandshake, InvalidMessage, ServiceError) as error:
                metrics.CONNECTIONS.labels(type(error).__name__).inc()
                log.warning("connection %d ended: %s", self._connection, error or type(error).__name__)
            attempt = 0 if self._data_on_this_connection else attempt + 1
            await self._pause(attempt)
        self._publisher.flush()

    def stop(self) -> None:
        """Leave after the frame in hand."""
        self._stop.set()

    async def _pause(self, attempt: int) -> None:
        """Once at once, then full jitter under a doubling bound, for ever."""
        if attempt == 0 or self._stop.is_set():
            return
        bound = bound_s(attempt, BACKOFF_FIRST_S, BACKOFF_MAX_S)
        pause_s = random.uniform(BACKOFF_FIRST_S, bound)  # noqa: S311 - jitter is no secret
        log.info("next attempt in %.1f s", pause_s)
        try:
            async with asyncio.timeout(pause_s):
                while not self._stop.is_set():
                    self._tell_alive()
                    await asyncio.sleep(TEND_S)
        except TimeoutError:
            return

    async def _catch_up(self) -> None:
        """Publish the closed minute bars of the time we did not see, before the first quote after it.

        Without them the stream goes on and long windows fill up as it goes: quotes must not wait long for history.
        """
        now_s = self._clock.monotonic_s()
        if self._last_data_s is not None and now_s - self._last_data_s < HISTORY_AFTER_S:
            return
        try:
            async with asyncio.timeout(HISTORY_DEADLINE_S):
                await self._publish_history()
        except TimeoutError:
            log.warning("no minute bars of all markets within %.0f s: going on without", HISTORY_DEADLINE_S)

    async def _publish_history(self) -> None:
        for symbol in self._settings.exchange.symbols:
            self._tell_alive()
            frames = await self._history(symbol)
            for raw in frames:
                place = self._clock.now_ns(), self._connection, 0
                envelope = Envelope(*place, "ohlc", "rest", raw, exchange=self._exchange.name)
                self._publisher.publish(EVENTS_TOPIC, symbol, encode_envelope(envelope), envelope.ts_recv_ns)
            log.info("%s: %d frames of minute bars from the exchange's history", symbol, len(frames))

    async def _history(self, symbol: str) -> list[bytes]:
        """Bars in a few tries; none when the exchange's answers are of no use."""
        for left in reversed(range(HISTORY_TRIES)):
            try:
                return await asyncio.to_thread(recent_bars, self._exchange, symbol)
            except (ExchangeError, InvalidInput) as error:
                log.warning("%s: no minute bars, %d tries left: %s", symbol, left, error)
                await asyncio.sleep(HISTORY_PAUSE_S if left else 0.0)
        return []

    async def _session(self) -> None:
        """One connection: what ends it is raised, or `stop` was called."""
        url = self._settings.exchange.ws_url
        async with connect(
            url,
            max_size=MAX_SOCKET_FRAME_BYTES,
            max_queue=SOCKET_QUEUE_FRAMES,
            open_timeout=OPEN_TIMEOUT_S,
            compression=None,
        ) as socket:
            self._begin(url)
            tasks = [asyncio.create_task(work) for work in (self._read(socket), self._tend(socket), self._stop.wait())]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, url: str) -> None:
        now_s = self._clock.monotonic_s()
        self._connection += 1
        self._sequence = 0
        self._books.clear()
        self._broken.clear()
        self._pings.clear()
        self._last_frame_s = now_s
        self._requests = asyncio.Queue()
        exchange, stream = self._settings.exchange, self._settings.stream
        self._subscriptions = Subscriptions(self._exchange, exchange.symbols, stream.subscription_deadline_s)
        self._ask(self._subscriptions.open(now_s))
        metrics.CONNECTIONS.labels("opened").inc()
        log.info("connection %d to %s", self._connection, url)

    def _ask(self, requests: list[dict[str, object]]) -> None:
        for request in requests:
            self._requests.put_nowait(request)

    async def _read(self, socket: ClientConnection) -> None:
        while True:
            while self._outbox.full:
                self._outbox.settle()
                self._last_frame_s = self._clock.monotonic_s()  # the exchange is not silent: we do not listen
                await asyncio.sleep(0.05)
            for _ in range(FRAMES_AT_ONCE):
                self._take(await socket.recv(decode=False))
            await asyncio.sleep(0)

    async def _tend(self, socket: ClientConnection) -> None:
        """Send requests, ping, and look at every deadline."""
        next_ping_s = 0.0
        while True:
            try:
                async with asyncio.timeout(TEND_S):
                    while True:
                        await socket.send(_json.encode(await self._requests.get()), text=True)
            except TimeoutError:
                now_s = self._clock.monotonic_s()
            self._tell_alive()
            self._outbox.settle()
            self._check_silence(now_s)
            self._ask(self._subscriptions.due(now_s))
            if now_s >= next_ping_s:
                next_ping_s = now_s + PING_S
                await self._ping(socket)

    async def _ping(self, socket: ClientConnection) -> None:
        number = next(self._ping_numbers)
        request = self._exchange.ping(number)
        if request is not None:
            self._pings[number] = self._clock.now_ns()
            await socket.send(_json.encode(request), text=True)

    def _tell_alive(self) -> None:
        metrics.LOOP_AT.labels("ingest").set_to_current_time()

    def _check_silence(self, now_s: float) -> None:
        """A pong is no sign of life of the market; everything else is."""
        silent_s = now_s - self._last_frame_s
        deadline_s = self._settings.stream.data_deadline_s
        if silent_s > deadline_s:
            raise TimeoutError(f"no frame for {deadline_s:.1f} s")
        if silent_s > WARN_S:
            log.warning("no frame for %.1f s", silent_s)

    def _take(self, raw: bytes) -> None:
        now_ns = self._clock.now_ns()
        self._sequence += 1
        if len(raw) > self._settings.stream.max_frame_bytes:
            bound = self._settings.stream.max_frame_bytes
            self._publisher.dead_letter("oversized", f"frame of {len(raw)} bytes, at most {bound} are read", raw)
            return
        try:
            frame = self._exchange.decode(raw)
        except BadFrame as error:
            log.warning("%s", error)
            self._publisher.dead_letter(error.reason, str(error), raw)
            return
        if isinstance(frame, Reply):
            self._replied(frame, now_ns)
            return
        self._last_frame_s = self._clock.monotonic_s()
        if isinstance(frame, HeartbeatFrame):
            metrics.FRAMES.labels("heartbeat").inc()
        else:
            self._publish(frame, raw, now_ns)

    def _replied(self, reply: Reply, now_ns: int) -> None:
        if reply.method != "pong":
            self._last_frame_s = now_s = self._clock.monotonic_s()
            if reply.refusal:
                log.warning("%s refused: %s", reply.method or "a request", reply.refusal)
            self._subscriptions.replied(reply, now_s)
            return
        sent_ns = self._pings.pop(reply.req_id or 0, None)
        if sent_ns is not None and reply.time_in is not None and reply.time_out is not None:
            self._exchange_clock.ponged(sent_ns, to_ns(reply.time_in), to_ns(reply.time_out), now_ns)

    def _publish(self, frame: ChannelFrame, raw: bytes, now_ns: int) -> None:
        channel = str(frame.__struct_config__.tag)
        metrics.FRAMES.labels(channel).inc()
        book_ok = None
        symbol = ""
        if isinstance(frame, TickerFrame | TradeFrame | OhlcFrame | BookFrame):
            symbol = frame.data[0].symbol if frame.data else ""
            self._last_data_s = self._last_frame_s
            self._data_on_this_connection = True
            self._heard(frame, channel, symbol, now_ns)
        if isinstance(frame, BookFrame):
            book_ok = self._follow_book(frame)
        elif isinstance(frame, InstrumentFrame):
            for pair in frame.data.pairs:
                self._precision[pair.symbol] = (pair.price_precision, pair.qty_precision)
            return
        elif isinstance(frame, StatusFrame):
            log.info("exchange status: %s", [status.system for status in frame.data])
        place = now_ns, self._connection, self._sequence
        key = symbol or self._settings.exchange.symbols[0]  # without one Kafka takes any partition, also an empty one
        self._outbox.put(key, Envelope(*place, channel, "ws", raw, book_ok, self._exchange.name), frame)

    def _heard(
        self, frame: TickerFrame | TradeFrame | OhlcFrame | BookFrame, channel: str, symbol: str, now_ns: int
    ) -> None:
        news = frame.type == "update"
        if isinstance(frame, TradeFrame):
            for trade in frame.data:
                news = news or trade.trade_id > self._last_trade_id.get(symbol, 0)
                self._last_trade_id[symbol] = max(trade.trade_id, self._last_trade_id.get(symbol, 0))
        self._subscriptions.heard(channel, symbol, self._last_frame_s, news=news)
        moment = frame.data[-1].timestamp if frame.data else None
        if moment is not None and frame.type == "update":
            self._exchange_clock.observe(channel, to_ns(moment), now_ns)

    def _follow_book(self, frame: BookFrame) -> bool:
        """Apply a book frame; on a mismatch subscribe that book anew, only that, and trust it again from its snapshot."""
        good = True
        for data in frame.data:
            book = self._books.get(data.symbol)
            if frame.type == "snapshot":
                precision = self._precision.get(data.symbol, (1, 8))
                book = self._books[data.symbol] = OrderBook(data.symbol, 10, *precision)
                self._broken.discard(data.symbol)
            if book is None or data.symbol in self._broken:
                good = False
                continue
            try:
                book.apply(data, snapshot=frame.type == "snapshot")
            except (ChecksumMismatch, BadFrame) as error:
                good = False
                log.warning("%s; subscribing this book anew", error)
                metrics.BOOK_MISMATCHES.labels(data.symbol).inc()
                self._broken.add(data.symbol)
                self._ask(self._subscriptions.again("book", data.symbol, "checksum", self._last_frame_s))
        return good


async def _main(settings: Settings) -> None:
    ingest = Ingest(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ingest.stop)
    await ingest.run()


def run(settings: Settings) -> None:
    """Read the exchange until SIGTERM."""
    asyncio.run(_main(settings))
