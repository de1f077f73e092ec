"""A link to the exchange: one connection after another, with its subscriptions, its order books, and its deadlines.

Nothing that the exchange sends ends the process: a frame that cannot be used becomes a dead letter, and a connection
that fails is followed by the next one. Only an error of this code, or an exchange that offers nothing of what the
settings ask for, gets out.
What does not belong here: what becomes of a good frame (`ingest`), or when to connect again (`reconnecting`).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from btc_core import metrics
from btc_core.clock import NS_PER_S, to_ns
from btc_core.errors import BadFrame, ExchangeError, ServiceError, SubscriptionRefused
from btc_core.exchanges.decoding import bad_entries
from btc_core.market.events import EVENT_CHANNELS
from btc_core.market.frames import (
    BookFrame,
    InstrumentFrame,
    MarkPriceFrame,
    OhlcFrame,
    Reply,
    StatusFrame,
    TickerFrame,
    TradeFrame,
    with_symbol,
)
from btc_core.market.messages import Envelope
from btc_core.names import exchange_in, pair_of
from streaming.exchange_clock import ExchangeClock
from streaming.order_books import OrderBooks
from streaming.subscriptions import Link, Subscriptions, SubscriptionStates
from streaming.token_bucket import TokenBucket

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

    from btc_core.clock import Clock
    from btc_core.exchanges.interface import Exchange, Request
    from btc_core.market.frames import ChannelFrame, Trade
    from btc_core.settings import Settings
    from streaming.reconnecting import Reconnecting

log = logging.getLogger(__name__)

MAX_SOCKET_FRAME_BYTES = 16 * 1024 * 1024
"""A larger frame closes the connection; one between `BTC_STREAM_MAX_FRAME_BYTES` and this is a dead letter."""
SOCKET_QUEUE_FRAMES = 1_024
"""Frames that the socket reads ahead; with the library's 16 it stops and starts again in every burst."""
OPEN_TIMEOUT_S = 10.0
CHECK_S = 0.5
"""Time between two checks of the deadlines."""
PING_S = 5.0
FIRST_PING_ID = 1_000_000_000
"""Request ids of pings lie above those of subscriptions."""
MAX_OPEN_PINGS = 20
"""Pings whose answer is still recognized."""
SILENCE_WARNING_S = 3.0
MAX_FRAMES_AT_ONCE = 200
"""Frames read before other tasks run: a burst must not delay deadlines and signals by more than a few milliseconds."""
FULL_PAUSE_S = 0.05
"""Time between two looks at a full queue."""
RATE_LIMITED_PAUSE_S = 5.0
"""Pause of all requests after the exchange said that there were too many."""
MAX_LOGGED_CHARS = 300
MAX_FOREIGN_LETTERS = 20
"""Markets that were not asked for and of which a connection keeps one frame as a dead letter; all are counted."""

MarketFrame = TickerFrame | TradeFrame | OhlcFrame | BookFrame | MarkPriceFrame

_json = msgspec.json.Encoder()


class FrameSink(Protocol):
    """Takes what a link receives."""

    @property
    def full(self) -> bool:
        """Whether no more frames should be read from the socket."""
        ...

    def publish(self, link: int, key: str, envelope: Envelope, frame: ChannelFrame) -> bool:
        """Take a frame of the link with this number; raises `ServiceError` if it cannot be published.

        Returns False for a frame that is left out of the log because of overload or a full disk.
        """
        ...

    def dead_letter(self, reason: str, message: str, raw: bytes) -> None:
        """Keep a frame that cannot be used."""
        ...

    def poll(self) -> None:
        """Do what has to be done about twice a second."""
        ...


class Shared(NamedTuple):
    """What the links to one exchange have in common."""

    sink: FrameSink
    exchange: Exchange
    clock: Clock
    connection_numbers: itertools.count[int]
    states: SubscriptionStates


