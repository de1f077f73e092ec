"""The Waitress server: its limits, its refusals as problem+json, and a stop that lets running requests finish.

What does not belong here: anything about a URL. Waitress reads requests in one thread and has whole ones answered, so
a slow sender holds a connection and nothing else.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, ThreadedTaskDispatcher

from btc_core.errors import ConfigError
from serving.problem_details import PROBLEM_TYPE, UNKNOWN_REQUEST, Problem, body_too_large, document

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Flask
    from waitress.parser import HTTPRequestParser

    from btc_core.clock import Clock
    from btc_core.settings import ApiSettings

CONNECTION_LIMIT = 500
"""Open sockets, ours included; further clients wait in the backlog. Each costs some 20 kB, and 1,024 is a common limit
of open files."""
CHANNEL_TIMEOUT_S = 30
"""A connection without traffic is closed after this; longer helps who opens connections and says nothing."""
MAX_HEADER_BYTES = 16_384
"""All headers of a request together; what browsers send is under 4,096."""
SMALL = frozenset({"GET", "HEAD"})
"""Methods whose request is its first line."""
QUICK_THREADS = 2
SLOW_S = 0.05
"""A hundred times what an answer takes."""
DRAIN_S = 10.0
"""Longest wait for running requests at a stop; a supervisor kills after its own, longer, time."""
DRAIN_CHECK_S = 0.02
SHOWN_CHARACTERS = 100
"""How much of Waitress's own words a refusal repeats."""

_log = logging.getLogger("serving")


