"""The ingest worker: the exchange's socket in, the log `market.events` out, every frame as it was received.

Frames that cannot be read go to the dead letters. The socket is read only as fast as Kafka takes the frames.
What does not belong here: what a frame means beyond its channel, symbol and the book's checksum.
"""

from __future__ import annotations

import asyncio
import logging
import random
import signal
from typing import TYPE_CHECKING

import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from btc_core.book import ChecksumMismatch, OrderBook
from btc_core.clock import SYSTEM_CLOCK
from btc_core.errors import BadFrame, ExchangeError, ServiceError, SubscriptionRefused
from btc_core.frames import (
    BookFrame,
    HeartbeatFrame,
    InstrumentFrame,
    OhlcFrame,
    Reply,
    StatusFrame,
    TickerFrame,
    TradeFrame,
    decode,
)
from btc_core.log import EVENTS, Envelope, encode_envelope
from streaming.history import recent_bars
from streaming.publish import Publisher

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

    from btc_core.clock import Clock
    from btc_core.frames import AnyFrame
    from btc_core.settings import Settings

log = logging.getLogger(__name__)

BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.5, 30.0
"""After one immediate retry: full jitter up to a doubling bound. Below half a second the exchange bans."""
HISTORY_AFTER_S = 60.0
"""After a longer silence the missing minutes are fetched as bars, so that the features have no hole."""
HISTORY_TRIES, HISTORY_PAUSE_S = 3, 1.5
"""REST takes one request a second; quotes must not wait long for history."""
MAX_SOCKET_FRAME_BYTES = 16 * 1024 * 1024
"""The socket itself closes beyond this; between the setting's bound and this a frame is a dead letter."""
OPEN_TIMEOUT_S = 10.0
RATE_LIMITED = "Exceeded msg rate"

_json = msgspec.json.Encoder()


