"""A client of the simulated exchange for tests, and an exchange to connect it to.

What does not belong here: what a single test file needs.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
from websockets.asyncio.client import connect

from exchange_simulator.server import Exchange, Options
from tests.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

    from websockets.asyncio.client import ClientConnection

Message = dict[str, Any]


@asynccontextmanager
async def exchange(tmp_path: Path, **options: Any) -> AsyncIterator[Exchange]:
    """A running exchange; without a REST rate limit unless the options set one."""
    server = Exchange(Options(data_dir=tmp_path, **({"rest_rate_limit": 0.0} | options)))
    async with server.running():
        yield server


def run(body: Callable[[], Coroutine[Any, Any, None]], limit_s: float = PATIENCE_S) -> None:
    """Run the body of a test, for at most `limit_s`."""

    async def limited() -> None:
        async with asyncio.timeout(limit_s):
            await body()

    asyncio.run(limited())


def ws(server: Exchange) -> connect:
    """A client with an unlimited queue: with a full one it would not see the answer to its own close."""
    return connect(f"ws://127.0.0.1:{server.port}/v2", max_size=2**24, max_queue=None)


async def get(server: Exchange, path: str) -> httpx.Response:
    # There is no TLS here, and loading the certificates takes longer than the request.
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=60.0, verify=False) as client:  # noqa: S501 - plain HTTP
        return await client.get(path)


async def ask(client: ClientConnection, method: str = "subscribe", req_id: int | None = None, **params: Any) -> None:
    """Send a request."""
    request: Message = {"method": method} | ({"params": params} if params else {})
    await client.send(json.dumps(request | ({} if req_id is None else {"req_id": req_id})))


async def until(client: ClientConnection, wanted: Callable[[Message], bool]) -> Message:
    """Read frames until one is wanted; returns that frame."""
    while True:
        frame: Message = json.loads(await client.recv())
        if wanted(frame):
            return frame


def is_data(channel: str, kind: str) -> Callable[[Message], bool]:
    return lambda frame: frame.get("channel") == channel and frame.get("type") == kind


def is_answer(frame: Message) -> bool:
    return "method" in frame


class ClientBook:
    """An order book kept as the protocol prescribes for clients, with the exchange's checksum."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.sides: dict[str, dict[float, float]] = {"bids": {}, "asks": {}}

    def apply(self, data: Message) -> bool:
        """Apply a snapshot or an update; returns whether its checksum matches."""
        for side, levels in self.sides.items():
            for level in data[side]:
                if level["qty"] == 0:
                    levels.pop(level["price"], None)
                else:
                    levels[level["price"]] = level["qty"]
            for price in sorted(levels, reverse=side == "bids")[self.depth :]:
                del levels[price]
        return bool(self.checksum() == data["checksum"])

    def checksum(self) -> int:
        text = ""
        for side in ("asks", "bids"):
            for price in sorted(self.sides[side], reverse=side == "bids")[:10]:
                for number in (f"{price:.1f}", f"{self.sides[side][price]:.8f}"):
                    text += number.replace(".", "").lstrip("0")
        return zlib.crc32(text.encode())
