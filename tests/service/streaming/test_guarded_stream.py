"""Ingest, repair, bronze, features and forecast when Kafka, QuestDB and Redis encrypt and ask who is there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from btc_core.names import DEADLETTERS_TOPIC
from btc_core.service_settings import QuestdbSettings, RedisSettings
from btc_core.stores import origin
from btc_core.stores.kafka import read_topic
from btc_core.stores.kafka_topics import ensure_topics
from btc_core.stores.questdb import QuestDB
from btc_core.stores.redis_connection import connect
from btc_core.stores.redis_rows import read_features, read_forecast
from exchange_simulator.faults import catalogue
from streaming import bronze, features, repair, repair_queue
from streaming.ingest import Ingest
from tests.service.exchange_client import exchange
from tests.service.guarded_kafka import guarded_broker
from tests.service.streaming.test_forecast import Holder, StoppedClock, worker
from tests.service.workers import Running, count
from tests.tls_proxy import TlsProxy
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from btc_core.settings import Settings
    from exchange_simulator.server import Exchange

pytestmark = pytest.mark.service

SYMBOL = "ADA/USD"


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Settings]:
    """Settings with which every connection is encrypted."""
    with guarded_broker("questdb", "valkey") as broker:
        plain, ca_file = broker.settings, str(broker.authority.file)
        ports = [int(url.rpartition(":")[2].partition("/")[0]) for url in (plain.questdb.http_url, plain.redis.url)]
        with TlsProxy(broker.authority, ports[0]) as questdb, TlsProxy(broker.authority, ports[1]) as valkey:
            urls = {"http_url": f"https://localhost:{questdb.port}", "ca_file": ca_file}
            chosen = {
                "questdb": QuestdbSettings.model_validate(plain.questdb.model_dump() | urls),
                "redis": RedisSettings.model_validate(
                    plain.redis.model_dump() | {"url": f"rediss://localhost:{valkey.port}/0", "ca_file": ca_file}
                ),
                "stream": plain.stream.model_copy(update={"state_dir": tmp_path / "state"}),
            }
            settings = broker.by_password("btc").model_copy(update=chosen)
            origin.claim(settings, origin.LOG)
            ensure_topics(settings)
            yield settings


def following(settings: Settings, simulator: Exchange) -> Settings:
    urls = {"ws_url": f"ws://127.0.0.1:{simulator.port}/v2", "rest_url": f"http://127.0.0.1:{simulator.port}"}
    return settings.model_copy(
        update={"exchange": settings.exchange.model_copy(update={**urls, "history_url": "", "symbols": (SYMBOL,)})}
    )


def all_is_stored_and_the_gap_is_repaired(settings: Settings, simulator: Exchange) -> None:
    with QuestDB(settings.questdb) as db, connect(settings.redis) as redis:
        wait_for(lambda: count(db, "bronze_trades", SYMBOL) > 0, "the first trades")
        simulator.injector.inject(catalogue.parse("skip_trades", {"count": "2", "symbol": SYMBOL}))
        marks = f"SELECT state FROM gap_marks WHERE symbol = '{SYMBOL}'"
        wait_for(lambda: db.execute(marks) == [["repaired"]], "the repaired gap")
        for table in ("silver_features", "gold_bid_price_prediction", "gold_volatility_prediction"):
            wait_for(lambda table=table: count(db, table, SYMBOL) > 0, f"rows of {table}")  # type: ignore[misc]
        wait_for(lambda: read_features(redis, SYMBOL) is not None, "the newest features")
        wait_for(lambda: read_forecast(redis, SYMBOL) is not None, "the newest forecast")


@pytest.mark.timeout(600)
def test_every_process_of_the_stream_works_with_guarded_servers(
    guarded: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair_queue, "MIN_GAP_AGE_S", 0.1)

    async def body() -> None:
        async with exchange(tmp_path, symbols=(SYMBOL,), rate=5.0) as simulator:
            settings = following(guarded, simulator)
            ingest = Ingest(settings)
            running = asyncio.create_task(ingest.run())
            builds = (bronze.build(settings), repair.build(settings), features.build(settings))
            workers = [Running(each) for each in (*builds, worker(settings, Holder(SYMBOL), StoppedClock()))]
            try:
                with workers[0], workers[1], workers[2], workers[3]:
                    await asyncio.to_thread(all_is_stored_and_the_gap_is_repaired, settings, simulator)
            finally:
                ingest.stop()
                await running

    asyncio.run(body())
    assert [value for value, _, _ in read_topic(guarded.kafka, DEADLETTERS_TOPIC)] == []