class Ingest:
    """One process's connections to the exchange, one after another."""

    def __init__(self, settings: Settings, clock: Clock = SYSTEM_CLOCK) -> None:
        self._settings = settings
        self._clock = clock
        self._publisher = Publisher(settings.kafka, "ingest")
        self._connection = 0
        self._sequence = 0
        self._books: dict[str, OrderBook] = {}
        self._precision: dict[str, tuple[int, int]] = {}
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
            except (OSError, TimeoutError, ConnectionClosed, InvalidHandshake, InvalidMessage, ServiceError) as error:
                if isinstance(error, SubscriptionRefused):
                    raise
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
        bound_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0**attempt)
        pause_s = random.uniform(BACKOFF_FIRST_S, bound_s)  # noqa: S311 - jitter is no secret
        log.info("next attempt in %.1f s", pause_s)
        try:
            await asyncio.wait_for(self._stop.wait(), pause_s)
        except TimeoutError:
            return

    async def _catch_up(self) -> None:
        """Publish the closed minute bars of the time we did not see, before the first quote after it."""
        now_s = self._clock.monotonic_s()
        if self._last_data_s is not None and now_s - self._last_data_s < HISTORY_AFTER_S:
            return
        for symbol in self._settings.exchange.symbols:
            frames = await self._history(symbol)
            for raw in frames:
                self._put(symbol, Envelope(self._clock.now_ns(), self._connection, 0, "ohlc", "rest", raw))
            log.info("%s: %d frames of minute bars from the exchange's history", symbol, len(frames))

    async def _history(self, symbol: str) -> list[bytes]:
        """Bars in a few tries; without them the stream goes on and long windows fill up as it goes."""
        for left in reversed(range(HISTORY_TRIES)):
            try:
                return await asyncio.to_thread(recent_bars, self._settings.exchange, symbol)
            except ExchangeError as error:
                log.warning("%s: no minute bars, %d tries left: %s", symbol, left, error)
                await asyncio.sleep(HISTORY_PAUSE_S if left else 0.0)
        return []

    async def _session(self) -> None:
        url = self._settings.exchange.ws_url
        async with connect(url, max_size=MAX_SOCKET_FRAME_BYTES, open_timeout=OPEN_TIMEOUT_S) as socket:
            self._connection += 1
            self._sequence = 0
            self._books.clear()
            log.info("connection %d to %s", self._connection, url)
            await self._subscribe(socket)
            while not self._stop.is_set():
                await self._receive(socket)

    async def _subscribe(self, socket: ClientConnection) -> None:
        symbols = list(self._settings.exchange.symbols)
        wishes: list[dict[str, object]] = [
            {"channel": "instrument", "snapshot": True},
            {"channel": "trade", "symbol": symbols, "snapshot": True},
            {"channel": "ticker", "symbol": symbols, "event_trigger": "bbo", "snapshot": True},
            {"channel": "book", "symbol": symbols, "depth": 10, "snapshot": True},
        ]
        for number, params in enumerate(wishes, start=1):
            await self._send(socket, "subscribe", params, number)

    @staticmethod
    async def _send(socket: ClientConnection, method: str, params: dict[str, object], number: int) -> None:
        await socket.send(_json.encode({"method": method, "params": params, "req_id": number}), text=True)

    async def _receive(self, socket: ClientConnection) -> None:
        stopping = asyncio.create_task(self._stop.wait())
        reading = asyncio.create_task(socket.recv(decode=False))
        try:
            done, _ = await asyncio.wait(
                {stopping, reading},
                timeout=self._settings.stream.data_deadline_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not done:
                raise TimeoutError(f"no frame for {self._settings.stream.data_deadline_s:.0f} s")
            if reading in done:
                await self._take(socket, reading.result())
        finally:
            stopping.cancel()
            reading.cancel()

    async def _take(self, socket: ClientConnection, raw: bytes) -> None:
        now_ns = self._clock.now_ns()
        self._sequence += 1
        for failure in self._publisher.failures():
            raise ServiceError(f"Kafka did not take a frame: {failure}")
        if len(raw) > self._settings.stream.max_frame_bytes:
            bound = self._settings.stream.max_frame_bytes
            self._publisher.dead_letter("oversized", f"frame of {len(raw)} bytes, at most {bound} are read", raw)
            return
        try:
            frame = decode(raw)
        except BadFrame as error:
            log.warning("%s", error)
            self._publisher.dead_letter(error.reason, str(error), raw)
            return
        if isinstance(frame, HeartbeatFrame):
            self._publisher.poll(0)
        elif isinstance(frame, Reply):
            _check_reply(frame)
        else:
            await self._publish(socket, frame, raw, now_ns)

    async def _publish(self, socket: ClientConnection, frame: AnyFrame, raw: bytes, now_ns: int) -> None:
        channel = str(frame.__struct_config__.tag)
        book_ok = None
        symbol = ""
        if isinstance(frame, TickerFrame | TradeFrame | OhlcFrame | BookFrame):
            symbol = frame.data[0].symbol if frame.data else ""
            self._last_data_s = self._clock.monotonic_s()
            self._data_on_this_connection = True
        if isinstance(frame, BookFrame):
            book_ok = await self._follow_book(socket, frame)
        elif isinstance(frame, InstrumentFrame):
            for pair in frame.data.pairs:
                self._precision[pair.symbol] = (pair.price_precision, pair.qty_precision)
            return
        elif isinstance(frame, StatusFrame):
            log.info("exchange status: %s", [status.system for status in frame.data])
        self._put(symbol, Envelope(now_ns, self._connection, self._sequence, channel, "ws", raw, book_ok))

    async def _follow_book(self, socket: ClientConnection, frame: BookFrame) -> bool:
        """Apply a book frame; on a mismatch subscribe that book anew, and only that."""
        good = True
        for data in frame.data:
            book = self._books.get(data.symbol)
            if book is None or frame.type == "snapshot":
                book = self._books[data.symbol] = OrderBook(data.symbol, 10, *self._precision.get(data.symbol, (1, 8)))
            try:
                book.apply(data, snapshot=frame.type == "snapshot")
            except (ChecksumMismatch, BadFrame) as error:
                good = False
                log.warning("%s; subscribing this book anew", error)
                params: dict[str, object] = {"channel": "book", "symbol": [data.symbol], "depth": 10}
                await self._send(socket, "unsubscribe", params, 100)
                await self._send(socket, "subscribe", params | {"snapshot": True}, 101)
        return good

    def _put(self, symbol: str, envelope: Envelope) -> None:
        self._publisher.publish(EVENTS, symbol, encode_envelope(envelope), envelope.ts_recv_ns)


def _check_reply(reply: Reply) -> None:
    """A refused subscription stops the worker with the exchange's words; a rate limit is waited out."""
    refusal = reply.refusal
    if not refusal:
        return
    if RATE_LIMITED in refusal:
        raise ServiceError(f"the exchange limits our messages: {refusal}")
    if reply.method == "unsubscribe":
        log.warning("unsubscribe refused: %s", refusal)
        return
    what = f"{reply.method or 'a request'} {reply.symbol}".strip()
    msg = f"the exchange refused {what}: {refusal}; check BTC_EXCHANGE_SYMBOLS and BTC_EXCHANGE_WS_URL"
    raise SubscriptionRefused(msg)


async def _main(settings: Settings) -> None:
    ingest = Ingest(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ingest.stop)
    await ingest.run()


def run(settings: Settings) -> None:
    """Read the exchange until SIGTERM."""
    asyncio.run(_main(settings))
