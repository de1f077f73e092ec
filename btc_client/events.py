"""The events of `/v1/stream`, as an iterator and as an asynchronous iterator that connect again by themselves.

Each event has the whole state, so an event that is missed while there is no connection is made up for by the next one.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import httpx
import msgspec

from btc_client.answers import LiveForecast, decoded
from btc_client.connection import RETRIED, pause_s, retry_after_s
from btc_client.errors import NoConnection, api_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from btc_client.connection import Connection

PATH = "/v1/stream"
SILENCE_S = 30.0
"""The API sends something every 10 s, so a longer silence means that the connection is broken."""


class Event(msgspec.Struct, frozen=True):
    """One event of the stream."""

    name: str
    """`forecast`, `features`, `health`, or `problem` while there is no forecast."""
    id: str
    """The id of the update that the event belongs to."""
    body: LiveForecast | dict[str, Any]
    """A `LiveForecast` for an event `forecast`, the JSON object of the event otherwise."""


class EventParser:
    """Makes events of the lines of a stream (HTML standard, section 9.2)."""

    def __init__(self) -> None:
        self.last_id = ""
        self.retry_s = 1.0
        self._name = "message"
        self._data: list[str] = []

    def feed(self, line: str) -> Event | None:
        """Read a line without its end; an empty one ends an event."""
        if line:
            field, _, value = line.partition(":")
            self._read(field, value.removeprefix(" "))
            return None
        name, data = self._name, "\n".join(self._data)
        self._name, self._data = "message", []
        if not data:
            return None
        kind = LiveForecast if name == "forecast" else dict[str, Any]
        return Event(name, self.last_id, decoded(data.encode(), kind))

    def restart(self) -> None:
        """Forget an event that was cut off."""
        self._name, self._data = "message", []

    def _read(self, field: str, value: str) -> None:
        match field:
            case "event":
                self._name = value
            case "data":
                self._data.append(value)
            case "id":
                self.last_id = value
            case "retry" if value.isdigit():
                self.retry_s = int(value) / 1_000


class _Attempts:
    """When to connect again, and when to give up."""

    def __init__(self, connection: Connection) -> None:
        self.parser = EventParser()
        self._connection = connection
        self._failed = 0

    def headers(self) -> dict[str, str]:
        last = {"Last-Event-ID": self.parser.last_id} if self.parser.last_id else {}
        return {**self._connection.headers, "Accept": "text/event-stream", **last}

    def feed(self, line: str) -> Event | None:
        event = self.parser.feed(line)
        if event is not None:
            self._failed = 0
        return event

    def pause_s(self, error: httpx.TransportError | None) -> float:
        """How long to wait after a connection ended; raises `NoConnection` after too many in a row without an event."""
        self.parser.restart()
        self._failed += 1
        if self._failed > self._connection.retries:
            msg = f"{self._connection.url}{PATH} ended {self._failed} times without an event: {error!r}"
            raise NoConnection(msg) from error
        return max(self.parser.retry_s, pause_s(self._failed - 1, None)) if self._failed > 1 else self.parser.retry_s

    def refused_s(self, status: int, body: bytes, header: str | None) -> float:
        """How long to wait after a refusal; raises `ApiError` if waiting does not help, or was tried too often."""
        asked_s = retry_after_s(header)
        self._failed += 1
        if status not in RETRIED or self._failed > self._connection.retries:
            raise api_error(status, body, asked_s)
        return pause_s(self._failed - 1, asked_s)


def events(connection: Connection, query: dict[str, str]) -> Iterator[Event]:
    """The events, without end. Raises `ApiError` and `NoConnection`."""
    attempts = _Attempts(connection)
    timeout = httpx.Timeout(connection.timeout.connect, read=SILENCE_S)
    with httpx.Client(base_url=connection.url, timeout=timeout, verify=connection.verify) as http:
        while True:
            failure: httpx.TransportError | None = None
            try:
                with http.stream("GET", PATH, params=query, headers=attempts.headers()) as response:
                    if response.status_code != httpx.codes.OK:
                        body, header = response.read(), response.headers.get("Retry-After")
                        time.sleep(attempts.refused_s(response.status_code, body, header))
                        continue
                    for line in response.iter_lines():
                        if (event := attempts.feed(line)) is not None:
                            yield event
            except httpx.TransportError as error:
                failure = error
            time.sleep(attempts.pause_s(failure))


async def async_events(connection: Connection, query: dict[str, str]) -> AsyncIterator[Event]:
    """The events, without end. Raises `ApiError` and `NoConnection`."""
    attempts = _Attempts(connection)
    timeout = httpx.Timeout(connection.timeout.connect, read=SILENCE_S)
    async with httpx.AsyncClient(base_url=connection.url, timeout=timeout, verify=connection.verify) as http:
        while True:
            failure: httpx.TransportError | None = None
            try:
                async with http.stream("GET", PATH, params=query, headers=attempts.headers()) as response:
                    if response.status_code != httpx.codes.OK:
                        body, header = await response.aread(), response.headers.get("Retry-After")
                        await asyncio.sleep(attempts.refused_s(response.status_code, body, header))
                        continue
                    async for line in response.aiter_lines():
                        if (event := attempts.feed(line)) is not None:
                            yield event
            except httpx.TransportError as error:
                failure = error
            await asyncio.sleep(attempts.pause_s(failure))
