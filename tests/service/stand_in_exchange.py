"""Running the real ingest on a stand-in exchange on loopback."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from websockets.asyncio.server import ServerConnection, serve

from streaming.ingest import Ingest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from btc_core.exchange_settings import ExchangeSettings
    from btc_core.settings import Settings


def follow(
    base: Settings,
    exchange: ExchangeSettings,
    connection: Callable[[ServerConnection], Awaitable[None]],
    done: Callable[[Settings], None],
) -> None:
    """Run ingest on a server that handles each connection with `connection`, while `done`, in a thread, waits for results.

    `exchange` are the settings of the exchange without the address of its WebSocket.
    """

    async def body() -> None:
        async with serve(connection, "127.0.0.1", 0) as server:
            url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            settings = base.model_copy(update={"exchange": exchange.model_copy(update={"ws_url": url})})
            ingest = Ingest(settings)
            running = asyncio.create_task(ingest.run())
            waiting = asyncio.create_task(asyncio.to_thread(done, settings))
            try:
                await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                ingest.stop()
                await running
                await waiting

    asyncio.run(body())
