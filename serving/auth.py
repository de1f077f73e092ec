"""The bearer token of the requests that change something.

What does not belong here: users, roles, sessions. There is one token, and it opens `/retrain` and `/reload`.
"""

from __future__ import annotations

import hmac
import logging
import threading
from functools import wraps
from http import HTTPStatus
from typing import TYPE_CHECKING

from flask import Response, request

from btc_core.errors import ConfigError
from btc_core.settings import load_settings
from serving.deps import deps
from serving.problem_details import Problem

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from btc_core.settings import ApiSettings

_log = logging.getLogger("serving")
_SCHEME = "bearer "


class RotatingToken:
    """The token of the settings, read again whenever the env file has changed: it is rotated without a restart.

    A token of the environment stays until the end of the process, since the environment wins over the file.
    """

    def __init__(self, settings: ApiSettings, env_file: Path | None) -> None:
        self._env_file = env_file
        self._token = settings.token.get_secret_value()
        self._stamp = self._now()
        self._lock = threading.Lock()

    def __call__(self) -> str:
        """The token that is valid now; a file that cannot be read leaves the one before in place."""
        with self._lock:
            stamp = self._now()
            if stamp != self._stamp:
                try:
                    self._token = load_settings(self._env_file).api.token.get_secret_value()
                    self._stamp = stamp
                    _log.info("the token was read again")
                except ConfigError as error:
                    _log.warning("the env file has changed and cannot be used, the token stays: %s", error)
            return self._token

    def _now(self) -> tuple[int, int, int] | None:
        if self._env_file is None:
            return None
        try:
            found = self._env_file.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size


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
        if not token_matches(deps().token(), request.headers.get("Authorization", "")):
            raise Problem(
                HTTPStatus.UNAUTHORIZED,
                "unauthorized",
                "this path needs `Authorization: Bearer TOKEN` with the token of BTC_API_TOKEN "
                "(`btc init` writes one to the env file; while it is empty nothing is accepted)",
                headers={"WWW-Authenticate": 'Bearer realm="btc"'},
            )
        return view()

    return guarded
