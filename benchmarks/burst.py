"""Throughput of ingest: a real worker reads frames from a socket as fast as it can, and Kafka acknowledges them.

What does not belong here: the workers that read these frames from the log (`servers`).
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException, TopicPartition
from websockets.asyncio.server import serve

from benchmarks.pure import frames, market
from benchmarks.registry import Figure, Plan, benchmark
from benchmarks.servers import stack_for_now
from btc_core.clock import NS_PER_S, now_ns
from btc_core.errors import NotReady
from btc_core.names import EVENTS_TOPIC
from btc_core.stores.kafka import consumer, read_all

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from websockets.asyncio.server import ServerConnection

    from btc_core.settings import Settings
    from stack.runtime import Stack

FRAMES = 200_000
PATIENCE_S = 180.0
REQUESTS = 4
"""Requests that ingest sends first."""


@benchmark("ingest", needs_servers=True)
def ingest_burst(plan: Plan) -> list[Figure]:
    """Frames per second from the socket to Kafka, acknowledged."""
    texts = [envelope.raw.decode() for envelope in frames(market(plan.size(FRAMES), 100.0))]
    with stack_for_now() as stack:
        stack.up(only=("kafka",))
        ours = asyncio.run(_burst(stack, texts))
    return [Figure("ingest: socket to Kafka, acknowledged", ours, "msg/s", 20_000, "higher")]


async def _burst(stack: Stack, texts: list[str]) -> float:
    """Serve all frames to one ingest process; frames per second from its first receipt until Kafka holds the last one."""
    async with _exchange(texts) as url, asyncio.timeout(PATIENCE_S):
        env = os.environ | {
            "BTC_ENV_FILE": str(stack.layout.env_file),
            "BTC_EXCHANGE_WS_URL": url,
            "BTC_EXCHANGE_REST_URL": "http://127.0.0.1:1",
            "BTC_EXCHANGE_HISTORY_URL": "",
        }
        command = (sys.executable, "-m", "streaming", "ingest")
        worker = await asyncio.create_subprocess_exec(*command, env=env, stdout=subprocess.DEVNULL)
        try:
            done_ns = await asyncio.to_thread(_all_in_kafka, stack.settings, len(texts))
        finally:
            worker.terminate()
            await worker.wait()
    first_ns = min(envelope.ts_recv_ns for envelope, _, _ in read_all(stack.settings.kafka))
    return len(texts) / ((done_ns - first_ns) / NS_PER_S)


@asynccontextmanager
async def _exchange(texts: list[str]) -> AsyncIterator[str]:
    async def talk(socket: ServerConnection) -> None:
        for _ in range(REQUESTS):
            await socket.recv()
        for text in texts:
            await socket.send(text)
        await socket.wait_closed()

    async with serve(talk, "127.0.0.1", 0, compression=None) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


def _all_in_kafka(settings: Settings, count: int) -> int:
    """Wait until the log holds `count` frames; returns when that was, ns."""
    reader = consumer(settings.kafka, "bench-burst")
    begin_s = time.monotonic()
    try:
        while time.monotonic() - begin_s < PATIENCE_S:
            parts = [TopicPartition(EVENTS_TOPIC, number) for number in range(settings.kafka.partitions)]
            try:
                if sum(reader.get_watermark_offsets(part, timeout=10)[1] for part in parts) >= count:
                    return now_ns()
            except KafkaException:  # a new topic has no leader yet
                time.sleep(0.1)
            time.sleep(0.01)
    finally:
        reader.close()
    msg = f"Kafka does not hold {count} frames after {PATIENCE_S:.0f} s"
    raise NotReady(msg)
