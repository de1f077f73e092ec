"""Who may do what: named tokens for reading and for admin actions, and the entries of the audit log.

What does not belong here: users and sessions. Which operation is an admin action says its description (`endpoints`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import os
import threading
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from dotenv import dotenv_values
from flask import Response, current_app, g, request

from btc_core.api_settings import TOKEN_VARIABLES
from btc_core.errors import ConfigError
from btc_core.settings import load_settings
from serving import audit
from serving.deps import deps
from serving.endpoints import endpoint_of
from serving.problem_details import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flask import Flask

    from btc_core.api_settings import ApiSettings, NamedToken

OPEN = frozenset({"/healthz", "/readyz", "/metrics"})
"""Paths that never need a token: supervisors and Prometheus ask them."""

_logger = logging.getLogger("serving")
_BEARER, _BASIC = "bearer ", "basic "


class Tokens:
    """The tokens that are valid at one time."""

    def __init__(self, named: Iterable[NamedToken]) -> None:
        self._by_digest = [(_digest(each.token.get_secret_value()), each) for each in named]
        self.guard_reads = any(each.kind == "read" for _, each in self._by_digest)
        """Whether reading needs a token."""

    def holder(self, header: str, *, with_basic: bool) -> NamedToken | None:
        """The token in `header`, `Authorization: Bearer …`; None if it is not valid.

        With `with_basic` it may also be the password of `Authorization: Basic …`, which is how browsers send it, whatever the user
        is called. The comparison takes the same time wherever the tokens differ, and for each of them.
        """
        given = _digest(_token_in(header, with_basic=with_basic))
        found = [each for digest, each in self._by_digest if hmac.compare_digest(digest, given)]
        return found[0] if found else None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _token_in(header: str, *, with_basic: bool) -> str:
    """The token that a request presents; empty, which no token is, if it presents none."""
    if header[: len(_BEARER)].lower() == _BEARER:
        return header[len(_BEARER) :].strip()
    if not with_basic or header[: len(_BASIC)].lower() != _BASIC:
        return ""
    try:
        return base64.b64decode(header[len(_BASIC) :].strip(), validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


class RotatingTokens:
    """The tokens of the settings, read again when a file that they come from has changed, so that no rotation needs a restart.

    The files are the env file, and those that `BTC_API_…_FILE` name. A token that is itself in the environment stays until the
    process ends, because the environment wins over the file.
    """

    def __init__(self, settings: ApiSettings, env_file: Path | None) -> None:
        self._env_file = env_file
        self._tokens = Tokens(settings.named_tokens)
        self._files = self._named_files()
        self._state = self._current_state()
        self._lock = threading.Lock()

    def __call__(self) -> Tokens:
        """The tokens that are valid now. If a file cannot be used, the last tokens stay valid."""
        with self._lock:
            state = self._current_state()
            if state != self._state:
                self._state = (
                    state  # a file that cannot be used is read again when it has changed, not for each request
                )
                self._read_again()
            return self._tokens

    def _read_again(self) -> None:
        try:
            tokens = Tokens(load_settings(self._env_file).api.named_tokens)
        except ConfigError as error:
            _logger.warning("a file with tokens has changed but cannot be used, so they stay: %s", error)
            return
        if self._tokens.guard_reads and not tokens.guard_reads:  # such as a file that is being written
            _logger.warning("no read token is left, so the tokens stay; restart the API to let everybody read")
            return
        self._tokens = tokens
        _logger.info("the tokens were read again")
        files = self._named_files()
        if files != self._files:  # read once more, in case a new file has changed meanwhile
            self._files, self._state = files, []

    def _named_files(self) -> tuple[Path, ...]:
        """The files that the tokens come from."""
        in_file = dotenv_values(self._env_file) if self._env_file is not None else {}
        names = [f"{name}_FILE" for name in TOKEN_VARIABLES]
        secrets = [Path(path) for name in names if (path := os.environ.get(name) or in_file.get(name))]
        return (*([self._env_file] if self._env_file is not None else []), *secrets)

    def _current_state(self) -> list[tuple[int, int, int] | None]:
        """What changes with the content of a file; None for one that is not there."""
        return [_state_of(path) for path in self._files]


def _state_of(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def install(app: Flask) -> None:
    """Refuse requests without the token that they need, and write admin actions and refused tokens to the audit log."""
    app.before_request(_check)
    app.after_request(_audit)


def _check() -> None:
    """Refuse a request whose token is missing (401), not valid (401), or not for what it asks (403)."""
    is_action, tokens = _is_action(), deps().tokens()
    if request.method == "OPTIONS" or not (is_action or (tokens.guard_reads and request.path not in OPEN)):
        return
    header = request.headers.get("Authorization", "")
    # A browser sends a password by itself, even when a page of another site asks; so it starts no action.
    holder = tokens.holder(header, with_basic=not is_action)
    g.token_name = holder.name if holder is not None else None
    if holder is None:
        g.is_refused = bool(header)
        raise _needs_admin() if is_action else _needs_reader()
    if is_action and holder.kind != "admin":
        raise Problem(
            HTTPStatus.FORBIDDEN,
            "forbidden",
            f"the token {holder.name} may only read, and this path needs an admin token: that of BTC_API_TOKEN, or one of "
            "BTC_API_ADMIN_TOKENS",
        )


def _is_action() -> bool:
    """Whether the request is for an admin action."""
    endpoint = endpoint_of(current_app, request.endpoint) if request.endpoint else None
    return endpoint is not None and endpoint.needs_admin


def _needs_admin() -> Problem:
    return Problem(
        HTTPStatus.UNAUTHORIZED,
        "unauthorized",
        "this path needs the header `Authorization: Bearer TOKEN` with the token in BTC_API_TOKEN or one of "
        "BTC_API_ADMIN_TOKENS (`btc init` writes the first to the env file; while both are empty, no token is accepted)",
        headers={"WWW-Authenticate": 'Bearer realm="btc"'},
    )


def _needs_reader() -> Problem:
    return Problem(
        HTTPStatus.UNAUTHORIZED,
        "unauthorized",
        "this system is read with a token: send the header `Authorization: Bearer TOKEN` with one of BTC_API_READ_TOKENS, or "
        "enter it as the password in a browser, with any user",
        headers={"WWW-Authenticate": ['Bearer realm="btc"', 'Basic realm="btc", charset="UTF-8"']},
    )


def _audit(response: Response) -> Response:
    """Write the entry of an admin action, and of a token that was refused."""
    if (_is_action() and request.method != "OPTIONS") or g.get("is_refused"):
        audit.write(response.status_code)
    return response
