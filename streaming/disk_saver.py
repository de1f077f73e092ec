"""Leaving frames out of the log while the disk is nearly full: order books first, then superseded quotes, never trades.

`btc_core/stores/disk.py` decides how much is given up. What does not belong here: conflation while Kafka is slow
(`streaming/conflation.py`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from btc_core import metrics
from btc_core.clock import SYSTEM_CLOCK
from btc_core.market.frames import BookFrame, TickerFrame
from btc_core.stores.disk import GB, Saving, free_bytes, saving

if TYPE_CHECKING:
    from btc_core.clock import Clock
    from btc_core.market.frames import ChannelFrame
    from btc_core.market.messages import Envelope
    from btc_core.settings import DiskSettings
    from streaming.conflation import ConflatingPublisher

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""Time between two looks at the free space. A look takes microseconds."""


class DiskSaver:
    """A publisher of frames that passes on what the disk has room for."""

    def __init__(self, publisher: ConflatingPublisher, settings: DiskSettings, clock: Clock = SYSTEM_CLOCK) -> None:
        self._publisher = publisher
        self._settings = settings
        self._clock = clock
        self._step = Saving.NOTHING
        self._looked_s = float("-inf")
        self._sent_s: dict[str, float] = {}
        """When the last quote of each key was passed on."""
        self._held: dict[str, tuple[Envelope, TickerFrame]] = {}
        """The newest quote of each key that waits for its interval to end, or for a trade."""

    @property
    def full(self) -> bool:
        """Whether no more frames should be read from the socket."""
        return self._publisher.full

    def publish(self, key: str, envelope: Envelope, frame: ChannelFrame) -> bool:
        """Pass a frame on, hold it back if it is a quote, or leave it out if it is a book, as the disk requires.

        Returns False for a frame that is left out.
        """
        if self._step >= Saving.BOOKS and isinstance(frame, BookFrame):
            metrics.DISK_LEFT_OUT.labels("book", key).inc()
            return False
        if self._step >= Saving.QUOTES and isinstance(frame, TickerFrame):
            if key in self._held:
                metrics.DISK_LEFT_OUT.labels("ticker", key).inc()
                envelope = msgspec.structs.replace(envelope, conflated=True)
            self._held[key] = (envelope, frame)
            self._pass_on_due_quotes()
            return True
        self._pass_on_quote(key)
        return self._publisher.publish(key, envelope, frame)

    def poll(self) -> None:
        """Look at the disk, pass on the quotes that are due, and process Kafka's acknowledgements."""
        if self._settings.path and self._clock.monotonic_s() - self._looked_s >= LOOK_S:
            self._looked_s = self._clock.monotonic_s()
            self._look()
        self._pass_on_due_quotes()
        self._publisher.poll()

    def _look(self) -> None:
        try:
            free = free_bytes(self._settings.path)
        except OSError as error:
            log.warning("the disk of %s cannot be read: %s", self._settings.path, error)
            return
        step = saving(free, self._settings, self._step)
        if step != self._step:
            log.warning(
                "%.2f GB are free at %s: %s",
                *(free / GB, self._settings.path),
                {
                    Saving.NOTHING: "everything is recorded again",
                    Saving.BOOKS: "order books are left out; quotes and trades are recorded",
                }.get(step, "order books and superseded quotes are left out; trades are recorded"),
            )
        self._step = step

    def _pass_on_due_quotes(self) -> None:
        if not self._held:
            return
        now_s = self._clock.monotonic_s()
        interval_s = self._settings.quote_interval_s if self._step >= Saving.QUOTES else 0.0
        for key in [key for key in self._held if now_s - self._sent_s.get(key, float("-inf")) >= interval_s]:
            self._pass_on_quote(key)

    def _pass_on_quote(self, key: str) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            self._sent_s[key] = self._clock.monotonic_s()
            self._publisher.publish(key, *held)
