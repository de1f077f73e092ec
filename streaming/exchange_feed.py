"""The feed of one exchange: its links, the budget of its connections, and the bars of the minutes that it missed.

Feeds share the log and nothing else. An exchange that refuses, is silent or bans this address makes its own feed wait, and
the other feeds continue.
What does not belong here: a connection (`exchange_link`), or how the log is written (`ingest`).
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

from btc_core import metrics
from btc_core.errors import ExchangeError, InvalidInput, ServiceError, SubscriptionRefused
from btc_core.exchanges.adapters import exchange_of
from btc_core.market.messages import Envelope
from btc_core.names import exchange_in
from streaming.exchange_link import ExchangeLink, Shared
from streaming.first_copy import FirstCopies
from streaming.reconnecting import Reconnecting, new_budget
from streaming.subscriptions import SubscriptionStates
from streaming.warm_up_bars import recent_bars

if TYPE_CHECKING:
    import itertools

    from btc_core.clock import Clock
    from btc_core.market.frames import ChannelFrame
    from btc_core.settings import Settings

log = logging.getLogger(__name__)

HISTORY_AFTER_S = 60.0
"""After a longer time without data the missed minutes are fetched as bars, so that the features have no hole."""
HISTORY_ATTEMPTS, HISTORY_PAUSE_S = 3, 1.5
"""Attempts to fetch the bars of a symbol, and the pause between them: REST accepts one request a second."""
HISTORY_DEADLINE_S = 30.0
"""Longest time for the bars of all symbols together; then the socket is opened without them."""
FULL_PAUSE_S = 0.5
"""Time between two looks at a full queue to Kafka."""
REFUSED_PAUSE_S = 300.0
"""Pause after an exchange refused every subscription, while the process follows other exchanges. A person has to change a
setting, or the exchange has to offer the market again."""


class FrameLog(Protocol):
    """What all feeds of a process write to."""

    stopped: asyncio.Event
    """Set when the process is to end."""

    @property
    def full(self) -> bool:
        """Whether no more frames should be read from any socket."""
        ...

    def publish(self, key: str, envelope: Envelope, frame: ChannelFrame) -> bool:
        """Append a frame to the log; raises `ServiceError` if Kafka's client does not take it.

        Returns False for a frame that is left out.
        """
        ...

    def publish_history(self, key: str, envelope: Envelope) -> None:
        """Append a frame from REST to the log; raises `ServiceError` if Kafka's client does not take it."""
        ...

    def dead_letter(self, reason: str, message: str, raw: bytes, exchange: str) -> None:
        """Keep a frame that cannot be used."""
        ...

    def poll(self) -> None:
        """Process Kafka's acknowledgements, and report that the loop runs."""
        ...

    async def wait(self, seconds: float) -> None:
        """Sleep for this long or until the process is to end."""
        ...


