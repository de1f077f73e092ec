"""The ingest worker: reads the exchange's socket and appends every frame to the log `market.events` as it was received.

Frames that cannot be read become dead letters. While Kafka is unavailable, frames wait in memory. When too many wait,
superseded quotes and book frames are left out and counted, trades never are. When the queue is full, the socket is not read.
What does not belong here: the connection and the frames on it (`exchange_link`).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import signal
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException
from websockets.exceptions import InvalidURI
from websockets.uri import parse_uri

from btc_core import metrics
from btc_core.clock import SYSTEM_CLOCK
from btc_core.errors import ConfigError, ExchangeError, InvalidInput, ServiceError
from btc_core.exchanges.adapters import exchange_of
from btc_core.market.messages import Envelope, encode_envelope
from btc_core.names import DEADLETTERS_TOPIC, EVENTS_TOPIC
from btc_core.stores.kafka import missing_topics
from streaming.conflation import ConflatingPublisher
from streaming.disk_saver import DiskSaver
from streaming.exchange_link import ExchangeLink, Shared
from streaming.first_copy import FirstCopies
from streaming.publisher import Publisher
from streaming.reconnecting import Reconnecting, new_budget
from streaming.subscriptions import SubscriptionStates
from streaming.warm_up_bars import recent_bars

if TYPE_CHECKING:
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
CHECK_S = 0.5
"""Time between two checks while ingest waits."""
TOPICS_TIMEOUT_S = 5.0
"""How long Kafka may take to name its topics. If it does not answer, frames wait in memory."""


class Ingest:
    """The connections of one process to the exchange, and the log that they write to."""

    def __init__(self, settings: Settings, clock: Clock = SYSTEM_CLOCK) -> None:
        self._settings = settings
        self._clock = clock
        self._publisher = Publisher(settings.kafka, "ingest", blocking=False)
        conflating = ConflatingPublisher(self._publisher, settings.stream.conflate_above_messages, settings.log_key)
        self._frame_publisher = DiskSaver(conflating, settings.disk, clock)
        self._exchange = exchange_of(settings.exchange)
        shared = Shared(self, self._exchange, clock, itertools.count(1), SubscriptionStates())
        self._links = [
            ExchangeLink(settings, shared, number, route)
            for number in range(1, settings.exchange.connections + 1)
            for route in self._exchange.routes
        ]
        self._copies = FirstCopies() if settings.exchange.connections > 1 else None
        self._budget = new_budget()
        self._history_lock = asyncio.Lock()
        self._history_s: float | None = None
        """When the minute bars were last asked for, monotonic seconds."""
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Connect, read frames, and connect again after every failure, until stopped.

        Raises `SubscriptionRefused` when the exchange offers nothing of what the settings ask for, and `ServiceError` when
        Kafka's client can no longer be used.
        """
        try:
            await self._wait_for_topics()
            await asyncio.gather(*(self._run_link(link) for link in self._links))
            self._publisher.flush()
        except KafkaException as error:
            msg = f"Kafka at {self._settings.kafka.bootstrap}: {error}"
            raise ServiceError(msg) from error

    async def _run_link(self, link: ExchangeLink) -> None:
        reconnecting = Reconnecting()
        while not self._stop.is_set():
            if self.full:  # nothing could be read from a connection
                await self._wait(CHECK_S)
                continue
            async with self._history_lock:
                await self._fetch_missed_minutes()
            while not self._stop.is_set() and (wait_s := self._budget.take(self._clock.monotonic_s())) > 0:
                await self._wait_to_connect(wait_s)
            failure = await link.follow(reconnecting, self._stop)
            await self._wait_to_connect(reconnecting.pause_s(failure))

    def stop(self) -> None:
        """End `run` after the current frame."""
        self._stop.set()

    @property
    def full(self) -> bool:
        """Whether no more frames should be read from the socket."""
        return self._frame_publisher.full

    def publish(self, link: int, key: str, envelope: Envelope, frame: ChannelFrame) -> bool:
        """Append a frame to the log, unless another link had it; raises `ServiceError` if Kafka's client does not take it.

        Returns False for a frame that is left out.
        """
        now_s = self._clock.monotonic_s()
        if self._copies is not None and not self._copies.is_new(link, key, frame, envelope.raw, now_s):
            return True
        return self._frame_publisher.publish(key, envelope, frame)

    def dead_letter(self, reason: str, message: str, raw: bytes) -> None:
        """Keep a frame that cannot be used."""
        try:
            self._publisher.dead_letter(reason, message, raw)
        except ServiceError as error:
            log.error("a dead letter was not published: %s", error)  # noqa: TRY400 - the place is known

    def poll(self) -> None:
        """Process Kafka's acknowledgements, send the held quotes, and report that the loop runs."""
        metrics.LOOP_AT.labels("ingest").set_to_current_time()
        try:
            self._frame_publisher.poll()
        except ServiceError as error:  # the refused messages are queued again; the connection to the exchange is sound
            metrics.RETRIES.labels("ingest").inc()
            log.warning("%s; sending it again", error)

    async def _wait(self, seconds: float) -> None:
        """Sleep for this long or until stopped."""
        until_s = self._clock.monotonic_s() + seconds
        while not self._stop.is_set() and (left_s := until_s - self._clock.monotonic_s()) > 0:
            self.poll()
            await asyncio.sleep(min(CHECK_S, left_s))

    async def _wait_to_connect(self, seconds: float) -> None:
        if seconds > 0 and not self._stop.is_set():
            log.info("next connection in %.1f s", seconds)
            await self._wait(seconds)

    async def _wait_for_topics(self) -> None:
        """Wait while Kafka answers that a topic does not exist yet: it would refuse every message."""
        needed = (EVENTS_TOPIC, DEADLETTERS_TOPIC)
        while not self._stop.is_set():
            try:
                missing = await asyncio.to_thread(missing_topics, self._settings.kafka, needed, TOPICS_TIMEOUT_S)
            except ServiceError as error:
                log.warning("%s; frames wait in memory until it does", error)
                return
            if not missing:
                return
            log.warning("waiting for the topics %s; `btc up` creates them", ", ".join(missing))
            await self._wait(CHECK_S)

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
        try:
            async with asyncio.timeout(HISTORY_DEADLINE_S):
                await self._publish_history()
        except TimeoutError:
            log.warning("not all minute bars arrived within %.0f s: connecting without them", HISTORY_DEADLINE_S)
        except ServiceError as error:
            log.warning("not all minute bars were published: %s", error)

    async def _publish_history(self) -> None:
        for symbol in self._settings.exchange.symbols:
            self.poll()
            frames = await self._history(symbol)
            for raw in frames:
                place = self._clock.now_ns(), 0, 0
                envelope = Envelope(*place, "ohlc", "rest", raw, exchange=self._exchange.name)
                key = self._settings.log_key(symbol)
                self._publisher.publish(EVENTS_TOPIC, key, encode_envelope(envelope), envelope.ts_recv_ns)
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


async def _main(settings: Settings) -> None:
    ingest = Ingest(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ingest.stop)
    await ingest.run()


def run(settings: Settings) -> None:
    """Read the exchange until SIGTERM; raises `ConfigError` for an address that is none."""
    try:
        parse_uri(settings.exchange.ws_url)
    except (InvalidURI, ValueError) as error:
        msg = f"BTC_EXCHANGE_WS_URL is not the address of a WebSocket: {error}"
        raise ConfigError(msg) from error
    asyncio.run(_main(settings))
