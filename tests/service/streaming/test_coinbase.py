"""Ingest and the workers on a second exchange, Coinbase, which a stand-in in this file plays."""

from __future__ import annotations

import asyncio
import gzip
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from btc_core.clock import NS_PER_S, from_ns, now_ns
from btc_core.exchanges.coinbase import Coinbase
from btc_core.features.file_replay import replay_file
from btc_core.names import DEADLETTERS_TOPIC
from btc_core.stores.kafka import read_topic
from btc_core.stores.questdb import QuestDB
from streaming import bronze, features, repair, repair_queue
from tests.http_server import answering
from tests.paths import DATA
from tests.service.stand_in_exchange import follow
from tests.service.workers import Running, count, replayed, same_bits, streamed
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from websockets.asyncio.server import ServerConnection

    from btc_core.exchange_settings import ExchangeSettings
    from btc_core.settings import Settings

pytestmark = pytest.mark.service

HEARTBEAT_S = 0.2
BTC, ETH = "BTC/USD", "ETH/USD"


class StandIn:
    """Coinbase's socket: answers requests as its documentation says, then sends `frames`, then heartbeats."""

    def __init__(self, frames: list[str]) -> None:
        self.requests: list[dict[str, Any]] = []
        self._frames = frames
        self._subscribed: dict[str, list[str]] = {}

    async def connection(self, socket: ServerConnection) -> None:
        sending: asyncio.Task[None] | None = None
        async for text in socket:
            request = json.loads(text)
            self.requests.append(request)
            for channel in request["channels"]:
                self._subscribed[channel] = request["product_ids"] if request["type"] == "subscribe" else []
            channels = [{"name": name, "product_ids": ids} for name, ids in self._subscribed.items() if ids]
            await socket.send(json.dumps({"type": "subscriptions", "channels": channels}))
            if sending is None and {"heartbeat", "matches", "ticker"} <= set(self._subscribed):
                sending = asyncio.create_task(self._send(socket))
        if sending is not None:
            sending.cancel()

    async def _send(self, socket: ServerConnection) -> None:
        for frame in self._frames:
            await socket.send(frame)
        while True:
            await socket.send(json.dumps({"type": "heartbeat", "sequence": 90, "last_trade_id": 20,
                                          "product_id": "BTC-USD", "time": from_ns(now_ns()).isoformat()}))  # fmt: skip
            await asyncio.sleep(HEARTBEAT_S)


@contextmanager
def rest(trades: dict[int, dict[str, Any]]) -> Iterator[str]:
    """Coinbase's REST API, with no candles and with these trades by trade_id."""

    def answer(path: str) -> tuple[int, bytes]:
        query = {name: int(values[0]) for name, values in parse_qs(urlsplit(path).query).items() if values[0].isdigit()}
        found = sorted((i for i in trades if i < query["after"]), reverse=True) if "after" in query else []
        return 200, json.dumps([trades[i] for i in found[: query.get("limit", 0)]]).encode()

    with answering(answer) as url:
        yield url


def settings_of(base: Settings, symbol: str, rest_url: str) -> ExchangeSettings:
    """The settings of Coinbase without the address of its WebSocket."""
    chosen = {"name": "coinbase", "mode": "live", "symbols": (symbol,), "history_url": "", "rest_url": rest_url}
    return base.exchange.model_copy(update=chosen)


@pytest.fixture(scope="module")
def stream(own_servers: Callable[..., Settings]) -> Settings:
    return own_servers("questdb", "kafka", "valkey")


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Coinbase, "rest_pause_s", 0.0)


def recent_trade(trade_id: int, start_ns: int) -> dict[str, Any]:
    """A trade as REST and the socket describe it; buyers and sellers take turns, a second apart."""
    return {
        "trade_id": trade_id,
        "side": "sell" if trade_id % 2 else "buy",
        "size": "0.25",
        "price": f"{60_000 + trade_id}.5",
        "time": from_ns(start_ns + trade_id * NS_PER_S).isoformat().replace("+00:00", "Z"),
    }


