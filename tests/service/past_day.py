"""Shared by the tests of sealed days: a market around a past midnight, streamed through the real workers."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, NS_PER_S, from_ns, now_ns
from btc_core.errors import ServiceError
from btc_core.market.messages import Envelope
from btc_core.names import TABLE_WRITERS, qualified
from btc_core.stores.kafka import first_group_behind
from btc_core.stores.questdb import QuestDB, wait_until_applied
from btc_core.utc_day import day_ns, day_of
from streaming import bronze, features
from tests.service.workers import publish, quote_frame, trade_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

    from btc_core.settings import Settings
    from btc_core.tables.form import Table
    from streaming.worker import Worker

PATIENCE_S = 180.0
ABSURD_ID = 9_000_000_000_000_000_000
DAY = day_of(now_ns() - 2 * NS_PER_DAY)
MIDNIGHT_NS = day_ns(DAY)


def keep_nothing(_table: Table, _rows: pa.Table) -> None:
    """A `Keep` for proofs whose replaced rows a test does not need."""


def lose_day(db: QuestDB, table: Table, day: str) -> None:
    """Drop a day as a person might by hand; from then on QuestDB treats the views of the table as invalid."""
    db.execute(f"ALTER TABLE {table.name} DROP PARTITION LIST '{day}'")
    wait_until_applied(db, table.name)


def ohlc(symbol: str, begin_ns: int, minutes: int) -> bytes:
    rng = np.random.default_rng(3)
    data = []
    for minute in range(minutes):
        close = 60_000.0 + float(rng.integers(-50, 50)) / 10
        data.append(
            {"symbol": symbol, "open": close, "high": close + 1.0, "low": close - 1.0, "close": close, "volume": 1.5,
             "interval_begin": from_ns(begin_ns + minute * NS_PER_MIN), "interval": 1}
        )  # fmt: skip
    return msgspec.json.encode({"channel": "ohlc", "type": "snapshot", "data": data})


def evening_and_morning(symbol: str, day: str, late: dict[int, int]) -> list[Envelope]:
    """Ten minutes around midnight: bars, then two quotes and two trades a second.

    `late` delays the trades of a step by that many steps; they then come from REST.
    """
    rng = np.random.default_rng(9)
    start_ns = day_ns(day) - 300 * NS_PER_S
    found = [Envelope(start_ns, 1, 0, "ohlc", "rest", ohlc(symbol, start_ns - 60 * NS_PER_MIN, 60))]
    bid = 60_000.0
    waiting: dict[int, bytes] = {}
    for step in range(1_200):
        ts_ns = start_ns + step * NS_PER_S // 2 + int(rng.integers(1, 400_000)) * 1_000
        bid = round(bid + float(rng.integers(-5, 6)) / 10, 1)
        found.append(Envelope(ts_ns + 5_000, 1, step, "ticker", "ws", quote_frame(symbol, ts_ns, bid)))
        if step % 2 == 0:
            raw = trade_frame(symbol, ts_ns, bid, step + 1, step + 2)
            if step in late:
                waiting[step + late[step]] = raw
            else:
                found.append(Envelope(ts_ns + 6_000, 1, step, "trade", "ws", raw))
        if step in waiting:
            found.append(Envelope(ts_ns + 7_000, 1, step, "trade", "rest", waiting.pop(step)))
    return found


def with_odd_ids(symbol: str, day: str) -> list[Envelope]:
    """Trades and quotes of ten minutes around midnight whose ids jump once, restart at 1, and are corrected and late."""
    start_ns = day_ns(day) - 300 * NS_PER_S
    found, last_id, late = [], 80_000_000, b""
    for second in range(600):
        ts_ns = start_ns + second * NS_PER_S
        bid = 60_000.0 + second % 7
        found.append(Envelope(ts_ns + 5_000, 1, second, "ticker", "ws", quote_frame(symbol, ts_ns, bid)))
        last_id = 1 if second == 450 else last_id + 1
        raw = trade_frame(symbol, ts_ns, bid, ABSURD_ID if second == 400 else last_id)
        if second == 380:
            late = raw
        else:
            found.append(Envelope(ts_ns + 6_000, 1, second, "trade", "ws", raw))
        if second == 500:
            found.append(Envelope(ts_ns + 7_000, 1, second, "trade", "rest", late))
            found.append(Envelope(ts_ns + 8_000, 1, second, "trade", "ws", trade_frame(symbol, ts_ns, 1.0, last_id)))
    return found


def behind(settings: Settings) -> str:
    """Which worker has not committed the whole log yet; empty when all have."""
    try:
        return str(first_group_behind(settings.kafka, TABLE_WRITERS, now_ns()) or "")
    except ServiceError as error:  # a new broker has no coordinator of a new group yet
        return str(error)


def work_off(settings: Settings, *builders: Callable[[Settings], Worker]) -> None:
    """Run workers until they have committed everything in the log, and wait until their rows can be read."""
    workers = [build(settings) for build in builders]
    threads = [threading.Thread(target=worker.run) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        deadline_s = time.monotonic() + PATIENCE_S
        while lag := behind(settings):
            assert time.monotonic() < deadline_s, lag
            time.sleep(0.1)
    finally:
        for worker in workers:
            worker.stop()
        for thread in threads:
            thread.join(PATIENCE_S)
    with QuestDB(settings.questdb) as db:
        for name in ("bronze_ticks", "bronze_trades", "gap_marks", "silver_features"):
            wait_until_applied(db, name)


def day_of_symbol(stream: Settings, name: str, late: dict[int, int], day: str = DAY, other_exchange: str = "") -> str:
    """A symbol whose day went through both workers, which were restarted in the middle of it.

    An exchange that is not the home exchange sends frames in Kraken's form here.
    """
    symbol = f"{name}{now_ns()}/USD"
    envelopes = evening_and_morning(symbol, day, late)
    if other_exchange:
        symbol = qualified(symbol, other_exchange)
        envelopes = [msgspec.structs.replace(each, exchange=other_exchange, qualified=True) for each in envelopes]
    publish(stream, symbol, envelopes[:900])
    work_off(stream, bronze.build, features.build)
    publish(stream, symbol, envelopes[900:])
    work_off(stream, bronze.build, features.build)
    return symbol
