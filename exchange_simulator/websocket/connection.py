"""One WebSocket client: its queue, its writer, and the frame transformers between them.

A transformer takes a frame and gives the frames to send in its place. Faults of a connection are done here: it can be
cut, stalled, half open, or silent on one stream.
What does not belong here: which frames a client gets (`hub`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from btc_core.clock import Clock
    from exchange_simulator.websocket.channels import Stream
    from exchange_simulator.websocket.ledger import Ledger
    from exchange_simulator.websocket.wire import Frame

    Transformer = Callable[[Frame], Iterable[Frame]]

REQUESTS_PER_S = 20
"""Kraken's limit for one connection; a burst of as many is allowed."""
CLOSE_SLOW = 1008
CLOSE_AWAY = 1001
GOODBYE_S = 1.0
"""How long a client that was too slow may take to hear why; then the line is cut (1006)."""


class RateLimit:
    """A token bucket: `per_s` a second on average, `burst` at once."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._tokens = burst
        self._at_s: float | None = None

    def allows(self, now_s: float) -> bool:
        """Take a token if there is one; `now_s` is monotonic."""
        if self._at_s is not None:
            self._tokens = min(self._burst, self._tokens + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class Line(ServerConnection):
    """A socket that can be muted: it stays open and reads, but sends nothing, no pongs and no goodbye either."""

    muted = False

    def send_data(self) -> None:
        """Write what the protocol wants to say, or throw it away."""
        if not self.muted:
            super().send_data()
            return
        self.protocol.data_to_send()


class Connection:
    """A client that frames are queued for; disconnected (1008) when it reads too slowly."""

    def __init__(self, number: int, socket: Line, ledger: Ledger, clock: Clock, *, queue_limit_bytes: int) -> None:
        self.number = number
        self.streams: dict[tuple[str, str], Stream] = {}
        """By channel and symbol: a symbol has one stream a channel."""
        self.transformers: list[Transformer] = []
        self.silenced: set[tuple[str, str]] = set()
        """Streams, by channel and symbol, that get nothing until they are subscribed again."""
        self.queued_bytes = 0
        self.last_queued_s = clock.monotonic_s()
        self.requests = RateLimit(REQUESTS_PER_S, REQUESTS_PER_S)
        self._socket = socket
        self._ledger = ledger
        self._clock = clock
        self._limit_bytes = queue_limit_bytes
        self._queue: deque[Frame] = deque()
        self._filled = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        self._stalled_until_s = 0.0

    def enqueue(self, frame: Frame) -> None:
        """Put a frame, as the transformers leave it, at the end of the queue; nothing more for one that is too slow."""
        if self._closing is not None or self._socket.muted:
            return
        frames: Iterable[Frame] = (frame,)
        for transform in self.transformers:
            frames = [changed for item in frames for changed in transform(item)]
        for item in frames:
            if (item.channel, item.symbol) in self.silenced:
                continue
            self._queue.append(item)
            self.queued_bytes += len(item.text)
            self.last_queued_s = self._clock.monotonic_s()
        self._filled.set()
        if self.queued_bytes > self._limit_bytes:
            self.close(CLOSE_SLOW, "too slow")

    def close(self, code: int, reason: str) -> None:
        """Say goodbye and go; nothing more is sent."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._goodbye(code, reason))

    async def _goodbye(self, code: int, reason: str) -> None:
        """Say goodbye if the client still takes it; cut the line if the writer hangs in a send."""
        try:
            async with asyncio.timeout(GOODBYE_S):
                await self._socket.close(code, reason)
        except TimeoutError:
            self.cut()

    def cut(self) -> None:
        """End the connection without a word: the client sees 1006."""
        self._socket.transport.abort()

    def mute(self) -> None:
        """Send nothing any more and stay open: the line is dead at this end only."""
        self._socket.muted = True
        self._queue.clear()
        self.queued_bytes = 0

    def stall(self, seconds: float) -> None:
        """Send nothing for so long, then everything that has come together."""
        self._stalled_until_s = max(self._stalled_until_s, self._clock.monotonic_s() + seconds)

    async def write(self) -> None:
        """Send what is queued until the client goes, or was too slow to be kept."""
        try:
            while self._closing is None:
                if not self._queue:
                    self._filled.clear()
                    await self._filled.wait()
                    continue
                if (wait_s := self._stalled_until_s - self._clock.monotonic_s()) > 0:
                    await asyncio.sleep(wait_s)
                    continue
                frame = self._queue[0]
                # Written down first: a client may ask the ledger as soon as it has the frame.
                self._ledger.record(self.number, frame, self._clock.now_ns())
                await self._socket.send(frame.text)
                if not self._socket.muted:
                    self._queue.popleft()
                    self.queued_bytes -= len(frame.text)
        except ConnectionClosed:
            return
        finally:
            self._queue.clear()
            self.queued_bytes = 0
