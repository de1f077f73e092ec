"""Ingest that starts before its topics exist waits for them, as consumers do, and loses no frame while it waits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from confluent_kafka.admin import AdminClient
from websockets.asyncio.server import ServerConnection, serve

import streaming.ingest
from btc_core.names import DEADLETTERS_TOPIC, EVENTS_TOPIC
from btc_core.stores.kafka import ensure_topics
from streaming.ingest import Ingest
from tests.service.streaming.test_ingest import frames, quote, settings_for
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from btc_core.settings import Settings

SYMBOL = "EARLY/USD"


def test_ingest_connects_once_its_topics_exist(
    own_servers: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(streaming.ingest, "HISTORY_PAUSE_S", 0.0)
    settings = own_servers("kafka")
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap})
    for future in admin.delete_topics([EVENTS_TOPIC, DEADLETTERS_TOPIC]).values():
        future.result(10)
    wait_for(lambda: EVENTS_TOPIC not in admin.list_topics(timeout=10).topics, "the topics are gone")
    connections: list[ServerConnection] = []

    async def connection(socket: ServerConnection) -> None:
        connections.append(socket)
        await socket.send(quote(SYMBOL))
        await socket.wait_closed()

    async def run() -> None:
        async with serve(connection, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            ingest = Ingest(settings_for(settings, f"ws://127.0.0.1:{port}", SYMBOL))
            running = asyncio.create_task(ingest.run())
            await asyncio.sleep(3.0)
            assert not running.done(), "it waits"
            assert not connections, "it reads nothing that it could not publish"
            await asyncio.to_thread(ensure_topics, settings)
            await asyncio.to_thread(wait_for, lambda: frames(settings, SYMBOL), "the frame in the log")
            ingest.stop()
            await running

    asyncio.run(run())
    missing = f"has no topic {EVENTS_TOPIC}, {DEADLETTERS_TOPIC} yet; `btc up` creates the topics"
    assert any(missing in record.getMessage() for record in caplog.records)
    assert len(connections) == 1