class _ProblemTask(ErrorTask):  # type: ignore[misc]
    """What Waitress refuses by itself, answered in the form of every other error."""

    def execute(self) -> None:
        error = self.request.error
        status = HTTPStatus(error.code)
        if status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            problem = body_too_large(self.channel.server.adj.max_request_body_size - 1)
        elif status is HTTPStatus.INTERNAL_SERVER_ERROR:
            problem = Problem(
                status, "internal_error", "a fault of this server, not of the request; its log has the reason"
            )
        else:
            reason = str(error.body).splitlines()[0][:SHOWN_CHARACTERS] if error.body else error.reason
            problem = Problem(status, "bad_request", f"the request cannot be read ({reason}); send valid HTTP/1.1")
        body = document(problem, UNKNOWN_REQUEST)
        self.status = f"{status.value} {status.phrase}"
        self.response_headers.append(("Content-Type", PROBLEM_TYPE))
        self.response_headers.append(("X-Content-Type-Options", "nosniff"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Channel(HTTPChannel):  # type: ignore[misc]
    error_task_class = _ProblemTask

    def handle_read(self) -> None:
        super().handle_read()
        self.server.task_dispatcher.answer_here()


class _Server(TcpWSGIServer):  # type: ignore[misc]
    channel_class = _Channel


class _Timed:
    """A quick task that finds out whether its path is."""

    def __init__(self, channel: HTTPChannel, path: str, clock: Clock, slow: set[str]) -> None:
        self._channel, self._path, self._clock, self._slow = channel, path, clock, slow

    def service(self) -> None:
        began_s = self._clock.monotonic_s()
        self._channel.service()
        if self._clock.monotonic_s() - began_s > SLOW_S:
            self._slow.add(self._path)
        else:
            self._slow.discard(self._path)

    def cancel(self) -> None:
        self._channel.cancel()


class Dispatcher:
    """Who answers a request: the thread that read it, one of two that compute, or one of many that wait for a server.

    Python computes one thing at a time, and handing a request to a thread and its answer back costs more than the answer
    itself: what is in memory or one read of Redis away is answered by the thread that runs the server's loop. A path
    whose answer was slow, because Redis does not answer, is for threads until one of its answers is quick again: the
    loop waits for Redis once, and not with every request.
    """

    def __init__(self, waiting_threads: int, fast_paths: frozenset[str], clock: Clock) -> None:
        self._quick, self._waiting = ThreadedTaskDispatcher(), ThreadedTaskDispatcher()
        self._quick.set_thread_count(QUICK_THREADS)
        self._waiting.set_thread_count(waiting_threads)
        self._fast_paths = fast_paths
        self._clock = clock
        self._loop_thread = threading.get_ident()
        self._here: deque[_Timed] = deque()
        self._slow: set[str] = set()

    def add_task(self, channel: HTTPChannel) -> None:
        """Have the first request of a channel answered."""
        request = channel.requests[0]
        path = getattr(request, "path", "")  # one that cannot be read has none
        if path not in self._fast_paths:
            self._waiting.add_task(channel)
            return
        task = _Timed(channel, path, self._clock, self._slow)
        if self._may_be_here(channel, request):
            self._here.append(task)
        else:
            self._quick.add_task(task)

    def _may_be_here(self, channel: HTTPChannel, request: HTTPRequestParser) -> bool:
        """Not a body of features, which may be large; nor what would wait for a client that does not read."""
        return (
            request.command in SMALL
            and request.path not in self._slow
            and not channel.total_outbufs_len
            and threading.get_ident() == self._loop_thread
        )

    def answer_here(self) -> None:
        """Answer what is left to the loop's own thread, which calls this once it holds no lock of a channel."""
        while self._here:
            self._here.popleft().service()

    def shutdown(self, cancel_pending: bool = True, timeout: int = 5) -> bool:  # noqa: FBT001, FBT002 - Waitress's words
        """End the threads."""
        return bool(self._quick.shutdown(cancel_pending, timeout)) | bool(
            self._waiting.shutdown(cancel_pending, timeout)
        )


class Drain:
    """Stops a server on a signal: no new connections, then an end when nothing runs or `DRAIN_S` is over.

    Everything happens in signal handlers of the main thread, the thread that also runs the server's loop.
    """

    def __init__(self, server: Any, clock: Clock, stopping: Callable[[], None]) -> None:
        self._server = server
        self._clock = clock
        self._stopping = stopping
        self._deadline_s: float | None = None

    def begin(self, _signal: int, _frame: object) -> None:
        """Close the listening socket and start waiting; a second signal ends the wait."""
        if self._deadline_s is not None:
            raise SystemExit(0)
        self._deadline_s = self._clock.monotonic_s() + DRAIN_S
        wasyncore.dispatcher.close(self._server)
        self._stopping()
        signal.signal(signal.SIGALRM, self._check)
        signal.setitimer(signal.ITIMER_REAL, DRAIN_CHECK_S, DRAIN_CHECK_S)

    def _check(self, _signal: int, _frame: object) -> None:
        channels = tuple(self._server.active_channels.values())
        is_busy = any(channel.requests or channel.total_outbufs_len for channel in channels)
        if self._deadline_s is None or (is_busy and self._clock.monotonic_s() < self._deadline_s):
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise SystemExit(0)


def serve(
    app: Flask, settings: ApiSettings, clock: Clock, *, fast_paths: frozenset[str], end_streams: Callable[[], None]
) -> None:
    """Serve until SIGTERM or SIGINT; returns when the running requests are answered.

    `end_streams` is called first, in a signal handler: it ends what would go on for ever.

    Raises `ConfigError` when the address cannot be had.
    """
    try:
        # a stream holds its thread
        server = _Server(
            app,
            dispatcher=Dispatcher(settings.threads + settings.max_streams, fast_paths, clock),
            adj=_adjustments(settings),
        )
    except OSError as error:
        msg = (
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; "
            "stop what uses it, or set BTC_API_HOST and BTC_API_PORT"
        )
        raise ConfigError(msg) from error
    drain = Drain(server, clock, end_streams)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, drain.begin)
    _log.info("listening on http://%s:%s", server.effective_host, server.effective_port)
    server.run()
    _log.info("stopped")


def _adjustments(settings: ApiSettings) -> Adjustments:
    return Adjustments(
        host=settings.host,
        port=settings.port,
        connection_limit=CONNECTION_LIMIT,
        channel_timeout=CHANNEL_TIMEOUT_S,
        max_request_body_size=settings.max_body_bytes + 1,  # Waitress refuses from here on, Flask beyond its limit
        max_request_header_size=MAX_HEADER_BYTES,
        asyncore_use_poll=True,  # select() ends at descriptor 1,024
        clear_untrusted_proxy_headers=True,
        expose_tracebacks=False,
        ident="",
    )