def match_and_ticker_frames(trades: dict[int, dict[str, Any]], missing: set[int]) -> list[str]:
    """A match and a ticker for each trade; the matches of `missing` ids are left out."""
    frames = []
    for step, trade in trades.items():
        kind = "last_match" if step == 1 else "match"
        if step not in missing:
            frames.append({"type": kind, "sequence": step, "maker_order_id": "a", "taker_order_id": "b",
                           "product_id": "ETH-USD", **trade})  # fmt: skip
        frames.append({"type": "ticker", "sequence": step, "product_id": "ETH-USD", "price": f"{60_000 + step}.5",
                       "open_24h": "1", "volume_24h": "2", "low_24h": "1", "high_24h": "3", "volume_30d": "4",
                       "best_bid": f"{60_000 + step}.5", "best_bid_size": "0.5", "best_ask": f"{60_001 + step}",
                       "best_ask_size": "1.5", "side": "buy", "time": trade["time"], "trade_id": step,
                       "last_size": "0.25"})  # fmt: skip
    return [json.dumps(frame) for frame in frames]


def test_matches_and_tickers_arrive_complete_and_missing_trades_are_fetched_by_their_ids(
    stream: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair_queue, "MIN_GAP_AGE_S", 0.1)
    start_ns = (now_ns() // NS_PER_S - 60) * NS_PER_S
    missing = {5, 6}
    trades = {trade_id: recent_trade(trade_id, start_ns) for trade_id in range(1, 21)}
    stand_in = StandIn(match_and_ticker_frames(trades, missing))

    def done(settings: Settings) -> None:
        workers = Running(bronze.build(settings)), Running(repair.build(settings)), Running(features.build(settings))
        with QuestDB(settings.questdb) as db, workers[0], workers[1], workers[2]:
            wait_for(lambda: count(db, "bronze_trades", ETH) == 20, "every trade")
            wait_for(
                lambda: db.execute("SELECT first_id, last_id, state FROM gap_marks") == [[5, 6, "repaired"]], "the gap"
            )
            wait_for(lambda: count(db, "silver_features", ETH) == 20 + 18, "rows")
            rows = db.execute(
                "SELECT trade_id, price, qty, side, origin, ord_type FROM bronze_trades ORDER BY trade_id"
            )
            assert rows == [
                [i, 60_000.5 + i, 0.25, "buy" if i % 2 else "sell", "rest" if i in missing else "ws", ""]
                for i in range(1, 21)
            ]
            quotes = db.execute(
                "SELECT bid, bid_qty, ask, ask_qty, last, volume, vwap FROM bronze_ticks "
                f"WHERE symbol = '{ETH}' ORDER BY ts_event"
            )
            assert quotes == [[60_000.5 + i, 0.5, 60_001.0 + i, 1.5, 60_000.5 + i, 2.0, None] for i in range(1, 21)]
            assert db.execute("SELECT count() FROM bronze_book_checks") == [[0]]
            assert same_bits(streamed(db, ETH), replayed(settings, ETH))

    with rest(trades) as url:
        follow(stream, settings_of(stream, ETH, url), stand_in.connection, done)
    assert [request["channels"] for request in stand_in.requests[:3]] == [["heartbeat"], ["matches"], ["ticker"]]
    assert all(request["product_ids"] == ["ETH-USD"] for request in stand_in.requests)


def test_a_recording_gives_the_same_rows_streamed_and_replayed(stream: Settings, tmp_path: Path) -> None:
    file = DATA / "coinbase_ticker_btcusd_20260405_20min.ndjson.gz"
    if not file.is_file():
        pytest.skip(f"the recording {file.name} is not on this machine")
    with gzip.open(file) as lines:
        frames = [json.dumps(json.loads(line)["payload"]) for line in lines]
    path = tmp_path / "frames.jsonl"
    path.write_text("\n".join(frames))
    recorded = np.concatenate([batch.matrix() for batch in replay_file(path, "coinbase").rows])

    def done(settings: Settings) -> None:
        with QuestDB(settings.questdb) as db, Running(features.build(settings)):
            wait_for(lambda: count(db, "silver_features", BTC) == len(recorded), "a row for each quote")
            assert same_bits(streamed(db, BTC), replayed(settings, BTC))
            assert same_bits(streamed(db, BTC), recorded)

    with rest({}) as url:
        follow(stream, settings_of(stream, BTC, url), StandIn(frames).connection, done)
    letters = [value for value, _, _ in read_topic(stream.kafka, DEADLETTERS_TOPIC)]
    assert letters == []
