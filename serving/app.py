"""The Flask application: routes, errors, request ids, security headers, one log line a request.

What does not belong here: the process (`__main__`), the sockets (`server`), and any single URL (`routes`).
"""

from __future__ import annotations

import logging
import re
import uuid
from functools import partial
from typing import TYPE_CHECKING

from flask import Flask, Response, g, request

from serving import problem_details
from serving.deps import EXTENSION
from serving.event_stream import Feed, render
from serving.legacy import routes as legacy
from serving.metrics import count
from serving.rate_limit import RateLimit
from serving.routes import control, documents, live, state, stream, v1

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from btc_core.clock import Clock
    from serving.deps import Deps

BLUEPRINTS = (
    legacy.blueprint,
    v1.blueprint,
    stream.blueprint,
    control.blueprint,
    state.blueprint,
    live.blueprint,
    documents.blueprint,
)
UNLIMITED = frozenset({"/healthz", "/readyz", "/metrics"})
"""Paths a supervisor asks: refusing them would look like a fault of the API."""

SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Of every answer; a page that needs more sets its own policy, which stays."""
_SECURITY = list(SECURITY_HEADERS.items())

LOGGED_PATH_CHARACTERS = 200
"""A path is the client's text: bounded in the log. Queries, headers and bodies are never logged."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_access = logging.getLogger("serving.access")


def create_app(deps: Deps) -> Flask:
    """The application over the given dependencies; nothing is started and nobody is asked yet."""
    app = Flask("serving", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = deps.settings.api.max_body_bytes
    app.extensions[EXTENSION] = deps
    problem_details.install(app, deps.settings.api.max_body_bytes)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
    limit = RateLimit(deps.settings.api.rate_limit_per_s, deps.clock)

    def admit() -> None:
        if request.path not in UNLIMITED:
            limit.take(request.remote_addr or "")

    app.before_request(partial(_begin, deps.clock))
    app.before_request(admit)
    app.after_request(partial(_finish, deps.clock))
    app.wsgi_app = partial(_with_security_headers, app.wsgi_app)  # type: ignore[method-assign]
    return app


def _with_security_headers(
    inner: WSGIApplication, environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    """Add what the answer has not set itself, past the checks that headers of unknown origin need."""

    def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Callable[[bytes], object]:
        own = {name for name, _ in headers}
        return start_response(status, headers + [each for each in _SECURITY if each[0] not in own], *more)

    return inner(environ, start)


def new_feed(app: Flask, deps: Deps, announced: Callable[[float], bool]) -> Feed:
    """The source of the app's streams; whoever runs the process starts and stops it."""
    feed = Feed(partial(render, deps), announced, deps.settings.api.stream_interval_ms / 1_000)
    app.extensions[stream.FEED] = feed
    return feed


def _begin(clock: Clock) -> None:
    """Name the request; a client's own id is kept when it is harmless."""
    asked = request.headers.get("X-Request-ID", "")
    g.request_id = asked if _REQUEST_ID.fullmatch(asked) else uuid.uuid4().hex
    g.started_s = clock.monotonic_s()


def _finish(clock: Clock, response: Response) -> Response:
    response.headers["X-Request-ID"] = g.request_id
    took_s = clock.monotonic_s() - g.started_s
    count(response.status_code, took_s)
    _access.info(
        "request",
        extra={
            "fields": {
                "request_id": g.request_id,
                "client": request.remote_addr,
                "method": request.method,
                "path": request.path[:LOGGED_PATH_CHARACTERS],
                "status": response.status_code,
                "code": g.get("problem_code"),
                "bytes": response.content_length,
                "duration_ms": round(took_s * 1_000, 3),
            }
        },
    )
    return response
