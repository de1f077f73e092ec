"""The Flask application: routes, errors, request ids, security headers, and one log line for each request.

What does not belong here: the process (`__main__`), the sockets (`server`), and any single path (`routes`, `legacy`).
"""

from __future__ import annotations

import logging
import re
import uuid
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

from flask import Flask, Response, g, request

from btc_core.errors import ConfigError
from serving import auth, compression, cors, problem_details
from serving.deps import EXTENSION
from serving.doctor import Doctor
from serving.endpoints import SHOWN_CHARACTERS, endpoint_of
from serving.event_stream import EventBroadcaster, render_events
from serving.legacy import routes as legacy
from serving.metrics import count_request
from serving.operations import OperationsWatch
from serving.problem_details import Problem
from serving.proxies import TrustedProxies
from serving.rate_limit import RateLimit
from serving.routes import control, data, documents, live, operations, proofs, state, stream, v1

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from btc_core.clock import Clock
    from serving.deps import Deps

BLUEPRINTS = (
    legacy.blueprint,
    v1.blueprint,
    data.blueprint,
    proofs.blueprint,
    stream.blueprint,
    control.blueprint,
    state.blueprint,
    operations.blueprint,
    live.blueprint,
    documents.blueprint,
)
UNLIMITED = auth.OPEN
"""Paths without a rate limit: a supervisor that is refused would take it for a failure of the API."""

SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Headers of every answer. A page that needs another policy sets its own, which is kept."""
_SECURITY_HEADERS = list(SECURITY_HEADERS.items())

LOGGED_PATH_CHARACTERS = 200
"""How much of a path is logged, since clients choose it. Queries, headers and bodies are never logged."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_access_logger = logging.getLogger("serving.access")


def create_app(deps: Deps) -> Flask:
    """The application with the given dependencies. It starts nothing and connects to nothing yet.

    Raises `ConfigError` if the base path hides a path of the API.
    """
    app = Flask("serving", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = deps.settings.api.max_body_bytes
    app.extensions[EXTENSION] = deps
    app.extensions[operations.EXTENSION] = OperationsWatch(deps)
    app.extensions[operations.DOCTOR] = Doctor(deps.settings, deps.clock)
    problem_details.install(app, deps.settings.api.max_body_bytes)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
    _check_base_path(app, deps.settings.api.base_path)
    app.before_request(partial(_start_request, deps.clock))
    if deps.settings.api.rate_limit_per_s > 0:
        limit = RateLimit(deps.settings.api.rate_limit_per_s, deps.clock)
        app.before_request(partial(_check_rate, limit))
    cors.install(app, deps.settings.api.cors_origins)
    auth.install(app)
    app.before_request(partial(_check_content_encoding, app))
    app.after_request(partial(_finish_request, deps.clock))
    app.after_request(compression.compress)  # Flask calls the function that was registered last first
    believing = TrustedProxies(app.wsgi_app, deps.settings.api.trusted_proxies)
    app.wsgi_app = partial(_with_security_headers, believing)  # type: ignore[method-assign]
    return app


def _check_base_path(app: Flask, base_path: str) -> None:
    """Refuse a base path that is the beginning of a path of the API, which nobody could reach without the proxy any more."""
    hidden = [rule.rule for rule in app.url_map.iter_rules() if f"{rule.rule}/".startswith(f"{base_path}/")]
    if base_path and hidden:
        msg = f"BTC_API_BASE_PATH is {base_path}, where the API has {hidden[0]}; choose another path, such as /btc"
        raise ConfigError(msg)


def new_broadcaster(app: Flask, deps: Deps, wait_for_forecast: Callable[[float], bool]) -> EventBroadcaster:
    """The source of the application's event streams. The caller starts and stops it."""
    interval_s = deps.settings.api.stream_interval_ms / 1_000
    broadcaster = EventBroadcaster(partial(render_events, deps), wait_for_forecast, interval_s)
    app.extensions[stream.EXTENSION] = broadcaster
    return broadcaster


def _with_security_headers(
    inner: WSGIApplication, environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    """Add the security headers that an answer does not set itself. Flask would validate them again for each answer."""

    def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Callable[[bytes], object]:
        own = {name for name, _ in headers}
        return start_response(status, headers + [each for each in _SECURITY_HEADERS if each[0] not in own], *more)

    return inner(environ, start)


def _start_request(clock: Clock) -> None:
    """Give the request an id: the client's own if it is harmless."""
    wanted = request.headers.get("X-Request-ID", "")
    g.request_id = wanted if _REQUEST_ID.fullmatch(wanted) else uuid.uuid4().hex
    g.started_s = clock.monotonic_s()


def _check_rate(limit: RateLimit) -> None:
    if request.path not in UNLIMITED:
        limit.check(request.remote_addr or "")


def _check_content_encoding(app: Flask) -> None:
    """Refuse a body that is compressed or otherwise encoded, on the paths that read one; nothing here decodes it."""
    encoding = request.headers.get("Content-Encoding", "").strip()
    if encoding.lower() in ("", "identity") or request.endpoint is None:
        return
    endpoint = endpoint_of(app, request.endpoint)
    if endpoint is not None and endpoint.body is not None:
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "unsupported_content_encoding",
            f"the body has the Content-Encoding {encoding[:SHOWN_CHARACTERS]}, which this API does not decode; send plain "
            "JSON in UTF-8 without a Content-Encoding",
            headers={"Accept-Encoding": "identity"},
        )


def _finish_request(clock: Clock, response: Response) -> Response:
    response.headers["X-Request-ID"] = g.request_id
    took_s = clock.monotonic_s() - g.started_s
    count_request(response.status_code, took_s)
    _access_logger.info(
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
