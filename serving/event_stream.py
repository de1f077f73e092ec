"""Server-sent events: one thread renders what is new, every open stream sends the same bytes.

A stream that cannot keep up skips events instead of queueing them: each event is a whole picture.
What does not belong here: HTTP (`routes.stream`).
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING

from btc_core.errors import BtcError
from btc_core.metrics import HTTP_STREAMS
from serving.answers import encoded
from serving.live_forecast import live_features, live_forecast
from serving.problem_details import Problem, as_problem, document
from serving.readiness import readiness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from serving.deps import Deps

HEARTBEAT_S = 10.0
"""A comment is sent after this much silence, so that proxies keep the connection and a dead client is noticed."""
RETRY_MS = 1_000
"""How long a browser waits before it connects again."""

_log = logging.getLogger("serving")


class Feed:
    """Holds the newest event of each symbol; renders only while somebody listens."""

    def __init__(self, render: Callable[[str], bytes], announced: Callable[[float], bool], interval_s: float) -> None:
        self._render = render
        self._announced = announced
        self._interval_s = interval_s
        self._changed = threading.Condition()
        self._events: dict[str, tuple[int, bytes]] = {}
        self._listeners: dict[str, int] = {}
        self._number = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def listeners(self) -> int:
        """Open streams."""
        return sum(self._listeners.values())

    def start(self) -> None:
        """Render in the background until `stop`."""
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End every stream and the thread."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()

    def open(self, symbol: str, most: int) -> Callable[[], None]:
        """Count a listener in; returns what counts it out, which may be called twice. 503 beyond `most` listeners."""
        with self._changed:
            if self.listeners >= most:
                raise Problem(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    "too_many_streams",
                    f"{most} streams are open already (BTC_API_MAX_STREAMS); ask again later, or poll /v1/forecast",
                    headers={"Retry-After": "5"},
                )
            self._listeners[symbol] = self._listeners.get(symbol, 0) + 1
            HTTP_STREAMS.labels(symbol).set(self._listeners[symbol])
            if self._listeners[symbol] == 1:
                self._events.pop(symbol, None)  # from before the last listener left
            self._changed.notify_all()
        left = threading.Event()

        def close() -> None:
            if not left.is_set():
                left.set()
                with self._changed:
                    self._listeners[symbol] -= 1
                    HTTP_STREAMS.labels(symbol).set(self._listeners[symbol])

        return close

    def events(self, symbol: str, most: int | None = None) -> Iterator[bytes]:
        """Bytes to send: each new event as it comes, `most` of them or until `stop`."""
        sent, seen = 0, -1
        yield f"retry: {RETRY_MS}\n\n".encode()
        while not self._stop.is_set() and (most is None or sent < most):
            number, event = self._after(symbol, seen)
            if number > seen:
                seen, sent = number, sent + 1
                yield event
            elif not self._stop.is_set():
                yield b": alive\n\n"

    def _after(self, symbol: str, seen: int) -> tuple[int, bytes]:
        """The newest event beyond `seen`; after `HEARTBEAT_S` or a stop possibly the one already seen."""

        def newest() -> tuple[int, bytes]:
            return self._events.get(symbol, (seen, b""))

        with self._changed:
            self._changed.wait_for(lambda: self._stop.is_set() or newest()[0] > seen, HEARTBEAT_S)
            return newest()

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._stop.is_set() or self.listeners > 0)
            try:
                self.tick()
            except Exception:  # noqa: BLE001 the outermost loop of this thread: it must outlive anything
                _log.exception("an event could not be rendered")
            # A second without news is news too: ages grow and the page must say so.
            if not self._stop.wait(self._interval_s):
                self._announced(1.0)

    def tick(self) -> None:
        """Render each symbol somebody listens to and wake its streams."""
        for symbol in [symbol for symbol, count in list(self._listeners.items()) if count > 0]:
            body = self._render(symbol)
            with self._changed:
                self._number += 1
                self._events[symbol] = (self._number, f"id: {self._number}\n".encode() + body)
                self._changed.notify_all()


def render(deps: Deps, symbol: str) -> bytes:
    """The events `forecast` (or `problem`), `features` and `health`: the bodies of the endpoints, in one piece."""
    parts = []
    try:
        parts.append(_event("forecast", encoded(live_forecast(deps, symbol))))
    except BtcError as error:
        parts.append(_event("problem", document(as_problem(error), "stream")))
    with suppress(BtcError):  # the forecast's problem says it already
        parts.append(_event("features", encoded(live_features(deps, symbol))))
    parts.append(_event("health", encoded(readiness(deps))))
    return b"".join(parts)


def _event(name: str, data: bytes) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
