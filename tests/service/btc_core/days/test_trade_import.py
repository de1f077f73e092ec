"""Bars made from the exchange's trades, fetched page by page from the real simulator, are the bars it publishes."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, now_ns
from btc_core.days.stored_days import read_day
from btc_core.days.trade_import import fetch_day
from btc_core.exchange_settings import ExchangeSettings
from btc_core.exchanges.history import bars_of_trades, trades_between
from btc_core.exchanges.kraken import Kraken
from btc_core.stores.questdb import QuestDB, write_rows
from btc_core.tables.catalogue import TABLES
from btc_core.utc_day import day_of
from exchange_simulator.server import Exchange, Options
from tests.service.past_day import lose_day

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from btc_core.settings import Settings


def fetch(settings: ExchangeSettings) -> tuple[np.ndarray, np.ndarray]:
    end_ns = (now_ns() // NS_PER_MIN - 1) * NS_PER_MIN
    begin_ns = end_ns - 180 * NS_PER_MIN
    pages = list(trades_between(settings, "BTC/USD", begin_ns, end_ns))
    assert len(pages) > 3, "three hours are several pages"
    trades = np.concatenate(pages)
    assert (np.diff(trades["trade_id"]) == 1).all(), "each trade once, none missing"
    published, _ = Kraken(settings).minute_bars("BTC/USD", 1)
    inside = (published["ts_ns"] >= begin_ns) & (published["ts_ns"] < end_ns)
    return bars_of_trades(trades), published[inside]


def test_bars_from_paged_trades_equal_the_published_bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Kraken, "rest_pause_s", 0.0)

    async def body() -> tuple[np.ndarray, np.ndarray]:
        server = Exchange(Options(data_dir=tmp_path, rest_rate_limit=0.0))
        async with server.running():
            url = f"http://127.0.0.1:{server.port}"
            return await asyncio.to_thread(fetch, ExchangeSettings(rest_url=url, history_url=f"{url}/history"))

    made, published = asyncio.run(body())
    assert len(made) == len(published) > 100
    for name in ("ts_ns", "open", "high", "low", "close", "trades"):
        assert np.array_equal(made[name], published[name]), name
    np.testing.assert_allclose(made["volume"], published["volume"], rtol=0, atol=1e-7)


def test_a_rate_limit_is_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Kraken, "rest_pause_s", 0.0)
    real_sleep = time.sleep
    monkeypatch.setattr("btc_core.exchanges.rest.time.sleep", lambda _s: real_sleep(0.2))

    async def body() -> int:
        server = Exchange(Options(data_dir=tmp_path, rest_rate_limit=2.0))
        async with server.running():
            settings = ExchangeSettings(rest_url=f"http://127.0.0.1:{server.port}")
            end_ns = (now_ns() // NS_PER_MIN - 1) * NS_PER_MIN
            pages = await asyncio.to_thread(
                lambda: list(trades_between(settings, "BTC/USD", end_ns - 90 * NS_PER_MIN, end_ns))
            )
            return sum(len(page) for page in pages)

    assert asyncio.run(body()) > 1_000


def test_a_day_of_trades_is_fetched_once_and_meets_the_stream_without_overlap_or_hole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: Callable[..., Settings]
) -> None:
    """The day has two trades from the stream already, and the fetch is interrupted after its first page."""
    monkeypatch.setattr(Kraken, "rest_pause_s", 0.0)
    symbol, day, trades = "BTC/USD", day_of(now_ns() - NS_PER_DAY), TABLES["bronze_trades"]

    class Stop(Exception):
        pass

    def once(_reached_ns: int, _written: int) -> None:
        raise Stop

    def work(exchange: ExchangeSettings, db: QuestDB) -> pa.Table:
        lose_day(db, trades, day)
        with pytest.raises(Stop):
            fetch_day(db, exchange, symbol, day, once)
        first = read_day(db, trades, day)
        streamed = first.slice(len(first) - 5, 2)
        place = streamed.schema.names.index("kafka_partition")
        write_rows(db, trades, streamed.set_column(place, "kafka_partition", pa.array([0, 0], pa.int32())))
        written = fetch_day(db, exchange, symbol, day)
        whole = read_day(db, trades, day)
        assert len(whole) == len(first) + written
        assert fetch_day(db, exchange, symbol, day) == 0
        return whole

    async def body() -> pa.Table:
        server = Exchange(Options(data_dir=tmp_path, rest_rate_limit=0.0))
        with QuestDB(servers("questdb").questdb) as db:
            async with server.running():
                exchange = ExchangeSettings(rest_url=f"http://127.0.0.1:{server.port}")
                return await asyncio.to_thread(work, exchange, db)

    whole = asyncio.run(body())
    ids = whole["trade_id"].to_numpy()
    assert (np.diff(np.sort(ids)) == 1).all(), "each trade once, none missing"
    assert (whole["kafka_partition"].to_numpy() == 0).sum() == 2, "the stream's rows stayed the stream's"
