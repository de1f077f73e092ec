"""Requests that are tried again: after 429 and 503, and when the connection fails.

What does not belong here: what the answers mean (`client`), and streams of events (`events`).
"""

from __future__ import annotations

import email.utils
import random
import ssl
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import httpx

from btc_client.errors import ApiError, NoConnection, api_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


Result = TypeVar("Result")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
RETRIED = frozenset({429, 502, 503, 504})
"""Statuses after which the same request may succeed."""


class Connection:
    """An HTTP client of one API."""

    def __init__(self, url: str, token: str | None, timeout_s: float, retries: int, ca_file: str | None) -> None:
        self.url = url.rstrip("/")
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.retries = retries
        self.timeout = httpx.Timeout(timeout_s)
        self.verify = ssl.create_default_context(cafile=ca_file) if ca_file else True
        self._http = httpx.Client(base_url=self.url, headers=self.headers, timeout=self.timeout, verify=self.verify)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str, query: Mapping[str, str]) -> bytes:
        """The body of an answer. Raises `ApiError` and `NoConnection`."""

        def read() -> bytes:
            with self.stream(path, query) as response:
                return response.read()

        return self.tried(read)

    @contextmanager
    def stream(self, path: str, query: Mapping[str, str]) -> Iterator[httpx.Response]:
        """An answer that is read while it arrives, without retries. Raises `ApiError` and `httpx.TransportError`."""
        with self._http.stream("GET", path, params=dict(query)) as response:
            if response.status_code != httpx.codes.OK:
                raise api_error(
                    response.status_code, response.read(), retry_after_s(response.headers.get("Retry-After"))
                )
            yield response

    def tried(self, read: Callable[[], Result]) -> Result:
        """The result of `read`, which is called again after an error that may pass."""
        for attempt in range(self.retries + 1):
            try:
                return read()
            except httpx.TransportError as error:
                if attempt == self.retries:
                    msg = f"{self.url} does not answer, or broke off its answer, {attempt + 1} times: {error!r}"
                    raise NoConnection(msg) from error
                wait_s = pause_s(attempt, None)
            except ApiError as error:
                if attempt == self.retries or error.status not in RETRIED:
                    raise
                wait_s = pause_s(attempt, error.retry_after_s)
            time.sleep(wait_s)
        raise AssertionError("the loop returns or raises")


def pause_s(attempt: int, asked_s: float | None) -> float:
    """How long to wait before the next attempt: what the API asks for, else twice as long each time, up to 30 s."""
    if asked_s is not None:
        return asked_s
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**attempt) * random.uniform(0.5, 1.0)  # noqa: S311 - spreads clients


def retry_after_s(header: str | None) -> float | None:
    """The header `Retry-After`, which has a number of seconds or a date.

    >>> retry_after_s("5")
    5.0
    """
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None
