"""Ingest and the workers on Binance, spot and perpetual, which a stand-in plays."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from btc_core.clock import NS_PER_MS, now_ns
from btc_core.exchange_settings import ExchangeSettings
from btc_core.exchanges.binance import Binance, BinancePerpetual
from btc_core.names import DEADLETTERS_TOPIC
from btc_core.stores.kafka import read_all, read_topic
from btc_core.stores.questdb import QuestDB
from streaming import bronze, features, repair, repair_queue
from tests.paths import DATA
from tests.service.binance_stand_in import (
    MISSING,
    STREAMS,
    TRADES,
    StandIn,
    messages_of,
    rest,
    routes_of,
    rows_of,
)
from tests.service.stand_in_exchange import follow
from tests.service.workers import Running, count, replayed, same_bits, streamed
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.settings import Settings

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def stream(own_servers: Callable[..., Settings]) -> Settings:
    return own_servers("questdb", "kafka", "valkey")


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    for adapter in (Binance, BinancePerpetual):
        monkeypatch.setattr(adapter, "rest_pause_s", 0.0)
    monkeypatch.setattr(repair_queue, "MIN_GAP_AGE_S", 0.1)


@pytest.mark.parametrize(
    ("exchange", "symbol", "connections"),
    [("binance", "ETH/USDT", 1), ("binance-perp", "BNB/USDT", 1), ("binance-perp", "XRP/USDT", 2)],
)
def test_trades_and_quotes_arrive_complete_and_missing_trades_are_fetched_by_their_ids(
    stream: Settings, exchange: str, symbol: str, connections: int
) -> None:
    start_ms = now_ns() // NS_PER_MS - 1_000
    stand_in = StandIn(routes_of(exchange, symbol), messages_of(exchange, symbol, start_ms))
    in_market = f"WHERE symbol = '{symbol}'"

    def done(settings: Settings) -> None:
        workers = Running(bronze.build(settings)), Running(repair.build(settings)), Running(features.build(settings))
        with QuestDB(settings.questdb) as db, workers[0], workers[1], workers[2]:
            wait_for(lambda: count(db, "bronze_trades", symbol) == len(TRADES), "every trade")
            marks = f"SELECT first_id, last_id, state FROM gap_marks {in_market}"
            wait_for(lambda: db.execute(marks) == [[5, 6, "repaired"]], "the gap")
            rows_expected = 2 * len(TRADES) - len(MISSING)
            wait_for(lambda: count(db, "silver_features", symbol) == rows_expected, "rows")
            trades = f"SELECT trade_id, price, qty, side, origin FROM bronze_trades {in_market} ORDER BY trade_id"
            assert db.execute(trades) == [
                [i, 3_000.5 + i, 0.25, "buy" if i % 2 else "sell", "rest" if i in MISSING else "ws"] for i in TRADES
            ]
            quotes = f"SELECT bid, bid_qty, ask, ask_qty, last, volume FROM bronze_ticks {in_market} ORDER BY ts_event"
            assert db.execute(quotes) == [[3_000.5 + i, 0.5, 3_001.0 + i, 1.5, None, None] for i in TRADES]
            assert same_bits(streamed(db, symbol), replayed(settings, symbol))

    with rest(symbol, rows_of(exchange, start_ms)) as url:
        settings = ExchangeSettings(name=exchange, symbols=(symbol,), rest_url=url, connections=connections)
        follow(stream, settings, stand_in.connection, done)
    assert stand_in.subscribed == routes_of(exchange, symbol)
    assert stand_in.connections == connections * len(STREAMS[exchange])
    name = symbol.replace("/", "").encode()
    marks = [
        raw for raw in (each.raw for each, _, _ in read_all(stream.kafka)) if b"markPriceUpdate" in raw and name in raw
    ]
    assert len(marks) == (0 if exchange == "binance" else len(TRADES)), "the log keeps mark prices"
    assert [value for value, _, _ in read_topic(stream.kafka, DEADLETTERS_TOPIC)] == []


def test_a_recording_gives_the_same_rows_streamed_and_replayed(stream: Settings) -> None:
    file = DATA / "binance_spot_raw_btcusdt_20240809.jsonl.gz"
    if not file.is_file():
        pytest.skip(f"the recording {file.name} is not on this machine")
    with gzip.open(file) as lines:
        recorded = [json.loads(line.split(b" ", 1)[1]) for line in lines][:6_000]
    messages = [(each["stream"], each["data"]) for each in recorded]
    used = [each for each in messages if not each[0].endswith("@depth@100ms")]
    routes = {"/stream": {"btcusdt@miniTicker", "btcusdt@trade", "btcusdt@bookTicker"}}
    first_id = next(data["t"] for name, data in used if name == "btcusdt@trade")

    def done(settings: Settings) -> None:
        with QuestDB(settings.questdb) as db, Running(features.build(settings)), Running(bronze.build(settings)):
            wait_for(lambda: count(db, "silver_features", "BTC/USDT") == len(used), "a row for each quote and trade")
            trades = sum(name == "btcusdt@trade" for name, _ in used)
            wait_for(lambda: count(db, "bronze_trades", "BTC/USDT") == trades, "every trade")
            ids = db.execute("SELECT min(trade_id) FROM bronze_trades WHERE symbol = 'BTC/USDT'")
            assert ids == [[first_id]]
            rows = streamed(db, "BTC/USDT")
            assert same_bits(rows, replayed(settings, "BTC/USDT"))
            assert np.isfinite(rows).any(axis=1).all()

    with rest("BTC/USDT", {}) as url:
        follow(stream, ExchangeSettings(name="binance", rest_url=url), StandIn(routes, used).connection, done)
