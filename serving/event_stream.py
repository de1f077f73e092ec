"""The events of `/v1/stream`: one thread makes each event once, and sends the same bytes to every open stream.

Each event has the whole state, so a stream that cannot keep up skips events instead of queueing them. What does not
belong here: HTTP (`routes.stream`), and how a connection leaves the server (`server`).
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING

from btc_core.errors import BtcError
from btc_core.metrics import HTTP_STREAMS
from serving.answers import encoded
from serving.live_features import live_features
from serving.live_forecast import live_forecast
from serving.problem_details import Problem, document, problem_of
from serving.readiness import readiness

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from serving.deps import Deps
    from serving.encryption import EncryptedSocket

HEARTBEAT_S = 10.0
"""A comment is sent after this much silence. It keeps proxies from closing the connection and shows a client is gone."""
RETRY_MS = 1_000
"""How long a browser waits before it connects again."""
QUIET_S = 1.0
"""An event is made after this time even if there is no new forecast, because ages grow and the page must show it."""
UNREAD_S = 30.0
"""A stream whose socket has taken nothing for this long is closed."""
ALIVE = b": alive\n\n"
"""What a client ignores; it shows that the connection is still there."""
LAST_CHUNK = b"0\r\n\r\n"
FIRST_LINE = f"retry: {RETRY_MS}\n\n".encode()

_logger = logging.getLogger("serving")


class _Connection:
    """A connection that the server has handed over: whatever its socket does not take at once waits here."""

    def __init__(
        self,
        taken: socket.socket | EncryptedSocket,
        unsent: bytes,
        *,
        is_chunked: bool,
        events_left: int | None,
        close: Callable[[], None],
    ) -> None:
        self._socket, self._unsent, self.is_chunked = taken, unsent, is_chunked
        self._events_left = events_left
        self._count_out = close
        self._sent_s = time.monotonic()

    def send(self, event: bytes, *, counts: bool = True) -> bool:
        """Send an event, unless an earlier one is still waiting; false once the connection has ended.

        One that does not count is a comment, which the client ignores.
        """
        try:
            if self._flush() and event and self._events_left != 0:
                self._unsent = event
                if counts and self._events_left is not None:
                    self._events_left -= 1
                    self._unsent += LAST_CHUNK if self.is_chunked and not self._events_left else b""
                self._flush()
        except OSError:  # the client is gone
            return False
        if self._unsent:
            return time.monotonic() - self._sent_s < UNREAD_S
        return self._events_left != 0

    def _flush(self) -> bool:
        """Send what waits; whether nothing is left of it."""
        with suppress(BlockingIOError):
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
                self._sent_s = time.monotonic()
        return not self._unsent

    def end(self) -> None:
        """Close the connection, with the end of its answer if the client can still read it."""
        with suppress(OSError):
            if self.is_chunked and not self._unsent and self._events_left != 0:
                self._socket.send(LAST_CHUNK)
        self._socket.close()
        self._count_out()


class EventBroadcaster:
    """Keeps the newest event of each market; makes events only while a stream is open."""

    def __init__(
        self, render: Callable[[str], bytes], wait_for_forecast: Callable[[float], bool], interval_s: float
    ) -> None:
        self._render = render
        self._wait_for_forecast = wait_for_forecast
        self._interval_s = interval_s
        self._changed = threading.Condition()
        self._events: dict[str, tuple[int, bytes]] = {}
        self._streams: dict[str, int] = {}
        self._connections: dict[str, list[_Connection]] = {}
        self._number = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def stream_count(self) -> int:
        """Number of open streams."""
        return sum(self._streams.values())

    def start(self) -> None:
        """Make events in a thread until `stop`."""
        self._thread = threading.Thread(target=self._run, name="event-stream", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End every stream and the thread."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
            ended = [each for connections in self._connections.values() for each in connections]
            self._connections.clear()
        for each in ended:
            each.end()

    def open(self, symbol: str, max_streams: int) -> Callable[[], None]:
        """Count a new stream; raises a 503 if there are `max_streams` already.

        Returns a function that counts the stream out. It may be called twice.
        """
        with self._changed:
            if self.stream_count >= max_streams:
                raise Problem(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    "too_many_streams",
                    f"{max_streams} streams are open already (BTC_API_MAX_STREAMS); ask again later, or poll "
                    "/v1/forecast",
                    headers={"Retry-After": "5"},
                )
            self._streams[symbol] = self._streams.get(symbol, 0) + 1
            HTTP_STREAMS.labels(symbol).set(self._streams[symbol])
            if self._streams[symbol] == 1:
                self._events.pop(symbol, None)  # it is from before the last stream was closed
            self._changed.notify_all()
        is_closed = threading.Event()

        def close() -> None:
            if not is_closed.is_set():
                is_closed.set()
                with self._changed:
                    self._streams[symbol] -= 1
                    HTTP_STREAMS.labels(symbol).set(self._streams[symbol])

        return close

    def take(  # noqa: PLR0913 - what `open` and the server know about a connection
        self,
        symbol: str,
        max_events: int | None,
        close: Callable[[], None],
        taken: socket.socket | EncryptedSocket | None,
        unsent: bytes,
        *,
        is_chunked: bool,
    ) -> None:
        """Send events on the socket of an opened stream from now on; the newest one at once.

        `unsent` is the beginning of the answer, which the server has not sent. The socket does not block. It is None if the
        client is gone already.
        """
        if taken is None:
            close()
            return
        connection = _Connection(taken, unsent, is_chunked=is_chunked, events_left=max_events, close=close)
        with self._changed:
            is_open = not self._stop.is_set() and connection.send(self._framed(symbol, connection))
            if is_open:
                self._connections.setdefault(symbol, []).append(connection)
        if not is_open:
            connection.end()

    def _framed(self, symbol: str, connection: _Connection) -> bytes:
        """The newest event as a connection sends it; what the client ignores if there is none yet."""
        _, event = self._events.get(symbol, (0, b""))
        return _chunk(event) if connection.is_chunked and event else event

    def events(self, symbol: str, max_events: int | None = None) -> Iterator[bytes]:
        """The bytes of a stream on a server that hands no connection over, until there were `max_events` or `stop` is called."""
        sent, last_number = 0, -1
        yield FIRST_LINE
        while not self._stop.is_set() and (max_events is None or sent < max_events):
            number, event = self._next_event(symbol, last_number)
            if number > last_number:
                last_number, sent = number, sent + 1
                yield event
            elif not self._stop.is_set():
                yield ALIVE

    def _next_event(self, symbol: str, last_number: int) -> tuple[int, bytes]:
        """The newest event after `last_number`; after `HEARTBEAT_S` or `stop` it may have that number."""

        def newest() -> tuple[int, bytes]:
            return self._events.get(symbol, (last_number, b""))

        with self._changed:
            self._changed.wait_for(lambda: self._stop.is_set() or newest()[0] > last_number, HEARTBEAT_S)
            return newest()

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._stop.is_set() or self.stream_count > 0)
            self._make_events()
            try:
                if not self._stop.wait(self._interval_s):
                    self._wait_for_forecast(QUIET_S)
            except Exception:
                _logger.exception("events are made once a second, because new forecasts are not announced")
                self._stop.wait(QUIET_S)

    def _make_events(self) -> None:
        """Make an event for each market that has a stream, and wake its streams."""
        for symbol in [symbol for symbol, count in list(self._streams.items()) if count > 0]:
            try:
                body = self._render(symbol)
            except Exception:
                _logger.exception("the event of %s could not be made", symbol)
                with self._changed:
                    ended = self._send(symbol, ALIVE, counts=False)
            else:
                with self._changed:
                    self._number += 1
                    event = f"id: {self._number}\n".encode() + body
                    self._events[symbol] = (self._number, event)
                    self._changed.notify_all()
                    ended = self._send(symbol, event)
            for each in ended:
                each.end()

    def _send(self, symbol: str, event: bytes, *, counts: bool = True) -> list[_Connection]:
        """Send an event on the connections of a market; returns those that have ended. The caller holds the lock."""
        connections = self._connections.get(symbol, [])
        chunk = _chunk(event)
        ended = [each for each in connections if not each.send(chunk if each.is_chunked else event, counts=counts)]
        if ended:
            self._connections[symbol] = [each for each in connections if each not in ended]
        return ended


def render_events(deps: Deps, symbol: str) -> bytes:
    """The events `forecast` (or `problem`), `features` and `health`, which have the bodies of the endpoints."""
    events = []
    try:
        events.append(_event("forecast", encoded(live_forecast(deps, symbol))))
    except BtcError as error:
        events.append(_event("problem", document(problem_of(error), "stream")))
    with suppress(BtcError):  # the problem of the forecast says the same
        events.append(_event("features", encoded(live_features(deps, symbol))))
    events.append(_event("health", encoded(readiness(deps))))
    return b"".join(events)


def _chunk(data: bytes) -> bytes:
    """Bytes as a chunk of an HTTP answer without a length."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event(name: str, data: bytes) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
