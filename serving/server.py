"""Runs the application on Waitress: its limits, the threads that answer, its own errors, and stopping without losing answers.

Waitress reads requests in one thread and passes on only complete ones, so a slow sender holds a connection but no thread.
What does not belong here: anything about a single path.
"""

from __future__ import annotations

import logging
import re
import signal
import threading
from collections import deque
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, ThreadedTaskDispatcher, WSGITask

from btc_core.clock import NS_PER_S
from btc_core.errors import ConfigError
from serving.encryption import Encryption, Incomplete
from serving.problem_details import PROBLEM_TYPE, UNKNOWN_REQUEST, Problem, body_too_large, document

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from flask import Flask
    from waitress.parser import HTTPRequestParser

    from btc_core.api_settings import ApiSettings
    from btc_core.clock import Clock
    from serving.encryption import EncryptedSocket

CONNECTION_LIMIT = 500
"""Open sockets, with those of the server itself and without those of event streams; further clients wait in the backlog. Each
costs about 20 kB."""
CHANNEL_TIMEOUT_S = 30
"""A connection without traffic is closed after this time. A longer one helps clients that open connections and send nothing."""
MAX_HEADER_BYTES = 16_384
"""All headers of a request together. Browsers send less than 4,096."""
UNREAD_BYTES = 1_000_000
"""Bytes of an answer that wait for a client; a thread that has more to send waits until the client has read some."""
BODILESS_METHODS = frozenset({"GET", "HEAD"})
FAST_THREADS = 2
SLOW_S = 0.05
"""An answer that takes longer is slow. A fast one takes less than a hundredth of this."""
POLL_S = 1.0
"""Longest time between two looks at connections that have been idle for too long."""
DRAIN_S = 10.0
"""Longest wait for running requests when the process stops. A supervisor waits longer before it kills the process."""
DRAIN_POLL_S = 0.02
HAND_OVER = "btc.hand_over"
"""The name in the WSGI environment of a function. A view that calls it with `take` begins an answer without a length, whose
connection leaves the server: `take(socket, unsent bytes, is_chunked=…)` is called then and sends the rest. The socket is None
if the client is gone."""
SHOWN_CHARACTERS = 100
"""How much of Waitress's own message an error repeats."""

_logger = logging.getLogger("serving")


