"""The bearer token of the requests that change something.

What does not belong here: users, roles and sessions. There is one token, for `/retrain` and `/reload`.
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

_logger = logging.getLogger("serving")
_SCHEME = "bearer "


class RotatingToken:
    """The token of the settings, read again when the env file has changed, so that it is rotated without a restart.

    A token from the environment stays until the process ends, because the environment wins over the file.
    """

    def __init__(self, settings: ApiSettings, env_file: Path | None) -> None:
        self._env_file = env_file
        self._token = settings.token.get_secret_value()
        self._file_state = self._current_file_state()
        self._lock = threading.Lock()

    def __call__(self) -> str:
        """The token that is valid now. If the file cannot be used, the last token stays valid."""
        with self._lock:
            state = self._current_file_state()
            if state != self._file_state:
                try:
                    self._token = load_settings(self._env_file).api.token.get_secret_value()
                    self._file_state = state
                    _logger.info("the token was read again")
                except ConfigError as error:
                    _logger.warning("the env file has changed but cannot be used, so the token stays: %s", error)
            return self._token

    def _current_file_state(self) -> tuple[int, int, int] | None:
        """What changes with the content of the file; None if there is no file."""
        if self._env_file is None:
            return None
        try:
            status = self._env_file.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size


def token_matches(configured: str, header: str) -> bool:
    """Whether `header`, `Authorization: Bearer …`, has the configured token. An empty configured token matches nothing.

    The comparison takes the same time wherever the two differ.
    """
    if not configured or header[: len(_SCHEME)].lower() != _SCHEME:
        return False
    return hmac.compare_digest(header[len(_SCHEME) :].strip().encode(), configured.encode())


def needs_token(view: Callable[[], Response]) -> Callable[[], Response]:
    """Answer 401 instead of running the view if the token is missing or wrong."""

    @wraps(view)
    def guarded() -> Response:
        if not token_matches(deps().token(), request.headers.get("Authorization", "")):
            raise Problem(
                HTTPStatus.UNAUTHORIZED,
                "unauthorized",
                "this path needs the header `Authorization: Bearer TOKEN` with the token in BTC_API_TOKEN "
                "(`btc init` writes one to the env file; while it is empty, no token is accepted)",
                headers={"WWW-Authenticate": 'Bearer realm="btc"'},
            )
        return view()

    return guarded
