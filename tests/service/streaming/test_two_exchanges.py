"""Ingest and the workers on two exchanges at once: the simulator stands for Kraken, and a stand-in for Binance."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING

import numpy as np
import pytest
from prometheus_client import REGISTRY
from websockets.asyncio.server import serve

from btc_core.clock import NS_PER_MS, now_ns
from btc_core.exchange_settings import ExchangeSettings
from btc_core.exchanges.binance import BinancePerpetual
from btc_core.names import DEADLETTERS_TOPIC, qualified
from btc_core.stores.kafka import read_all, read_topic
from btc_core.stores.questdb import QuestDB
from exchange_simulator.faults import catalogue
from streaming import bronze, features, repair, repair_queue
from streaming.ingest import Ingest
from tests.service.binance_stand_in import MISSING, TRADES, StandIn, messages_of, rest, routes_of, rows_of
from tests.service.exchange_client import exchange
from tests.service.workers import Running, count, replayed, same_bits, streamed
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request, Response

    from btc_core.settings import Settings
    from exchange_simulator.server import Exchange

pytestmark = pytest.mark.service

SPOT, PAIR = "ADA/USD", "ADA/USDT"
PERPETUAL = qualified(PAIR, "binance-perp")
ANSWERED = {"outcome": "answered"}


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BinancePerpetual, "rest_pause_s", 0.0)
    monkeypatch.setattr(repair_queue, "MIN_GAP_AGE_S", 0.1)


def settings_of(base: Settings, kraken: Exchange, binance_port: int, rest_url: str) -> Settings:
    """The simulator as the home exchange, and the stand-in as a second one. Only Kraken's data is simulated by name."""
    chosen = ExchangeSettings(
        markets=(f"kraken:{SPOT}", f"binance-perp:{PAIR}"),
        ws_url=f"ws://127.0.0.1:{kraken.port}/v2",
        rest_url=f"http://127.0.0.1:{kraken.port}",
        ws_urls={"binance-perp": f"ws://127.0.0.1:{binance_port}"},
        rest_urls={"binance-perp": rest_url},
    )
    return base.model_copy(update={"exchange": chosen})


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def both_are_recorded_and_repaired(settings: Settings) -> None:
    with QuestDB(settings.questdb) as db:
        marks = "SELECT first_id, last_id, state FROM gap_marks WHERE symbol = '{}'"
        wait_for(lambda: count(db, "bronze_trades", PERPETUAL) == len(TRADES), "the trades of the perpetual")
        wait_for(lambda: db.execute(marks.format(PERPETUAL)) == [[5, 6, "repaired"]], "the gap of the perpetual")
        wait_for(lambda: [row[2] for row in db.execute(marks.format(SPOT))] == ["repaired"], "the gap of Kraken")
        origins = f"SELECT trade_id, origin FROM bronze_trades WHERE symbol = '{PERPETUAL}' ORDER BY trade_id"
        assert db.execute(origins) == [[i, "rest" if i in MISSING else "ws"] for i in TRADES]
        expected = 2 * len(TRADES) - len(MISSING)
        wait_for(lambda: count(db, "silver_features", PERPETUAL) == expected, "feature rows of the perpetual")
        symbols = {row[0] for row in db.execute("SELECT DISTINCT symbol FROM silver_features")}
        assert symbols == {SPOT, PERPETUAL}
        assert same_bits(streamed(db, PERPETUAL), replayed(settings, PERPETUAL))
        assert np.isfinite(streamed(db, PERPETUAL)).any(axis=1).all()


def kraken_is_recorded(settings: Settings) -> None:
    with QuestDB(settings.questdb) as db:
        wait_for(lambda: count(db, "bronze_trades", SPOT) > 0, "the first trades of Kraken")


def kraken_continues(settings: Settings) -> None:
    banned = {"exchange": "binance-perp", "event": "http_429"}
    wait_for(lambda: sample("btc_connections_total", **banned) >= 1.0, "the refusal")
    with QuestDB(settings.questdb) as db:
        seen = count(db, "bronze_ticks", SPOT)
        wait_for(lambda: count(db, "bronze_ticks", SPOT) > seen + 5, "further quotes of Kraken")


def test_two_exchanges_stream_at_once_and_a_fault_of_one_does_not_reach_the_other(
    own_servers: Callable[..., Settings], tmp_path: Path
) -> None:
    base = own_servers("questdb", "kafka", "valkey")
    start_ms = now_ns() // NS_PER_MS - 1_000
    stand_in = StandIn(routes_of("binance-perp", PAIR), messages_of("binance-perp", PAIR, start_ms))
    refuses = False

    def refuse(socket: ServerConnection, _request: Request) -> Response | None:
        if not refuses:
            return None
        response = socket.respond(HTTPStatus.TOO_MANY_REQUESTS, "banned")
        response.headers["Retry-After"] = "600"
        return response

    async def body() -> None:
        nonlocal refuses
        async with (
            exchange(tmp_path, symbols=(SPOT,), rate=5.0) as kraken,
            serve(stand_in.connection, "127.0.0.1", 0, process_request=refuse) as binance,
        ):
            port = next(iter(binance.sockets)).getsockname()[1]
            settings = settings_of(base, kraken, port, rest_url)
            ingest = Ingest(settings)
            running = asyncio.create_task(ingest.run())
            workers = (
                Running(bronze.build(settings)),
                Running(repair.build(settings)),
                Running(features.build(settings)),
            )
            try:
                with workers[0], workers[1], workers[2]:
                    fault = catalogue.parse("skip_trades", {"count": "2", "symbol": SPOT})
                    await asyncio.to_thread(wait_for, lambda: bool(kraken.hub.connections), "a connection")
                    await asyncio.to_thread(kraken_is_recorded, settings)
                    kraken.injector.inject(fault)
                    await asyncio.to_thread(both_are_recorded_and_repaired, settings)
                    refuses = True
                    for socket in tuple(binance.connections):
                        await socket.close(1001)
                    await asyncio.to_thread(kraken_continues, settings)
            finally:
                ingest.stop()
                await running

    with rest(PAIR, rows_of("binance-perp", start_ms)) as rest_url:
        asyncio.run(body())
    exchanges = {(each.exchange, each.qualified) for each, _, _ in read_all(base.kafka)}
    assert exchanges == {("kraken", False), ("binance-perp", True)}
    for name in ("kraken", "binance-perp"):
        assert sample("btc_repair_requests_total", exchange=name, **ANSWERED) >= 1.0, "each has its own adapter"
    assert [value for value, _, _ in read_topic(base.kafka, DEADLETTERS_TOPIC)] == []
