"""The ingest worker: reads the exchange's socket and appends every frame to the log `market.events` as it was received.

Frames that cannot be read become dead letters. While Kafka is unavailable, frames wait in memory. When too many wait,
superseded quotes and book frames are left out and counted, trades never are. When the queue is full, the socket is not read.
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
from btc_core.stores.kafka import require_topics
from streaming.backoff import backoff_s
from streaming.conflation import ConflatingPublisher
from streaming.disk_saver import DiskSaver
from streaming.exchange_clock import ExchangeClock
from streaming.order_books import OrderBooks
from streaming.publisher import Publisher
from streaming.subscriptions import Subscriptions
from streaming.warm_up_bars import recent_bars

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

    from btc_core.clock import Clock
    from btc_core.market.frames import ChannelFrame
    from btc_core.settings import Settings

log = logging.getLogger(__name__)

BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.5, 30.0
"""Pause after a connection without data: random between the first value and a limit that doubles up to the second. The
exchange bans clients that reconnect in less than half a second."""
HISTORY_AFTER_S = 60.0
"""After a longer time without data the missed minutes are fetched as bars, so that the features have no hole."""
HISTORY_ATTEMPTS, HISTORY_PAUSE_S = 3, 1.5
"""Attempts to fetch the bars of a symbol, and the pause between them: REST accepts one request a second."""
HISTORY_DEADLINE_S = 30.0
"""Longest time for the bars of all symbols together; then the socket is opened without them."""
MAX_SOCKET_FRAME_BYTES = 16 * 1024 * 1024
"""A larger frame closes the connection; one between `BTC_STREAM_MAX_FRAME_BYTES` and this is a dead letter."""
SOCKET_QUEUE_FRAMES = 1_024
"""Frames that the socket reads ahead; with the library's 16 it stops and starts again in every burst."""
OPEN_TIMEOUT_S = 10.0
CHECK_S = 0.5
"""Time between two checks of the deadlines."""
PING_S = 5.0
FIRST_PING_ID = 1_000_000
"""Request ids of pings lie above those of subscriptions."""
SILENCE_WARNING_S = 3.0
MAX_FRAMES_AT_ONCE = 200
"""Frames read before other tasks run: a burst must not delay deadlines and signals by more than a few milliseconds."""
FULL_PAUSE_S = 0.05
"""Time between two looks at a full queue."""

_json = msgspec.json.Encoder()


