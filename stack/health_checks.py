"""Health checks that several components share, and asking any of them.

What does not belong here: the checks of one server (`stack/servers`), and what a failed check means (`stack/status.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from btc_core.errors import BtcError, ServiceError
from btc_core.stores.shared_http import shared_client

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stack.component import Check

HTTP_TIMEOUT_S = 5.0


def get(
    url: str,
    server: str,
    params: Mapping[str, str] | None = None,
    auth: tuple[str, str] | None = None,
    client: Callable[[], httpx.Client] = shared_client,
) -> httpx.Response:
    """The answer of `url`; raises `ServiceError` that says what `server` does instead of answering 200."""
    try:
        response = client().get(url, params=params, auth=auth, timeout=HTTP_TIMEOUT_S)
    except httpx.ConnectError as error:
        msg = f"{server} does not accept connections at {url}: {error}"
        raise ServiceError(msg) from error
    except httpx.TimeoutException as error:
        msg = f"{server} has not answered within {HTTP_TIMEOUT_S:g} s at {url}"
        raise ServiceError(msg) from error
    except httpx.HTTPError as error:
        msg = f"{server} broke off its answer at {url}: {error!r}"
        raise ServiceError(msg) from error
    if response.status_code == httpx.codes.UNAUTHORIZED:
        msg = f"{server} refuses the user or the password in stack.env"
        raise ServiceError(msg)
    if response.status_code != httpx.codes.OK:
        is_reason = response.headers.get("Content-Type", "").startswith("text/plain")
        msg = f"{server} answers {response.status_code}" + (f": {response.text}" if is_reason else "")
        raise ServiceError(msg)
    return response


def http_check(
    url: str,
    server: str,
    params: Mapping[str, str] | None = None,
    auth: tuple[str, str] | None = None,
    client: Callable[[], httpx.Client] = shared_client,
) -> Check:
    """A check that `url` answers 200; `server` is the subject of its error message."""

    def check() -> None:
        get(url, server, params, auth, client)

    return check


def problem_of(check: Check) -> str:
    """Run a check; return "" when it passes, else its error as text."""
    try:
        check()
    except BtcError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - the checks use seven client libraries, each with its own tree of errors
        return f"{type(error).__name__}: {error}".strip()
    return ""
