"""Health checks that several components share, and asking any of them.

What does not belong here: the checks of one server (`stack/servers`), and what a failed check means (`stack/status.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from btc_core.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stack.component import Check

HTTP_TIMEOUT_S = 5.0


def http_check(
    url: str, server: str, params: Mapping[str, str] | None = None, auth: tuple[str, str] | None = None
) -> Check:
    """A check that `url` answers 200; `server` is the subject of its error message."""

    def check() -> None:
        response = httpx.get(url, params=params, auth=auth, timeout=HTTP_TIMEOUT_S)
        if response.status_code != httpx.codes.OK:
            msg = f"{server} answers {response.status_code}"
            raise ServiceError(msg)

    return check


def problem_of(check: Check) -> str:
    """Run a check; return "" when it passes, else its error as text."""
    try:
        check()
    except Exception as error:  # noqa: BLE001 - the checks use seven client libraries, each with its own tree of errors
        return f"{type(error).__name__}: {error}".strip()
    return ""
