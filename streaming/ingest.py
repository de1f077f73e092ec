"""The ingest worker: reads the sockets of all exchanges and appends every frame to the log `market.events` as it was received.

Frames that cannot be read become dead letters. While Kafka is unavailable, frames wait in memory. When too many wait,
superseded quotes and book frames are left out and counted, trades never are. When the queue is full, no socket is read.
What does not belong here: the connections to an exchange (`exchange_feed`), and the frames on one (`exchange_link`).
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
from btc_core.errors import ConfigError, ServiceError
from btc_core.market.messages import encode_envelope
from btc_core.names import DEADLETTERS_TOPIC, EVENTS_TOPIC
from btc_core.stores.kafka_connection import explain
from btc_core.stores.kafka_topics import missing_topics
from streaming.conflation import ConflatingPublisher
from streaming.disk_saver import DiskSaver
from streaming.exchange_feed import ExchangeFeed
from streaming.publisher import Publisher

if TYPE_CHECKING:
    from btc_core.clock import Clock
    from btc_core.market.frames import ChannelFrame
    from btc_core.market.messages import Envelope
    from btc_core.settings import Settings

log = logging.getLogger(__name__)

CHECK_S = 0.5
"""Time between two checks while ingest waits."""
TOPICS_TIMEOUT_S = 5.0
"""How long Kafka may take to name its topics. If it does not answer, frames wait in memory."""


class Ingest:
    """The feeds of all exchanges that are followed, and the log that they write to."""

    def __init__(self, settings: Settings, clock: Clock = SYSTEM_CLOCK) -> None:
        self._settings = settings
        self._clock = clock
        self._publisher = Publisher(settings.kafka, "ingest", blocking=False)
        conflating = ConflatingPublisher(self._publisher, settings.stream.conflate_above_messages, settings.log_key)
        self._frame_publisher = DiskSaver(conflating, settings.disk, clock)
        self.stopped = asyncio.Event()
        connection_numbers = itertools.count(1)
        self.feeds = [
            ExchangeFeed(settings, name, self, clock, connection_numbers)
            for name in settings.exchange.names
            if settings.exchange.only(name).symbols
        ]

    async def run(self) -> None:
        """Follow every exchange until stopped.

        Raises `SubscriptionRefused` when the only exchange offers nothing of what the settings ask for, and `ServiceError`
        when Kafka's client can no longer be used.
        """
        try:
            await self._wait_for_topics()
            await asyncio.gather(*(feed.run() for feed in self.feeds))
            self._publisher.flush()
        except KafkaException as error:
            raise ServiceError(explain(self._settings.kafka, error.args[0])) from error

    def stop(self) -> None:
        """End `run` after the current frame."""
        self.stopped.set()

    @property
    def full(self) -> bool:
        """Whether no more frames should be read from any socket."""
        return self._frame_publisher.full

    def publish(self, key: str, envelope: Envelope, frame: ChannelFrame) -> bool:
        """Append a frame to the log; raises `ServiceError` if Kafka's client does not take it.

        Returns False for a frame that is left out.
        """
        return self._frame_publisher.publish(key, envelope, frame)

    def publish_history(self, key: str, envelope: Envelope) -> None:
        """Append a frame from REST to the log; raises `ServiceError` if Kafka's client does not take it."""
        log_key = self._settings.log_key(key)
        self._publisher.publish(EVENTS_TOPIC, log_key, encode_envelope(envelope), envelope.ts_recv_ns)

    def dead_letter(self, reason: str, message: str, raw: bytes, exchange: str) -> None:
        """Keep a frame that cannot be used."""
        try:
            self._publisher.dead_letter(reason, message, raw, exchange=exchange)
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

    async def wait(self, seconds: float) -> None:
        """Sleep for this long or until stopped."""
        until_s = self._clock.monotonic_s() + seconds
        while not self.stopped.is_set() and (left_s := until_s - self._clock.monotonic_s()) > 0:
            self.poll()
            await asyncio.sleep(min(CHECK_S, left_s))

    async def _wait_for_topics(self) -> None:
        """Wait while Kafka answers that a topic does not exist yet: it would refuse every message."""
        needed = (EVENTS_TOPIC, DEADLETTERS_TOPIC)
        while not self.stopped.is_set():
            try:
                missing = await asyncio.to_thread(missing_topics, self._settings.kafka, needed, TOPICS_TIMEOUT_S)
            except ServiceError as error:
                log.warning("%s; frames wait in memory until it does", error)
                return
            if not missing:
                return
            log.warning(
                "waiting for the topics %s, which do not exist or which the user may not see; `btc up` creates them",
                ", ".join(missing),
            )
            await self.wait(CHECK_S)


async def _main(settings: Settings) -> None:
    ingest = Ingest(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ingest.stop)
    await ingest.run()


def run(settings: Settings) -> None:
    """Read the exchanges until SIGTERM; raises `ConfigError` for an address that is none."""
    for name in settings.exchange.names:
        variable = "BTC_EXCHANGE_WS_URL" if name == settings.exchange.name else "BTC_EXCHANGE_WS_URLS"
        try:
            parse_uri(settings.exchange.only(name).ws_url)
        except (InvalidURI, ValueError) as error:
            msg = f"{variable} is not the address of a WebSocket of {name}: {error}"
            raise ConfigError(msg) from error
    asyncio.run(_main(settings))