class _ProblemTask(ErrorTask):  # type: ignore[misc]
    """Answers a request that Waitress refuses with a problem document, as the application does with every other error."""

    def execute(self) -> None:
        error = self.request.error
        status = HTTPStatus(error.code)
        if status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            problem = body_too_large(self.channel.server.adj.max_request_body_size - 1)
        elif status is HTTPStatus.INTERNAL_SERVER_ERROR:
            problem = Problem(
                status, "internal_error", "an error in this server, not in the request; the server's log has the cause"
            )
        else:
            reason = _without_content(str(error.body)) if error.body else error.reason
            problem = Problem(status, "bad_request", f"the request cannot be read ({reason}); send valid HTTP/1.1")
        body = document(problem, UNKNOWN_REQUEST)
        self.status = f"{status.value} {status.phrase}"
        self.response_headers.append(("Content-Type", PROBLEM_TYPE))
        self.response_headers.append(("X-Content-Type-Options", "nosniff"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


def _without_content(message: str) -> str:
    """What Waitress says about a request, without what it quotes of it, which may be a token."""
    return re.split(r"""["':\r\n]""", message, maxsplit=1)[0].strip()[:SHOWN_CHARACTERS]


class _Task(WSGITask):  # type: ignore[misc]
    """Answers a request, or begins the answer of a connection that is handed over."""

    def get_environment(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environment()
        environ[HAND_OVER] = self._hand_over
        return environ

    def _hand_over(self, take: Callable[..., None]) -> None:
        self.channel.take = take

    def finish(self) -> None:
        if self.channel.take is None or not self.status.startswith("200"):
            super().finish()
        else:
            self.channel.is_chunked, self.channel.is_leaving = self.chunked_response, True


class _Channel(HTTPChannel):  # type: ignore[misc]
    """A connection whose refusals are problem documents, and that can leave the server. Waitress has no setting for either."""

    task_class = _Task
    error_task_class = _ProblemTask
    take: Callable[..., None] | None = None
    is_chunked = False
    is_leaving = False
    connected: bool

    def readable(self) -> bool:
        return self.take is None and bool(super().readable())

    def writable(self) -> bool:
        return self.take is None and bool(super().writable())

    def handle_read(self) -> None:
        with suppress(Incomplete):
            super().handle_read()

    def service(self) -> None:
        super().service()
        if self.take is not None and self.is_leaving:
            self.server.trigger.pull_trigger(self._leave)
        elif self.take is not None:  # the answer became an error after the stream was opened; Waitress has sent it
            take, self.take = self.take, None
            take(None, b"", is_chunked=False)
            self.server.pull_trigger()

    def _leave(self) -> None:
        """Forget the connection, and pass on its socket with what has not been sent. The reading thread calls this."""
        take, self.take = self.take, None
        if take is None:
            return
        if not self.connected:
            take(None, b"", is_chunked=self.is_chunked)
            return
        unsent = b"".join(buffer.get() for buffer in self.outbufs)
        self.del_channel()
        self.connected = False
        take(self.socket, unsent, is_chunked=self.is_chunked)


class _Server(TcpWSGIServer):  # type: ignore[misc]
    """A listening socket whose connections are encrypted if the settings have a certificate."""

    channel_class = _Channel
    encryption: Encryption | None = None

    def accept(self) -> tuple[socket.socket | EncryptedSocket, Any] | None:
        accepted = super().accept()
        if accepted is None or self.encryption is None:
            return accepted  # type: ignore[no-any-return]
        connection, address = accepted
        return self.encryption.encrypted(connection), address


class _TimedTask:
    """Answers a request to a fast path and notes whether that was slow."""

    def __init__(self, channel: HTTPChannel, path: str, clock: Clock, slow_paths: set[str]) -> None:
        self._channel, self._path, self._clock, self._slow_paths = channel, path, clock, slow_paths

    def service(self) -> None:
        started_s = self._clock.monotonic_s()
        self._channel.service()
        if self._clock.monotonic_s() - started_s > SLOW_S:
            self._slow_paths.add(self._path)
        else:
            self._slow_paths.discard(self._path)

    def cancel(self) -> None:
        self._channel.cancel()


class Dispatcher:
    """Decides which thread answers a request: the one that reads requests, one of two that compute, or one that may wait.

    Python computes in one thread at a time, and passing a request to another thread and its answer back costs more than a
    fast answer, which needs no more than memory and one read of Redis. The thread that reads requests therefore answers
    those itself. A path whose answer was slow, because Redis does not respond, is left to other threads until one of its
    answers is fast again, so that the reading thread waits for Redis once and not for every request.

    Waitress calls `add_task` and `shutdown` as it would those of its own `ThreadedTaskDispatcher`.
    """

    def __init__(self, waiting_threads: int, fast_paths: frozenset[str], clock: Clock) -> None:
        self._fast, self._waiting = ThreadedTaskDispatcher(), ThreadedTaskDispatcher()
        self._fast.set_thread_count(FAST_THREADS)
        self._waiting.set_thread_count(waiting_threads)
        self._fast_paths = fast_paths
        self._clock = clock
        self._reading_thread = threading.get_ident()
        self._queue: deque[_TimedTask] = deque()
        self._slow_paths: set[str] = set()

    def add_task(self, channel: HTTPChannel) -> None:
        """Have the first request of a connection answered. The caller holds locks of the connection."""
        request = channel.requests[0]
        path = getattr(request, "path", "")  # a request that cannot be read has none
        if path not in self._fast_paths:
            self._waiting.add_task(channel)
            return
        task = _TimedTask(channel, path, self._clock, self._slow_paths)
        if self._is_for_reading_thread(channel, request):
            self._queue.append(task)
        else:
            self._fast.add_task(task)

    def _is_for_reading_thread(self, channel: HTTPChannel, request: HTTPRequestParser) -> bool:
        """Not for a request with a body, which may be large, nor for a client that does not read its earlier answers."""
        return (
            request.command in BODILESS_METHODS
            and request.path not in self._slow_paths
            and not channel.total_outbufs_len
            and threading.get_ident() == self._reading_thread
        )

    def answer_queued(self) -> None:
        """Answer the requests that are left to the reading thread, which calls this when it holds no lock."""
        while self._queue:
            task = self._queue.popleft()
            try:
                task.service()
            except Exception:
                _logger.exception("a request could not be answered")
                task.cancel()

    def shutdown(self, cancel_pending: bool = True, timeout: int = 5) -> bool:  # noqa: FBT001, FBT002 - Waitress calls it so
        """End the threads."""
        return bool(self._fast.shutdown(cancel_pending, timeout)) | bool(
            self._waiting.shutdown(cancel_pending, timeout)
        )


class _StopSignals:
    """Counts SIGTERM and SIGINT: the first one ends the server when running requests are answered, the second at once."""

    def __init__(self, wake: Callable[[], object]) -> None:
        self.count = 0
        self._wake = wake
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def _handle(self, _signal: int, _frame: object) -> None:
        self.count += 1
        self._wake()


def serve(
    app: Flask, settings: ApiSettings, clock: Clock, *, fast_paths: frozenset[str], end_streams: Callable[[], None]
) -> None:
    """Serve until SIGTERM or SIGINT; returns when running requests are answered, or after `DRAIN_S`.

    `end_streams` ends the answers that would otherwise never end. Raises `ConfigError` if the address is not available.
    """
    threads = settings.threads + settings.max_exports  # each of these holds a thread
    as_requested = fast_paths | {settings.base_path + path for path in fast_paths}
    dispatcher = Dispatcher(threads, as_requested, clock)
    sockets: dict[int, Any] = {}
    encryption = Encryption(settings) if settings.cert_file else None
    try:
        server = _Server(app, map=sockets, dispatcher=dispatcher, adj=_adjustments(settings))
    except OSError as error:
        msg = (
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; "
            "stop what uses it, or set BTC_API_HOST and BTC_API_PORT"
        )
        raise ConfigError(msg) from error
    server.encryption = encryption
    signals = _StopSignals(server.pull_trigger)
    _logger.info("listening on %s://%s:%s", server.adj.url_scheme, server.effective_host, server.effective_port)
    looked_s = clock.monotonic_s()
    while not signals.count:
        _handle_ready(sockets, dispatcher, POLL_S)
        if clock.monotonic_s() - looked_s > POLL_S:
            looked_s = clock.monotonic_s()
            _close_unread(server, clock)
            if server.encryption:
                server.encryption.renew()
    wasyncore.dispatcher.close(
        server
    )  # the listening socket alone: server.close() would also take the threads' trigger
    end_streams()
    deadline_s = clock.monotonic_s() + DRAIN_S
    while _is_busy(server) and signals.count < 2 and clock.monotonic_s() < deadline_s:
        _handle_ready(sockets, dispatcher, DRAIN_POLL_S)
    dispatcher.shutdown()
    _logger.info("stopped")


def _handle_ready(sockets: dict[int, Any], dispatcher: Dispatcher, timeout_s: float) -> None:
    """Read from and write to the sockets that are ready, then answer what this thread is to answer.

    This is one iteration of Waitress's `server.run()`, whose loop leaves no room for the second step.
    """
    wasyncore.loop(timeout=timeout_s, use_poll=True, map=sockets, count=1)  # select() ends at descriptor 1,024
    dispatcher.answer_queued()


def _close_unread(server: _Server, clock: Clock) -> None:
    """Close the connections of clients that have read nothing of their answer for `CHANNEL_TIMEOUT_S`.

    Waitress closes idle connections but waits forever for such a client, whose answer would hold a thread.
    """
    oldest_s = clock.now_ns() / NS_PER_S - CHANNEL_TIMEOUT_S
    for channel in list(server.active_channels.values()):
        if channel.total_outbufs_len and channel.last_activity < oldest_s:
            channel.handle_close()


def _is_busy(server: _Server) -> bool:
    """Whether a request is being answered or a client has not read its whole answer yet."""
    return any(channel.requests or channel.total_outbufs_len for channel in server.active_channels.values())


def _adjustments(settings: ApiSettings) -> Adjustments:
    return Adjustments(
        host=settings.host,
        port=settings.port,
        connection_limit=CONNECTION_LIMIT,
        channel_timeout=CHANNEL_TIMEOUT_S,
        max_request_body_size=settings.max_body_bytes + 1,  # Waitress refuses this size, Flask what is over its limit
        max_request_header_size=MAX_HEADER_BYTES,
        outbuf_high_watermark=UNREAD_BYTES,
        outbuf_overflow=2 * UNREAD_BYTES,  # more would be written to a temporary file
        url_prefix=settings.base_path,
        url_scheme="https" if settings.cert_file else "http",
        clear_untrusted_proxy_headers=False,  # the application removes them (`serving.proxies`): Waitress knows one proxy
        ident="",
    )
