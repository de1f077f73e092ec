"""Errors as `application/problem+json` (RFC 9457): a stable `code`, and a `detail` that says what is wrong and what to do.

What does not belong here: deciding that something is an error. Other modules raise; this one makes the answer.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
from flask import Flask, Response, g
from werkzeug.exceptions import HTTPException, MethodNotAllowed, RequestEntityTooLarge

from btc_core.errors import BtcError, InvalidInput, NotReady, SchemaError, ServiceError

if TYPE_CHECKING:
    from collections.abc import Mapping

PROBLEM_TYPE = "application/problem+json"
UNKNOWN_REQUEST = "none"
"""The request id in answers to what is not a request, such as a malformed header."""

_logger = logging.getLogger("serving")


class Problem(BtcError):
    """An answer that is not 2xx. Its `code` never changes its meaning; its `detail` is for people."""

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str | list[str]] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = dict(more or {})


class ProblemDocument(msgspec.Struct, frozen=True):
    """The body of every answer that is not 2xx (RFC 9457). Some codes have further members with the particulars."""

    type: str
    """URN of the code."""
    title: str
    """The HTTP status in words."""
    status: int
    """The HTTP status."""
    code: str
    """Stable: programs may compare it."""
    detail: str
    """What is wrong and what to do about it, for people."""
    request_id: str
    """Id of the request, which the log of the API names, too."""


def document(problem: Problem, request_id: str) -> bytes:
    """The JSON body of a problem."""
    body = ProblemDocument(
        type=f"urn:btc-forecast:problem:{problem.code}",
        title=problem.status.phrase,
        status=problem.status.value,
        code=problem.code,
        detail=problem.detail,
        request_id=request_id,
    )
    return msgspec.json.encode(msgspec.structs.asdict(body) | problem.more)


def problem_of(error: BtcError) -> Problem:
    """The answer to an error of another module."""
    match error:
        case Problem():
            return error
        case InvalidInput():
            return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_input", str(error))
        case NotReady():
            return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "not_ready", str(error), headers={"Retry-After": "1"})
        case SchemaError():
            return Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "feature_set_mismatch",
                f"{error}; this ends when every process runs the same release",
                headers={"Retry-After": "10"},
            )
        case ServiceError():
            return Problem(
                HTTPStatus.SERVICE_UNAVAILABLE, "service_unavailable", str(error), headers={"Retry-After": "1"}
            )
        case _:
            _logger.error("unexpected error of this project's own kind", exc_info=error)
            return _internal_error()


def body_too_large(max_body_bytes: int) -> Problem:
    """The answer to a body over the limit."""
    return Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "body_too_large",
        f"the body may have {max_body_bytes} bytes; send fewer rows in a request, or raise BTC_API_MAX_BODY_BYTES",
        more={"max_body_bytes": max_body_bytes},
    )


def install(app: Flask, max_body_bytes: int) -> None:
    """Answer every error of `app` with a problem document."""

    def own_error(error: BtcError) -> Response:
        return _respond(problem_of(error))

    def http_error(error: HTTPException) -> Response:
        return _respond(_problem_of_http(error, max_body_bytes))

    # The outermost handler of a request: the log gets the traceback, and the client does not.
    def unforeseen_error(error: Exception) -> Response:
        _logger.error("unforeseen error", exc_info=error, extra={"request_id": g.get("request_id")})
        return _respond(_internal_error())

    app.register_error_handler(BtcError, own_error)
    app.register_error_handler(HTTPException, http_error)
    app.register_error_handler(Exception, unforeseen_error)


def _problem_of_http(error: HTTPException, max_body_bytes: int) -> Problem:
    """The answer to what Flask refuses by itself: an unknown path, a wrong method, a body over the limit."""
    status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
    match error:
        case MethodNotAllowed():
            allowed = ", ".join(sorted(error.valid_methods or ()))
            return Problem(
                status,
                "method_not_allowed",
                f"this path allows {allowed}; use one of these",
                headers={"Allow": allowed},
            )
        case RequestEntityTooLarge():
            return body_too_large(max_body_bytes)
        case _ if status is HTTPStatus.NOT_FOUND:
            return Problem(status, "not_found", "there is nothing at this path; GET /docs lists the paths")
        case _:
            return Problem(status, status.name.lower(), error.description or status.description)


def _internal_error() -> Problem:
    return Problem(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "internal_error",
        "an error in this server, not in the request; the server's log has the cause under this request id",
    )


def _respond(problem: Problem) -> Response:
    body = document(problem, g.get("request_id", UNKNOWN_REQUEST))
    response = Response(body, status=problem.status.value, content_type=PROBLEM_TYPE)
    response.headers.update(problem.headers)
    g.problem_code = problem.code
    return response