class ExchangeFeed:
    """The connections of one process to one exchange.

    If it is the only exchange of the process, a refusal of every subscription ends the process.
    """

    def __init__(
        self,
        settings: Settings,
        name: str,
        frame_log: FrameLog,
        clock: Clock,
        connection_numbers: itertools.count[int],
    ) -> None:
        own = settings.exchange.only(name)
        self.exchange = exchange_of(settings.exchange, name)
        self._is_only = len(own.symbols) == len(settings.exchange.symbols)
        self._symbols = own.symbols
        self._log = frame_log
        self._clock = clock
        shared = Shared(self, self.exchange, clock, connection_numbers, SubscriptionStates())
        link_settings = settings.model_copy(update={"exchange": own})
        self._links = [
            ExchangeLink(link_settings, shared, number, route)
            for number in range(1, own.connections + 1)
            for route in self.exchange.routes
        ]
        self._copies = FirstCopies(name) if own.connections > 1 else None
        self._budget = new_budget()
        metrics.FRAMES.labels(name, "heartbeat")  # an exchange that has not sent anything yet counts as silent, too
        self._history_lock = asyncio.Lock()
        self._history_s: float | None = None
        """When the minute bars were last asked for, monotonic seconds."""
        self._rest_thread = ThreadPoolExecutor(1, thread_name_prefix=f"rest-{name}")
        """A request that waits for this exchange holds up no other one."""

    async def run(self) -> None:
        """Connect, read frames, and connect again after every failure, until the process is to end.

        Raises `SubscriptionRefused` when the only exchange of the process offers nothing of what the settings ask for.
        """
        try:
            await asyncio.gather(*(self.run_link(link) for link in self._links))
        finally:
            self._rest_thread.shutdown(wait=False, cancel_futures=True)

    async def run_link(self, link: ExchangeLink) -> None:
        """Follow one connection after another on a link."""
        reconnecting = Reconnecting()
        stopped = self._log.stopped
        while not stopped.is_set():
            if self.full:  # nothing could be read from a connection
                await self._log.wait(FULL_PAUSE_S)
                continue
            async with self._history_lock:
                await self._fetch_missed_minutes()
            while not stopped.is_set() and (wait_s := self._budget.take(self._clock.monotonic_s())) > 0:
                await self._wait_to_connect(wait_s)
            try:
                failure = await link.follow(reconnecting, stopped)
            except SubscriptionRefused as error:
                if self._is_only:
                    raise
                log.error("%s: %s; the other exchanges are followed", self.exchange.name, error)  # noqa: TRY400 - a refusal of the exchange needs no traceback
                await self._wait_to_connect(REFUSED_PAUSE_S)
                continue
            await self._wait_to_connect(reconnecting.pause_s(failure))

    @property
    def full(self) -> bool:
        """Whether no more frames should be read from the socket."""
        return self._log.full

    def publish(self, link: int, key: str, envelope: Envelope, frame: ChannelFrame) -> bool:
        """Append a frame to the log, unless another link had it; raises `ServiceError` if Kafka's client does not take it.

        Returns False for a frame that is left out.
        """
        now_s = self._clock.monotonic_s()
        if self._copies is not None and not self._copies.is_new(link, key, frame, envelope.raw, now_s):
            return True
        return self._log.publish(key, envelope, frame)

    def dead_letter(self, reason: str, message: str, raw: bytes) -> None:
        """Keep a frame that cannot be used."""
        self._log.dead_letter(reason, message, raw, self.exchange.name)

    def poll(self) -> None:
        """Process Kafka's acknowledgements, and report that the loop runs."""
        self._log.poll()

    async def _wait_to_connect(self, seconds: float) -> None:
        if seconds > 0 and not self._log.stopped.is_set():
            log.info("%s: next connection in %.1f s", self.exchange.name, seconds)
            await self._log.wait(seconds)

    async def _fetch_missed_minutes(self) -> None:
        """Publish the closed minute bars of a time without data, before the first quote after it.

        Without these bars the stream continues and long windows fill up slowly: quotes must not wait long for history.
        """
        now_s = self._clock.monotonic_s()
        known_s = [
            last_s for last_s in (self._history_s, *(link.last_data_s for link in self._links)) if last_s is not None
        ]
        if known_s and now_s - max(known_s) < HISTORY_AFTER_S:
            return
        self._history_s = now_s
        blocked_s = self.exchange.budget.ready_in_s()
        if blocked_s > HISTORY_DEADLINE_S:
            log.warning(
                "%s: REST accepts no request for %.0f s: connecting without minute bars", self.exchange.name, blocked_s
            )
            return
        try:
            async with asyncio.timeout(HISTORY_DEADLINE_S):
                await self._publish_history()
        except TimeoutError:
            log.warning(
                "%s: not all minute bars arrived within %.0f s: connecting without them",
                *(self.exchange.name, HISTORY_DEADLINE_S),
            )
        except ServiceError as error:
            log.warning("not all minute bars were published: %s", error)

    async def _publish_history(self) -> None:
        for symbol in self._symbols:
            self.poll()
            frames = await self._history(symbol)
            for raw in frames:
                place = self._clock.now_ns(), 0, 0
                envelope = Envelope(
                    *place, "ohlc", "rest", raw, exchange=self.exchange.name, qualified=bool(exchange_in(symbol))
                )
                self._log.publish_history(symbol, envelope)
            log.info("%s: published %d frames of minute bars from the exchange's history", symbol, len(frames))

    async def _history(self, symbol: str) -> list[bytes]:
        """Bars as frames, after a few attempts if need be; none when every attempt fails."""
        loop = asyncio.get_running_loop()
        for left in reversed(range(HISTORY_ATTEMPTS)):
            try:
                return await loop.run_in_executor(self._rest_thread, recent_bars, self.exchange, symbol)
            except (ExchangeError, InvalidInput) as error:
                log.warning("%s: the minute bars could not be fetched (%d attempts left): %s", symbol, left, error)
                await asyncio.sleep(HISTORY_PAUSE_S if left else 0.0)
        return []
