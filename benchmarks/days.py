"""Benchmarks of days: sealed and proven, backfilled from a file, bars imported, copied and restored; on real servers.

What does not belong here: the stream (`servers`).
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.registry import Figure, Plan, benchmark
from benchmarks.servers import stack_for_now
from btc_cli import backfill
from btc_core.clock import NS_PER_DAY, NS_PER_MIN, NS_PER_S, NS_PER_US, from_ns, now_ns
from btc_core.days import lake, trade_import
from btc_core.days.bar_files import read_bar_file
from btc_core.days.bar_import import plan_bars, store_bars
from btc_core.days.bronze_proof import prove_bronze
from btc_core.days.gold import make_gold
from btc_core.days.silver_proof import prove
from btc_core.days.trade_bars import make_bars
from btc_core.days.trade_files import read_trade_file
from btc_core.market.bars import BARS
from btc_core.market.messages import Envelope, encode_envelope
from btc_core.names import EVENTS_TOPIC
from btc_core.stores.kafka_topics import ensure_topics
from btc_core.stores.questdb import QuestDB
from btc_core.stores.s3 import ObjectStore
from btc_core.tables.bar_tables import GOLD_1MIN_SEALED, GOLD_5MIN_SEALED
from btc_core.tables.catalogue import STORED
from btc_core.utc_day import day_ns, day_of, days_between
from streaming import bronze, features
from streaming.publisher import Publisher

if TYPE_CHECKING:
    import pyarrow as pa

    from btc_core.settings import Settings
    from btc_core.tables.form import Table
    from stack.runtime import Stack

SYMBOL = "BTC/USD"
YEAR_MIN = 525_600
TRADES_A_DAY = 100_000
QUOTES_A_TRADE = 3
FILE_TRADES_A_DAY = 10_000
TURNS = (1, 2, 2, 1)
"""Processes of each part of the days: what slows down or warms up meanwhile counts for both."""


def day_frames(day: str, trades: int) -> list[Envelope]:
    """A day of evenly spaced frames, three quotes to a trade."""
    rng = np.random.default_rng(17)
    step_ns = NS_PER_DAY // (trades * (QUOTES_A_TRADE + 1))
    bids = np.round(60_000 + rng.integers(-5, 6, trades * (QUOTES_A_TRADE + 1)).cumsum() / 10, 1)
    found = []
    for number, bid in enumerate(bids.tolist()):
        ts_ns = (day_ns(day) + number * step_ns) // NS_PER_US * NS_PER_US
        stamp = from_ns(ts_ns).isoformat().replace("+00:00", "Z")
        if number % (QUOTES_A_TRADE + 1) == 0:
            raw = (
                f'{{"channel":"trade","type":"update","data":[{{"symbol":"{SYMBOL}","side":"buy","price":{bid},'
                f'"qty":0.01,"ord_type":"limit","trade_id":{number + 1 - number * 3 // 4},"timestamp":"{stamp}"}}]}}'
            )
            found.append(Envelope(ts_ns + 5_000, 1, number, "trade", "ws", raw.encode()))
        else:
            raw = (
                f'{{"channel":"ticker","type":"update","data":[{{"symbol":"{SYMBOL}","bid":{bid},"bid_qty":1.5,'
                f'"ask":{round(bid + 0.1, 1)},"ask_qty":0.5,"last":{bid},"volume":1.0,"vwap":{bid},"low":{bid},'
                f'"high":{bid},"change":0.0,"change_pct":0.0,"timestamp":"{stamp}"}}]}}'
            )
            found.append(Envelope(ts_ns + 5_000, 1, number, "ticker", "ws", raw.encode()))
    return found


def _keep_nothing(_table: Table, _rows: pa.Table) -> None:
    """A `Keep` for days in which no row is replaced."""


def stream_day(settings: Settings, day: str, trades: int) -> None:
    """Put a day on the log and let the workers work it off."""
    import threading

    from btc_core.names import TABLE_WRITERS
    from btc_core.stores.kafka import first_group_behind

    ensure_topics(settings)
    publisher = Publisher(settings.kafka, "bench")
    for envelope in day_frames(day, trades):
        publisher.publish(EVENTS_TOPIC, SYMBOL, encode_envelope(envelope), envelope.ts_recv_ns)
    publisher.flush()
    workers = [bronze.build(settings), features.build(settings)]
    threads = [threading.Thread(target=worker.run) for worker in workers]
    for thread in threads:
        thread.start()
    time.sleep(2.0)
    while first_group_behind(settings.kafka, TABLE_WRITERS, now_ns()):
        time.sleep(0.2)
    for worker in workers:
        worker.stop()
    for thread in threads:
        thread.join()


@benchmark("seal", needs_servers=True)
def seal(plan: Plan) -> list[Figure]:
    """A streamed day proven against the log and its replay, its gold computed, every table copied and restored."""
    trades = plan.size(TRADES_A_DAY)
    day = day_of(now_ns() - 2 * NS_PER_DAY)
    with stack_for_now() as stack:
        stack.up(only=("questdb", "kafka", "valkey", "store"))
        settings = stack.settings
        stream_day(settings, day, trades)
        prove_warm(settings, day)
        with QuestDB(settings.questdb) as db, ObjectStore(settings.store) as store:
            begin_s = time.perf_counter()
            bronze_proof = prove_bronze(db, settings.kafka, day, _keep_nothing)
            bronze_s = time.perf_counter() - begin_s
            proof = prove(db, SYMBOL, day, _keep_nothing)
            for table in (GOLD_1MIN_SEALED, GOLD_5MIN_SEALED):
                make_gold(db, table, day)
            sealed_s = time.perf_counter() - begin_s
            assert proof.stream_equals_replay
            assert bronze_proof.rows_missing == 0
            begin_s = time.perf_counter()
            copies = [lake.back_up(db, store, table, day) for table in STORED]
            copy_s = time.perf_counter() - begin_s
            rows = sum(copy.rows for copy in copies if copy is not None)
            begin_s = time.perf_counter()
            restored = sum(lake.drill(db, store, table, day) for table in STORED)
            restore_s = time.perf_counter() - begin_s
            assert restored == rows
        overhead = overhead_s(stack)
    note = f"{proof.rows} rows, {trades} trades; of it bronze against the log {bronze_s:.1f} s"
    return [
        Figure("a day sealed and proven", sealed_s, "s", 15.0, note=note),
        Figure("copy to the object store, read back", rows / copy_s, "rows/s", better="higher", note=f"{rows} rows"),
        Figure(
            "what a run of Dagster costs beside its work",
            overhead,
            "s",
            3.0,
            note="against a process without Dagster",
        ),
        Figure("restore and compare", rows / restore_s, "rows/s", better="higher", note=f"{rows} rows"),
    ]


def overhead_s(stack: Stack) -> float:
    """Seconds that a process takes longer to prove a day without rows when Dagster runs it."""
    day = day_of(now_ns() - 20 * NS_PER_DAY)
    plain = (
        "from btc_core.days.bronze_proof import prove_bronze; from btc_core.stores.questdb import QuestDB; "
        "from btc_core.days.seals import seal_of; from btc_core.settings import settings; "
        f"db = QuestDB(settings().questdb); prove_bronze(db, settings().kafka, {day!r}, print); seal_of(db, {day!r})"
    )
    materialized = ["-m", "btc_assets", day, "--assets", "sealed_bronze"]
    pairs = [process_s(stack, materialized) - process_s(stack, ["-c", plain]) for _ in range(5)]
    return statistics.median(pairs)


def process_s(stack: Stack, arguments: list[str]) -> float:
    """Seconds of a Python process that knows the stack."""
    env = {**os.environ, **stack.layout.environment()}
    begin_s = time.perf_counter()
    subprocess.run([sys.executable, "-W", "ignore", *arguments], env=env, check=True, capture_output=True)
    return time.perf_counter() - begin_s


def prove_warm(settings: Settings, day: str) -> None:
    """Compile the fold and open the connections before anything is timed: a proof of a day without rows."""
    from btc_core.features.engine import FeatureEngine

    engine = FeatureEngine()
    for number, envelope in enumerate(day_frames(day, 10)):
        engine.push(envelope, 0, number)
    engine.flush(emit=False)
    with QuestDB(settings.questdb) as db:
        prove(db, "NONE/USD", day, _keep_nothing)


@benchmark("history", needs_servers=True)
def history(plan: Plan) -> list[Figure]:
    """Thirty days of trades from a file, backfilled by `btc backfill`'s own process; a year of minute bars."""
    days = plan.size(30)
    last = day_ns(day_of(now_ns() - NS_PER_DAY))
    with stack_for_now() as stack, tempfile.TemporaryDirectory() as scratch:
        stack.up(only=("questdb", "kafka", "valkey", "store"))
        ensure_topics(stack.settings)
        trades_file, bars_file = Path(scratch) / "trades.csv", Path(scratch) / "bars.csv"
        write_trades(trades_file, last - (days - 1) * NS_PER_DAY, days)
        write_bars(bars_file, last)
        begin_s = time.perf_counter()
        rows = import_and_backfill(
            stack, trades_file, days_between(day_of(last - (days - 1) * NS_PER_DAY), day_of(last))
        )
        backfill_s = time.perf_counter() - begin_s
        begin_s = time.perf_counter()
        with QuestDB(stack.settings.questdb) as db:
            bars = read_bar_file(bars_file, "YEAR/USD").bars
            store_bars(db, "YEAR/USD", plan_bars(db, "YEAR/USD", bars), "benchmark", lambda _: None)
        bars_s = time.perf_counter() - begin_s
    return [
        Figure("days of a file imported and sealed", backfill_s, "s", 180.0, note=f"{days} days, {rows} trades"),
        Figure("a year of minute bars imported", bars_s, "s", 20.0, note=f"{len(bars)} bars"),
    ]


