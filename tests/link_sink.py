"""A link to the exchange without a socket and without Kafka: tests hand it frames and look at what it delivers."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from btc_core.clock import SYSTEM_CLOCK
from btc_core.exchange_settings import ExchangeSettings
from btc_core.exchanges.adapters import exchange_of
from btc_core.settings import Settings
from streaming.exchange_link import ExchangeLink, Shared
from streaming.subscriptions import SubscriptionStates

if TYPE_CHECKING:
    from btc_core.market.frames import ChannelFrame
    from btc_core.market.messages import Envelope


class Sink:
    """Keeps what a link delivers; `error` is raised at every frame."""

    full = False

    def __init__(self, error: Exception | None = None) -> None:
        self.published: list[tuple[str, Envelope]] = []
        self.letters: list[tuple[str, str, int]] = []
        """Reason, message, and size of the frame of each dead letter."""
        self._error = error
        self.leaves_out: tuple[str, ...] = ()
        """Channels whose frames are left out."""

    def publish(self, link: int, key: str, envelope: Envelope, frame: ChannelFrame) -> bool:
        """Keep a frame."""
        assert link == 1
        assert frame is not None
        if self._error is not None:
            raise self._error
        if envelope.channel in self.leaves_out:
            return False
        self.published.append((key, envelope))
        return True

    def dead_letter(self, reason: str, message: str, raw: bytes) -> None:
        """Keep a dead letter."""
        self.letters.append((reason, message, len(raw)))

    def poll(self) -> None:
        """Nothing waits."""


def link_to(sink: Sink, *symbols: str) -> ExchangeLink:
    """A link that follows these symbols, BTC/USD by default, and whose connection is open."""
    settings = Settings(exchange=ExchangeSettings(symbols=symbols or ("BTC/USD",)))
    shared = Shared(sink, exchange_of(settings.exchange), SYSTEM_CLOCK, itertools.count(1), SubscriptionStates())
    link = ExchangeLink(settings, shared)
    link._start_connection("ws://nowhere")
    return link
