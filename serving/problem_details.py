"""Errors as `application/problem+json` (RFC 9457): a stable `code`, and a `detail` that says what, where and what to do.

What does not belong here: deciding that something is an error. Views and the modules below them raise, this file answers.
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
"""Request id of an answer that is given before there is a request, such as the refusal of a malformed header."""

_log = logging.getLogger("serving")


class Problem(BtcError):
    """An answer that is not 2xx; `code` never changes its meaning, `detail` is for people."""

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = dict(more or {})


class ProblemDocument(msgspec.Struct, frozen=True):
    """The body of every answer that is not 2xx (RFC 9457); further members name what was wrong."""

    type: str
    title: str
    status: int
    code: str
    """Stable: programs may compare it."""
    detail: str
    """For people: what, where, and what to do."""
    request_id: str


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


def _answer(problem: Problem) -> Response:
    body = document(problem, g.get("request_id", UNKNOWN_REQUEST))
    response = Response(body, status=problem.status.value, content_type=PROBLEM_TYPE)
    response.headers.update(problem.headers)
    g.problem_code = problem.code
    return response


def as_problem(error: BtcError) -> Problem:
    """What an error of the layers below means to a client."""
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
                f"{error}; this heals once every process runs the same release",
                headers={"Retry-After": "10"},
            )
        case ServiceError():
            return Problem(
                HTTPStatus.SERVICE_UNAVAILABLE, "service_unavailable", str(error), headers={"Retry-After": "1"}
            )
        case _:
            _log.error("unexpected error of ours", exc_info=error)
            return _internal()


def _of_http(error: HTTPException, max_body_bytes: int) -> Problem:
    """What Flask itself refuses: unknown path, wrong method, body too large."""
    status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
    match error:
        case MethodNotAllowed():
            allowed = ", ".join(sorted(error.valid_methods or ()))
            return Problem(
                status, "method_not_allowed", f"this path takes {allowed}; use one of these", headers={"Allow": allowed}
            )
        case RequestEntityTooLarge():
            return too_large(max_body_bytes)
        case _ if status is HTTPStatus.NOT_FOUND:
            return Problem(status, "not_found", "there is nothing at this path; GET /docs lists the paths")
        case _:
            return Problem(status, status.name.lower(), error.description or status.description)


def too_large(max_body_bytes: int) -> Problem:
    """The body is over the limit."""
    return Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "body_too_large",
        f"the body may have {max_body_bytes} bytes; send fewer rows a request, or raise BTC_API_MAX_BODY_BYTES",
        more={"max_body_bytes": max_body_bytes},
    )


def _internal() -> Problem:
    return Problem(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "internal_error",
        "a fault of this server, not of the request; its log has the reason under this request id",
    )


def install(app: Flask, max_body_bytes: int) -> None:
    """Answer every error of `app` as a problem."""

    def ours(error: BtcError) -> Response:
        return _answer(as_problem(error))

    def http(error: HTTPException) -> Response:
        return _answer(_of_http(error, max_body_bytes))

    # The outermost net of a request: whatever nobody foresaw is logged with its trace and answered without it.
    def unforeseen(error: Exception) -> Response:
        _log.error("unforeseen error", exc_info=error, extra={"request_id": g.get("request_id")})
        return _answer(_internal())

    app.register_error_handler(BtcError, ours)
    app.register_error_handler(HTTPException, http)
    app.register_error_handler(Exception, unforeseen)
