"""Pages of other origins: which of them may read the answers of the API (CORS, Fetch standard).

Answers never allow a browser's stored credentials, so a page of another origin has to bring a token of its own. What does not
belong here: tokens (`auth`).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from flask import Response, current_app, request

from serving.endpoints import endpoint_of

if TYPE_CHECKING:
    from flask import Flask

ANY = "*"
PREFLIGHT_HEADERS = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Last-Event-ID, X-Request-ID",
    "Access-Control-Max-Age": "600",
}
READABLE_HEADERS = "Content-Disposition, Retry-After, X-Request-ID"
"""Headers of answers that a page may read beside those that it always may."""


def install(app: Flask, origins: tuple[str, ...]) -> None:
    """Let pages of these origins read the answers of `app`; without origins nothing changes."""
    if not origins:
        return

    def preflight() -> Response | None:
        """Answer the question of a browser whether a request may follow. It carries no token."""
        is_question = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        if not is_question or not _allowed(origins):
            return None
        return Response(status=HTTPStatus.NO_CONTENT, headers=PREFLIGHT_HEADERS)

    def allow(response: Response) -> Response:
        """Say in the answer whether the page may read it."""
        allowed = _allowed(origins)
        if allowed:
            response.headers["Access-Control-Allow-Origin"] = allowed
            response.headers["Access-Control-Expose-Headers"] = READABLE_HEADERS
        if origins != (ANY,):
            response.vary.add("Origin")
        return response

    app.before_request(preflight)
    app.after_request(allow)


def _allowed(origins: tuple[str, ...]) -> str:
    """The value of `Access-Control-Allow-Origin` for this request; empty if its origin is not allowed.

    `*` allows every origin to read, and only a named one to start an admin action.
    """
    origin = request.headers.get("Origin", "")
    if origin and origin in origins:
        return origin
    endpoint = endpoint_of(current_app, request.endpoint) if request.endpoint else None
    is_action = endpoint is not None and endpoint.needs_admin
    return ANY if ANY in origins and not is_action else ""