class ExchangeLink:
    """The connections to the exchange on one of its routes, one after another.

    The links of all routes that together bring every message once have the same `number`.
    """

    def __init__(self, settings: Settings, shared: Shared, number: int = 1, route: str = "") -> None:
        self._settings = settings
        self._url = settings.exchange.ws_url + route
        self._number = number
        self._exchange = shared.exchange
        self._clock = shared.clock
        self._sink = shared.sink
        self._connection_numbers = shared.connection_numbers
        self._symbols = frozenset(settings.exchange.symbols)
        self._default_key = settings.exchange.symbols[0]
        self._connection = 0
        self._sequence = 0
        self._opened_s: float | None = None
        self._subscriptions = Subscriptions(
            shared.exchange,
            settings.exchange.symbols,
            settings.stream.subscription_deadline_s,
            shared.states,
            Link(number, shared.exchange.routes[route]),
        )
        self._books = OrderBooks(settings.exchange.symbols)
        self._exchange_clock = ExchangeClock(shared.exchange.name)
        self._requests: asyncio.Queue[Request] = asyncio.Queue()
        self._request_budget = self._full_request_budget()
        self._last_trades: dict[str, Trade] = {}
        """The last trade that came for each symbol."""
        self._pings: dict[int, int] = {}
        """When each unanswered ping was sent (ns), by request id."""
        self._ping_ids = itertools.count(FIRST_PING_ID)
        self._foreign: set[str] = set()
        """Markets that were not asked for but came on this connection."""
        self._last_frame_s = 0.0
        self._received_data = False
        self.last_data_s: float | None = None
        """When market data last came, monotonic seconds."""

    async def follow(self, reconnecting: Reconnecting, stop: asyncio.Event) -> Exception | None:
        """Follow one connection until it fails or `stop` is set; returns what ended it.

        Raises `SubscriptionRefused` when the exchange refuses every subscription as unsupported.
        """
        self._received_data, self._opened_s = False, None
        failure: Exception | None = None
        try:
            await self._connect(stop)
        except SubscriptionRefused:
            raise
        except (OSError, TimeoutError, EOFError, WebSocketException, ServiceError) as error:
            failure = error
            status = getattr(getattr(error, "response", None), "status_code", None)
            metrics.CONNECTIONS.labels(self._exchange.name, f"http_{status}" if status else type(error).__name__).inc()
            log.warning(
                "%s: connection %d ended: %s",
                *(self._exchange.name, self._connection, str(error)[:MAX_LOGGED_CHARS] or type(error).__name__),
            )
        lived_s = 0.0 if self._opened_s is None else self._clock.monotonic_s() - self._opened_s
        reconnecting.ended(lived_s, received_data=self._received_data)
        return failure

    async def _connect(self, stop: asyncio.Event) -> None:
        url = self._url
        try:
            socket = await connect(
                url,
                max_size=MAX_SOCKET_FRAME_BYTES,
                max_queue=SOCKET_QUEUE_FRAMES,
                open_timeout=OPEN_TIMEOUT_S,
                compression=None,
            )
        except (LookupError, ValueError) as error:  # headers that appear twice, or a redirection to nowhere
            msg = f"the handshake with {url} failed: {error!r}"
            raise ExchangeError(msg) from error
        self._start_connection(url)
        work = (self._read(socket), self._send(socket), self._maintain(socket), stop.wait())
        tasks = [asyncio.create_task(each) for each in work]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await socket.close()

    def _start_connection(self, url: str) -> None:
        now_s = self._clock.monotonic_s()
        self._connection = next(self._connection_numbers)
        self._sequence = 0
        self._books.clear()
        self._pings.clear()
        self._foreign.clear()
        self._opened_s = self._last_frame_s = now_s
        self._requests = asyncio.Queue()
        self._request_budget = self._full_request_budget()
        self._enqueue(self._subscriptions.open(now_s))
        metrics.CONNECTIONS.labels(self._exchange.name, "opened").inc()
        log.info("%s, link %d: connection %d to %s", self._exchange.name, self._number, self._connection, url)

    def _full_request_budget(self) -> TokenBucket:
        return TokenBucket(self._exchange.requests_per_s, int(self._exchange.requests_per_s))

    def _enqueue(self, requests: list[Request]) -> None:
        for request in requests:
            self._requests.put_nowait(request)

    async def _read(self, socket: ClientConnection) -> None:
        while True:
            for _ in range(MAX_FRAMES_AT_ONCE):
                while self._sink.full:
                    self._sink.poll()
                    self._last_frame_s = (
                        self._clock.monotonic_s()
                    )  # nothing is read, so this is no silence of the exchange
                    await asyncio.sleep(FULL_PAUSE_S)
                self.receive(await socket.recv(decode=False))
            await asyncio.sleep(0)

    async def _send(self, socket: ClientConnection) -> None:
        """Send the queued requests, no faster than the exchange accepts them."""
        while True:
            request = await self._requests.get()
            while (wait_s := self._request_budget.take(self._clock.monotonic_s())) > 0:  # noqa: ASYNC110 - it waits for time
                await asyncio.sleep(wait_s)
            await socket.send(_json.encode(request), text=True)

    async def _maintain(self, socket: ClientConnection) -> None:
        """Send pings, and check every deadline."""
        next_ping_s = 0.0
        while True:
            await asyncio.sleep(CHECK_S)
            now_s = self._clock.monotonic_s()
            self._sink.poll()
            self._check_silence(now_s)
            if self._requests.empty():
                self._renew_books(now_s)
                self._enqueue(self._subscriptions.resubscribe_overdue(now_s))
            if now_s >= next_ping_s:
                next_ping_s = now_s + PING_S
                await self._ping(socket, now_s)

    async def _ping(self, socket: ClientConnection, now_s: float) -> None:
        request_id = next(self._ping_ids)
        request = self._exchange.ping(request_id)
        if self._request_budget.take(now_s) > 0:
            return
        if request is None:
            asyncio.ensure_future(await socket.ping()).add_done_callback(self._take_round_trip)
        else:
            self._pings[request_id] = self._clock.now_ns()
            self._pings.pop(request_id - MAX_OPEN_PINGS, None)
            await socket.send(_json.encode(request), text=True)

    def _take_round_trip(self, answered: asyncio.Future[float]) -> None:
        """Take the answer to a WebSocket ping; the connection may have ended without one."""
        if not answered.cancelled() and answered.exception() is None:
            self._exchange_clock.measure_round_trip(int(answered.result() * NS_PER_S))

    def _check_silence(self, now_s: float) -> None:
        """Raise `TimeoutError` when no frame came within the deadline; a pong does not count, every other frame does."""
        silent_s = now_s - self._last_frame_s
        deadline_s = self._settings.stream.data_deadline_s
        if silent_s > deadline_s:
            raise TimeoutError(f"no frame arrived for {deadline_s:.1f} s")
        if silent_s > SILENCE_WARNING_S:
            log.warning("%s: no frame has arrived for %.1f s", self._exchange.name, silent_s)

    def receive(self, raw: bytes) -> None:
        """Take one frame of the socket; one that cannot be used becomes a dead letter."""
        now_ns = self._clock.now_ns()
        self._sequence += 1
        if len(raw) > self._settings.stream.max_frame_bytes:
            limit = self._settings.stream.max_frame_bytes
            self._sink.dead_letter("oversized", f"the frame has {len(raw)} bytes, the limit is {limit}", raw)
            return
        try:
            self._use(self._exchange.decode(raw), raw, now_ns)
        except BadFrame as error:
            log.warning("%s", str(error)[:MAX_LOGGED_CHARS])
            self._sink.dead_letter(error.reason, str(error), raw)
        except ServiceError as error:
            if isinstance(error, SubscriptionRefused):
                raise
            log.error("a frame was not published: %s", str(error)[:MAX_LOGGED_CHARS])  # noqa: TRY400 - the place is known
            self._sink.dead_letter("not_published", str(error), raw)

    def _use(self, frame: ChannelFrame | Reply, raw: bytes, now_ns: int) -> None:
        if isinstance(frame, Reply):
            self._handle_reply(frame, now_ns)
            return
        self._last_frame_s = self._clock.monotonic_s()
        metrics.FRAMES.labels(self._exchange.name, str(frame.__struct_config__.tag)).inc()
        if isinstance(frame, MarketFrame):
            self._use_market_frame(frame, raw, now_ns)
        elif isinstance(frame, InstrumentFrame):
            self._report_bad_entries(frame, raw)
            self._books.set_precisions(frame, self._last_frame_s)
        elif isinstance(frame, StatusFrame):
            log.info("%s: exchange status: %s", self._exchange.name, [status.system[:32] for status in frame.data[:8]])
            self._report_bad_entries(frame, raw)
            self._publish(self._default_key, frame, raw, now_ns)  # a message without a key would go to any partition

    def _handle_reply(self, reply: Reply, now_ns: int) -> None:
        if reply.method != "pong":
            self._last_frame_s = now_s = self._clock.monotonic_s()
            if reply.refusal and reply.method != "subscribe":
                log.warning(
                    "the exchange refused %s: %s", reply.method[:32] or "a request", reply.refusal[:MAX_LOGGED_CHARS]
                )
            if reply.refusal and not reply.method:
                self._request_budget.close(now_s + RATE_LIMITED_PAUSE_S)
            self._subscriptions.replied(reply, now_s)
            return
        sent_ns = self._pings.pop(reply.req_id or 0, None)
        if sent_ns is not None and reply.time_in is not None and reply.time_out is not None:
            self._exchange_clock.measure(sent_ns, to_ns(reply.time_in), to_ns(reply.time_out), now_ns)

    def _use_market_frame(self, frame: MarketFrame, raw: bytes, now_ns: int) -> None:
        symbols = {entry.symbol for entry in frame.data}
        asked = symbols & self._symbols
        if len(symbols) > 1:  # a message of the log belongs to one symbol, which decides about its partition
            for symbol in sorted(asked):
                part = with_symbol(raw, pair_of(symbol))
                self._use(self._exchange.decode(part), part, now_ns)
        if len(asked) < len(symbols):
            self._refuse_foreign(sorted(symbols - asked), frame)
        if len(symbols) > 1 or not asked:
            return
        (symbol,) = asked
        self._record_data(frame, symbol, now_ns)
        book_ok = None
        if isinstance(frame, BookFrame):
            book_ok = self._books.apply(frame, self._last_frame_s)
            self._renew_books(self._last_frame_s)
        if str(frame.__struct_config__.tag) not in EVENT_CHANNELS:  # the readers of the log report those of events
            self._report_bad_entries(frame, raw)
        is_in_log = self._publish(symbol, frame, raw, now_ns, book_ok=book_ok)
        if isinstance(frame, BookFrame) and not is_in_log:
            self._books.left_out(symbol, self._last_frame_s)

    def _renew_books(self, now_s: float) -> None:
        for symbol in self._books.take_requests(now_s):
            self._enqueue(self._subscriptions.resubscribe("book", symbol, self._books.reason(symbol), now_s))

    def _refuse_foreign(self, symbols: list[str], frame: MarketFrame) -> None:
        """Count a frame of markets that were not asked for, and keep the first one of each as a dead letter."""
        channel = str(frame.__struct_config__.tag)
        metrics.FOREIGN_FRAMES.labels(self._exchange.name, channel).inc()
        new = [symbol for symbol in symbols if symbol not in self._foreign]
        if new and len(self._foreign) < MAX_FOREIGN_LETTERS:
            self._foreign.update(new)
            raise BadFrame("foreign_market", f"{channel} frame of {', '.join(new)}, which was not asked for")

    def _report_bad_entries(self, frame: MarketFrame | InstrumentFrame | StatusFrame, raw: bytes) -> None:
        """Make a dead letter of each entry that could not be decoded and that concerns a followed market or all markets."""
        concerned = tuple(
            entry for entry in frame.bad if entry.symbol in self._symbols or isinstance(frame, StatusFrame)
        )
        for error in bad_entries(concerned):
            log.warning("%s", error)
            self._sink.dead_letter(error.reason, str(error), raw)

    def _publish(self, key: str, frame: ChannelFrame, raw: bytes, now_ns: int, *, book_ok: bool | None = None) -> bool:
        envelope = Envelope(
            now_ns,
            self._connection,
            self._sequence,
            str(frame.__struct_config__.tag),
            "ws",
            raw,
            book_ok,
            self._exchange.name,
            self._exchange_clock.measured_offset_ns,
            qualified=bool(exchange_in(key)),
        )
        return self._sink.publish(self._number, key, envelope, frame)

    def _record_data(self, frame: MarketFrame, symbol: str, now_ns: int) -> None:
        """Note that a subscription delivers, and whether the data is new; measure the latency of updates."""
        channel = str(frame.__struct_config__.tag)
        self.last_data_s = self._last_frame_s
        self._received_data = True
        is_new = frame.type == "update"
        if isinstance(frame, TradeFrame):  # a snapshot ends with the newest trade; ids do not say which one is newer
            is_new = is_new or frame.data[-1] != self._last_trades.get(symbol)
            self._last_trades[symbol] = frame.data[-1]
        self._subscriptions.heard(channel, symbol, self._last_frame_s, is_new=is_new)
        moment = frame.data[-1].timestamp
        if moment is not None and frame.type == "update":
            self._exchange_clock.observe(channel, to_ns(moment), now_ns)