@benchmark("fleet", needs_servers=True)
def fleet(plan: Plan) -> list[Figure]:
    """Days of trades from a file sealed by one process and by two, in turns."""
    part = plan.size(15)
    days = days_between(*(day_of(now_ns() - back * NS_PER_DAY) for back in (len(TURNS) * part + 2, 1)))
    took_s = dict.fromkeys(TURNS, 0.0)
    with stack_for_now() as stack, tempfile.TemporaryDirectory() as scratch:
        stack.up(only=("questdb", "kafka", "valkey", "store"))
        ensure_topics(stack.settings)
        file = Path(scratch) / "trades.csv"
        write_trades(file, day_ns(days[0]), len(days))
        import_trades(stack, file)
        seal_days(stack, days[:2], 2)  # compiled and connected before anything is timed
        for turn, processes in enumerate(TURNS):
            begin_s = time.perf_counter()
            seal_days(stack, days[2 + turn * part : 2 + (turn + 1) * part], processes)
            took_s[processes] += time.perf_counter() - begin_s
    note = f"{len(TURNS) * part // 2} days, {FILE_TRADES_A_DAY} trades each"
    return [
        Figure("days sealed by two processes", took_s[2], "s", None, "lower", "one process", took_s[1], note),
    ]


def import_and_backfill(stack: Stack, file: Path, days: list[str]) -> int:
    """What `btc import-trades` and `btc backfill` do; trades written."""
    written = import_trades(stack, file)
    seal_days(stack, days, 1)
    return written


