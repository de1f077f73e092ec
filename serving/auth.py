"""The bearer token of the requests that change something.

What does not belong here: users, roles, sessions. There is one token, and it opens `/retrain` and `/reload`.
"""

from __future__ import annotations

import hmac
from functools import wraps
from http import HTTPStatus
from typing import TYPE_CHECKING

from flask import Response, request

from serving.deps import deps
from serving.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

_SCHEME = "bearer "


def token_matches(configured: str, header: str) -> bool:
    """Whether `Authorization: Bearer …` carries the configured token; an empty configured token matches nothing.

    The comparison takes the same time wherever the two differ.
    """
    if not configured or header[: len(_SCHEME)].lower() != _SCHEME:
        return False
    return hmac.compare_digest(header[len(_SCHEME) :].strip().encode(), configured.encode())


def needs_token(view: Callable[[], Response]) -> Callable[[], Response]:
    """Answer 401 instead of running the view when the token is missing or wrong."""

    @wraps(view)
    def guarded() -> Response:
        if not token_matches(deps().settings.api.token.get_secret_value(), request.headers.get("Authorization", "")):
            raise Problem(
                HTTPStatus.UNAUTHORIZED,
                "unauthorized",
                "this path needs `Authorization: Bearer TOKEN` with the token of BTC_API_TOKEN "
                "(`btc init` writes one to the env file; while it is empty nothing is accepted)",
                headers={"WWW-Authenticate": 'Bearer realm="btc"'},
            )
        return view()

    return guarded