class Ingest:
    """The connections of one process to the exchange, one after another."""

    def __init__(self, settings: Settings, clock: Clock = SYSTEM_CLOCK) -> None:
        self._settings = settings
        self._clock = clock
        self._publisher = Publisher(settings.kafka, "ingest")
        conflating = ConflatingPublisher(self._publisher, settings.stream.conflate_above_messages)
        self._frame_publisher = DiskSaver(conflating, settings.disk, clock)
        self._exchange_clock = ExchangeClock()
        self._exchange = exchange_of(settings.exchange)
        self._found_topics = False
        self._connection = 0
        self._sequence = 0
        self._subscriptions = Subscriptions(self._exchange, (), 0.0)
        self._requests: asyncio.Queue[dict[str, object]] = asyncio.Queue()
        self._books = OrderBooks()
        self._last_trade_id: dict[str, int] = {}
        self._pings: dict[int, int] = {}
        """When each unanswered ping was sent (ns), by request id."""
        self._ping_ids = itertools.count(FIRST_PING_ID)
        self._last_frame_s = 0.0
        self._last_data_s: float | None = None
        self._received_data = False
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Connect, read frames, and connect again after every failure, until stopped.

        Raises `SubscriptionRefused` when the exchange refuses a subscription: a setting must be fixed, waiting does not help.
        """
        failures = 0
        while not self._stop.is_set():
            self._received_data = False
            try:
                await self._find_topics()
                await self._fetch_missed_minutes()
                await self._follow()
            except SubscriptionRefused:
                raise
            except (OSError, TimeoutError, ConnectionClosed, InvalidHandshake, InvalidMessage, ServiceError) as error:
                if isinstance(error, ServiceError):  # Kafka may have lost a topic
                    self._found_topics = False
                metrics.CONNECTIONS.labels(type(error).__name__).inc()
                log.warning("connection %d ended: %s", self._connection, error or type(error).__name__)
            failures = 0 if self._received_data else failures + 1
            await self._pause(failures)
        self._publisher.flush()

    async def _find_topics(self) -> None:
        """Read the exchange only once Kafka has the topics; while Kafka does not answer, frames may wait in memory."""
        if not self._found_topics:
            await asyncio.to_thread(require_topics, self._settings.kafka)
            self._found_topics = True

    def stop(self) -> None:
        """End `run` after the current frame."""
        self._stop.set()

    async def _pause(self, failures: int) -> None:
        """Wait before the next connection; `failures` counts the connections in a row that delivered no data."""
        if failures == 0 or self._stop.is_set():
            return
        longest_s = backoff_s(failures, BACKOFF_FIRST_S, BACKOFF_MAX_S)
        pause_s = random.uniform(BACKOFF_FIRST_S, longest_s)  # noqa: S311 - jitter is no secret
        log.info("next connection in %.1f s", pause_s)
        try:
            async with asyncio.timeout(pause_s):
                while not self._stop.is_set():
                    self._report_loop()
                    await asyncio.sleep(CHECK_S)
        except TimeoutError:
            return

    async def _fetch_missed_minutes(self) -> None:
        """Publish the closed minute bars of a time without data, before the first quote after it.

        Without these bars the stream continues and long windows fill up slowly: quotes must not wait long for history.
        """
        now_s = self._clock.monotonic_s()
        if self._last_data_s is not None and now_s - self._last_data_s < HISTORY_AFTER_S:
            return
        try:
            async with asyncio.timeout(HISTORY_DEADLINE_S):
                await self._publish_history()
        except TimeoutError:
            log.warning("not all minute bars arrived within %.0f s: connecting without them", HISTORY_DEADLINE_S)

    async def _publish_history(self) -> None:
        for symbol in self._settings.exchange.symbols:
            self._report_loop()
            frames = await self._history(symbol)
            for raw in frames:
                place = self._clock.now_ns(), self._connection, 0
                envelope = Envelope(*place, "ohlc", "rest", raw, exchange=self._exchange.name)
                self._publisher.publish(EVENTS_TOPIC, symbol, encode_envelope(envelope), envelope.ts_recv_ns)
            log.info("%s: published %d frames of minute bars from the exchange's history", symbol, len(frames))

    async def _history(self, symbol: str) -> list[bytes]:
        """Bars as frames, after a few attempts if need be; none when every attempt fails."""
        for left in reversed(range(HISTORY_ATTEMPTS)):
            try:
                return await asyncio.to_thread(recent_bars, self._exchange, symbol)
            except (ExchangeError, InvalidInput) as error:
                log.warning("%s: the minute bars could not be fetched (%d attempts left): %s", symbol, left, error)
                await asyncio.sleep(HISTORY_PAUSE_S if left else 0.0)
        return []

    async def _follow(self) -> None:
        """Follow one connection until `stop` is called; whatever else ends it is raised."""
        url = self._settings.exchange.ws_url
        async with connect(
            url,
            max_size=MAX_SOCKET_FRAME_BYTES,
            max_queue=SOCKET_QUEUE_FRAMES,
            open_timeout=OPEN_TIMEOUT_S,
            compression=None,
        ) as socket:
            self._start_connection(url)
            work = (self._read(socket), self._maintain(socket), self._stop.wait())
            tasks = [asyncio.create_task(each) for each in work]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _start_connection(self, url: str) -> None:
        now_s = self._clock.monotonic_s()
        self._connection += 1
        self._sequence = 0
        self._books.clear()
        self._pings.clear()
        self._last_frame_s = now_s
        self._requests = asyncio.Queue()
        exchange, stream = self._settings.exchange, self._settings.stream
        self._subscriptions = Subscriptions(self._exchange, exchange.symbols, stream.subscription_deadline_s)
        self._enqueue(self._subscriptions.open(now_s))
        metrics.CONNECTIONS.labels("opened").inc()
        log.info("connection %d to %s", self._connection, url)

    def _enqueue(self, requests: list[dict[str, object]]) -> None:
        for request in requests:
            self._requests.put_nowait(request)

    async def _read(self, socket: ClientConnection) -> None:
        while True:
            while self._frame_publisher.full:
                self._frame_publisher.poll()
                self._last_frame_s = self._clock.monotonic_s()  # nothing is read, so this is no silence of the exchange
                await asyncio.sleep(FULL_PAUSE_S)
            for _ in range(MAX_FRAMES_AT_ONCE):
                self._receive(await socket.recv(decode=False))
            await asyncio.sleep(0)

    async def _maintain(self, socket: ClientConnection) -> None:
        """Send queued requests and pings, and check every deadline."""
        next_ping_s = 0.0
        while True:
            try:
                async with asyncio.timeout(CHECK_S):
                    while True:
                        await socket.send(_json.encode(await self._requests.get()), text=True)
            except TimeoutError:
                now_s = self._clock.monotonic_s()
            self._report_loop()
            self._frame_publisher.poll()
            self._check_silence(now_s)
            self._enqueue(self._subscriptions.resubscribe_overdue(now_s))
            if now_s >= next_ping_s:
                next_ping_s = now_s + PING_S
                await self._ping(socket)

    async def _ping(self, socket: ClientConnection) -> None:
        request_id = next(self._ping_ids)
        request = self._exchange.ping(request_id)
        if request is not None:
            self._pings[request_id] = self._clock.now_ns()
            await socket.send(_json.encode(request), text=True)

    def _report_loop(self) -> None:
        metrics.LOOP_AT.labels("ingest").set_to_current_time()

    def _check_silence(self, now_s: float) -> None:
        """Raise `TimeoutError` when no frame came within the deadline; a pong does not count, every other frame does."""
        silent_s = now_s - self._last_frame_s
        deadline_s = self._settings.stream.data_deadline_s
        if silent_s > deadline_s:
            raise TimeoutError(f"no frame arrived for {deadline_s:.1f} s")
        if silent_s > SILENCE_WARNING_S:
            log.warning("no frame has arrived for %.1f s", silent_s)

    def _receive(self, raw: bytes) -> None:
        now_ns = self._clock.now_ns()
        self._sequence += 1
        if len(raw) > self._settings.stream.max_frame_bytes:
            limit = self._settings.stream.max_frame_bytes
            self._publisher.dead_letter("oversized", f"the frame has {len(raw)} bytes, the limit is {limit}", raw)
            return
        try:
            frame = self._exchange.decode(raw)
        except BadFrame as error:
            log.warning("%s", error)
            self._publisher.dead_letter(error.reason, str(error), raw)
            return
        if isinstance(frame, Reply):
            self._handle_reply(frame, now_ns)
            return
        self._last_frame_s = self._clock.monotonic_s()
        if isinstance(frame, HeartbeatFrame):
            metrics.FRAMES.labels("heartbeat").inc()
        else:
            self._publish(frame, raw, now_ns)

    def _handle_reply(self, reply: Reply, now_ns: int) -> None:
        if reply.method != "pong":
            self._last_frame_s = now_s = self._clock.monotonic_s()
            if reply.refusal:
                log.warning("the exchange refused %s: %s", reply.method or "a request", reply.refusal)
            self._subscriptions.replied(reply, now_s)
            return
        sent_ns = self._pings.pop(reply.req_id or 0, None)
        if sent_ns is not None and reply.time_in is not None and reply.time_out is not None:
            self._exchange_clock.measure(sent_ns, to_ns(reply.time_in), to_ns(reply.time_out), now_ns)

    def _publish(self, frame: ChannelFrame, raw: bytes, now_ns: int) -> None:
        channel = str(frame.__struct_config__.tag)
        metrics.FRAMES.labels(channel).inc()
        book_ok = None
        symbol = ""
        if isinstance(frame, TickerFrame | TradeFrame | OhlcFrame | BookFrame):
            symbol = frame.data[0].symbol if frame.data else ""
            self._last_data_s = self._last_frame_s
            self._received_data = True
            self._record_data(frame, channel, symbol, now_ns)
        if isinstance(frame, BookFrame):
            book_ok, mismatched = self._books.apply(frame)
            for each in mismatched:
                self._enqueue(self._subscriptions.resubscribe("book", each, "checksum", self._last_frame_s))
        elif isinstance(frame, InstrumentFrame):
            self._books.set_precisions(frame)
            return
        elif isinstance(frame, StatusFrame):
            log.info("exchange status: %s", [status.system for status in frame.data])
        place = now_ns, self._connection, self._sequence
        key = symbol or self._settings.exchange.symbols[0]  # a message without a key would go to any partition
        self._frame_publisher.publish(key, Envelope(*place, channel, "ws", raw, book_ok, self._exchange.name), frame)

    def _record_data(
        self, frame: TickerFrame | TradeFrame | OhlcFrame | BookFrame, channel: str, symbol: str, now_ns: int
    ) -> None:
        """Note that a subscription delivers, and whether the data is new; measure the latency of updates."""
        is_new = frame.type == "update"
        if isinstance(frame, TradeFrame):
            for trade in frame.data:
                is_new = is_new or trade.trade_id > self._last_trade_id.get(symbol, 0)
                self._last_trade_id[symbol] = max(trade.trade_id, self._last_trade_id.get(symbol, 0))
        self._subscriptions.heard(channel, symbol, self._last_frame_s, is_new=is_new)
        moment = frame.data[-1].timestamp if frame.data else None
        if moment is not None and frame.type == "update":
            self._exchange_clock.observe(channel, to_ns(moment), now_ns)


async def _main(settings: Settings) -> None:
    ingest = Ingest(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ingest.stop)
    await ingest.run()


def run(settings: Settings) -> None:
    """Read the exchange until SIGTERM."""
    asyncio.run(_main(settings))