def import_trades(stack: Stack, file: Path) -> int:
    """What `btc import-trades` does; trades written."""
    read = read_trade_file(file, SYMBOL)
    with QuestDB(stack.settings.questdb) as db:
        plan = trade_import.plan_trades(db, SYMBOL, read.trades, has_sides=read.has_sides)
        trade_import.write_trades(db, SYMBOL, plan.new, "benchmark")
        make_bars(db, SYMBOL, read.trades["ts_ns"], plan.unsettled_ns)
    return len(plan.new)


def seal_days(stack: Stack, days: list[str], processes: int) -> None:
    """What `btc backfill` does."""
    stack.extend_days_back_to(days[0])
    plan = backfill.plan(stack.layout, days[0], days[-1], (), processes)
    backfill.carry_out(stack.layout, plan, lambda _: None)


def write_trades(file: Path, begin_ns: int, days: int) -> None:
    """Kraken's published form: time in s, price, volume."""
    rng = np.random.default_rng(23)
    count = days * FILE_TRADES_A_DAY
    times = begin_ns / NS_PER_S + np.sort(rng.uniform(0, days * 86_400, count))
    prices = 60_000 + rng.integers(-5, 6, count).cumsum() / 10
    lines = zip(times.tolist(), prices.tolist(), rng.uniform(1e-4, 0.1, count).tolist(), strict=True)
    file.write_text("".join(f"{moment:.6f},{price:.1f},{size:.8f}\n" for moment, price, size in lines))


def write_bars(file: Path, end_ns: int) -> None:
    """Kraken's published form of a year of minute bars."""
    bars = np.zeros(YEAR_MIN, BARS)
    bars["ts_ns"] = end_ns - np.arange(YEAR_MIN, 0, -1) * NS_PER_MIN
    closes = 60_000 + np.random.default_rng(29).integers(-5, 6, YEAR_MIN).cumsum() / 10
    lines = zip((bars["ts_ns"] // NS_PER_S).tolist(), closes.tolist(), strict=True)
    file.write_text("".join(f"{moment},{p:.1f},{p + 1:.1f},{p - 1:.1f},{p:.1f},1.5,10\n" for moment, p in lines))
