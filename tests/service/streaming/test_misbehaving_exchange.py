"""Ingest against every way in which the simulated exchange refuses, closes or ignores it: data flows again after each."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import streaming.subscriptions
from streaming.ingest import Ingest
from tests.service.exchange_client import exchange, get

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from btc_core.market.frames import ChannelFrame
    from btc_core.market.messages import Envelope
    from btc_core.settings import Settings

pytestmark = pytest.mark.service

SYMBOLS = ("ADA/USD", "XLM/USD")
FAULTS: list[dict[str, Any]] = [
    {"kind": "flap", "seconds": 2},
    {"kind": "block", "seconds": 2, "status": 429},
    {"kind": "block", "seconds": 2, "status": 403},
    {"kind": "deaf", "seconds": 2},
    {"kind": "delist", "seconds": 3, "symbol": SYMBOLS[0]},
    {"kind": "wrong_checksums", "seconds": 2, "symbol": SYMBOLS[0]},
    {"kind": "refuse", "seconds": 2, "error": "EGeneral:Internal error"},
    *({"kind": kind} for kind in ("long_key", "oversized", "foreign_book", "odd_pair", "odd_trades", "malformed")),
]
PATIENCE_S = 300.0


class CountingIngest(Ingest):
    """Counts the quotes of each symbol that reach the log."""

    quotes = 0
    last_quote_of: dict[str, int]

    def publish(self, key: str, envelope: Envelope, frame: ChannelFrame) -> None:
        """Publish a frame and count it."""
        super().publish(key, envelope, frame)
        if envelope.channel == "ticker":
            self.quotes += 1
            self.last_quote_of[key] = self.quotes


async def until_every_symbol_has_a_new_quote(ingest: CountingIngest) -> None:
    seen = ingest.quotes
    while not all(ingest.last_quote_of.get(symbol, 0) > seen for symbol in SYMBOLS):  # noqa: ASYNC110 - it has no event for it
        await asyncio.sleep(0.05)


def test_data_flows_again_after_every_refusal_and_oddity_of_the_exchange(
    servers: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming.subscriptions, "UNSUPPORTED_FIRST_S", 1.0)
    base = servers("kafka")

    async def body() -> None:
        async with exchange(tmp_path, rate=20.0, symbols=SYMBOLS) as server, asyncio.timeout(PATIENCE_S):
            url = f"127.0.0.1:{server.port}"
            changes = {"ws_url": f"ws://{url}/v2", "rest_url": f"http://{url}", "history_url": "", "symbols": SYMBOLS}
            settings = base.model_copy(
                update={
                    "exchange": base.exchange.model_copy(update=changes),
                    "stream": base.stream.model_copy(update={"subscription_deadline_s": 1.0}),
                }
            )
            ingest = CountingIngest(settings)
            ingest.last_quote_of = {}
            running = asyncio.create_task(ingest.run())
            await until_every_symbol_has_a_new_quote(ingest)
            for fault in FAULTS:
                answer = await get(
                    server, "/faults/inject?" + "&".join(f"{name}={text}" for name, text in fault.items())
                )
                assert answer.status_code == 200, answer.text
                while (await get(server, "/faults")).json()["active"]:  # noqa: ASYNC110 - it is asked over HTTP
                    await asyncio.sleep(0.1)
                await until_every_symbol_has_a_new_quote(ingest)
                assert not running.done(), fault
            ingest.stop()
            await running

    asyncio.run(body())
