"""One WebSocket client: its subscriptions, its queue of frames, and the task that sends them.

A fault of a connection happens here: it can be cut, stalled, muted, or silent on one stream.
What does not belong here: which frames a client gets (`hub`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from exchange_simulator.rate_limit import RateLimit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from btc_core.clock import Clock
    from exchange_simulator.websocket.ledger import Ledger
    from exchange_simulator.websocket.subscriptions import Stream
    from exchange_simulator.websocket.wire import Frame

    Transformer = Callable[[Frame], Iterable[Frame]]

REQUESTS_PER_S = 20
"""Kraken's limit for one connection; this many may also arrive at once."""
CLOSE_GOING_AWAY = 1001
CLOSE_POLICY_VIOLATION = 1008
CLOSE_TRY_AGAIN_LATER = 1013
CLOSE_TIMEOUT_S = 1.0
"""How long the closing handshake with a client that reads too slowly may take before the connection is cut (1006)."""


class ClientSocket(ServerConnection):
    """A server's socket that can be muted: it stays open and reads, but sends nothing, not even pongs or a close."""

    muted = False

    def send_data(self) -> None:
        """Write what the protocol has to send, or discard it when muted."""
        if not self.muted:
            super().send_data()
            return
        self.protocol.data_to_send()


class Connection:
    """A client with a queue of frames. It is disconnected (1008) when the queue exceeds its limit."""

    def __init__(
        self, number: int, socket: ClientSocket, ledger: Ledger, clock: Clock, *, queue_limit_bytes: int
    ) -> None:
        self.number = number
        self.streams: dict[tuple[str, str], Stream] = {}
        """Subscriptions by channel and symbol; there is at most one for each."""
        self.subscribed_before: set[tuple[str, str]] = set()
        """Channel and symbol of every subscription that it ever had."""
        self.transformers: list[Transformer] = []
        """Each replaces a frame to this client by the frames that it returns."""
        self.silenced: set[tuple[str, str]] = set()
        """Subscriptions, by channel and symbol, that get no frames until the client subscribes again."""
        self.deaf = False
        """Whether no subscription of this connection gets any data, however often it is made."""
        self.close_when_sent = False
        """Whether the connection is closed once everything queued is sent."""
        self.queued_bytes = 0
        self.last_queued_s = clock.monotonic_s()
        self.request_limit = RateLimit(REQUESTS_PER_S, REQUESTS_PER_S)
        self._socket = socket
        self._ledger = ledger
        self._clock = clock
        self._limit_bytes = queue_limit_bytes
        self._queue: deque[Frame] = deque()
        self._not_empty = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        self._stalled_until_s = 0.0

    def enqueue(self, frame: Frame) -> None:
        """Transform a frame and append it to the queue; a connection that closes or is muted takes no more frames."""
        if self._closing is not None or self._socket.muted:
            return
        frames: Iterable[Frame] = (frame,)
        for transform in self.transformers:
            frames = [changed for each in frames for changed in transform(each)]
        for each in frames:
            if (each.channel, each.symbol) in self.silenced:
                continue
            self._queue.append(each)
            self.queued_bytes += len(each.text)
            self.last_queued_s = self._clock.monotonic_s()
        self._not_empty.set()
        if self.queued_bytes > self._limit_bytes:
            self.close(CLOSE_POLICY_VIOLATION, "too slow")

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake; nothing more is sent."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(code, reason))

    async def _close(self, code: int, reason: str) -> None:
        """Close with a handshake, or cut the connection when the client does not read it in time."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._socket.close(code, reason)
        except TimeoutError:
            self.cut()

    def cut(self) -> None:
        """Abort the connection without a closing handshake: the client sees 1006."""
        self._socket.transport.abort()

    def mute(self) -> None:
        """Keep the connection open and send nothing any more: for the client it is half open."""
        self._socket.muted = True
        self._queue.clear()
        self.queued_bytes = 0

    @property
    def muted(self) -> bool:
        """Whether nothing is sent any more."""
        return self._socket.muted

    def make_deaf(self) -> None:
        """Send no more data on any subscription of this connection."""
        self.deaf = True
        self.silenced.update(self.streams)

    def stall(self, seconds: float) -> None:
        """Send nothing for this long, then everything that was queued meanwhile."""
        self._stalled_until_s = max(self._stalled_until_s, self._clock.monotonic_s() + seconds)

    async def send_queued(self) -> None:
        """Send what is queued until the client leaves or the connection is closed."""
        try:
            while self._closing is None:
                if not self._queue:
                    if self.close_when_sent:
                        self.close(CLOSE_TRY_AGAIN_LATER, "try again later")
                        return
                    self._not_empty.clear()
                    await self._not_empty.wait()
                    continue
                if (wait_s := self._stalled_until_s - self._clock.monotonic_s()) > 0:
                    await asyncio.sleep(wait_s)
                    continue
                frame = self._queue[0]
                # Before it is sent, because a client may read the ledger as soon as it has the frame.
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
