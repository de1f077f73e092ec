"""`btc verify` as a person runs it: one forecast of a busy day, and the whole day beside its sealing, on real servers.

The day and the one before it pass through the log and the workers at once. The clock of the forecast worker shows the time
of the market, so that forecasts belong to the hours of that day. What does not belong here: the replay alone
(`forecast_proofs`).
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from itertools import chain
from threading import Thread
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from benchmarks.forecast_proofs import BUSY_PER_S
from benchmarks.pure import BEGIN_NS, book_envelopes, frames, market
from benchmarks.registry import Figure, Plan, benchmark
from benchmarks.servers import SYMBOL, stack_for_now
from btc_core.clock import NS_PER_DAY, NS_PER_MIN, NS_PER_MS, NS_PER_S, NS_PER_US, from_ns, now_ns
from btc_core.days.archive_proof import prove_archive
from btc_core.days.bronze_proof import prove_bronze
from btc_core.days.day_books import books_around
from btc_core.days.forecast_days import check_day
from btc_core.days.forecast_hours import HOUR_NS
from btc_core.days.forecast_roots import CLOSE_GRACE_S, HOUR, Closer
from btc_core.days.gold import make_gold
from btc_core.days.history import History
from btc_core.days.log_archive import archive_day
from btc_core.days.silver_proof import prove
from btc_core.market.bars import BARS
from btc_core.market.messages import FeatureMessage, encode_envelope
from btc_core.models import pretrained
from btc_core.models.bundle import random_walk_model
from btc_core.names import BID, EVENTS_TOPIC, FEATURES_TOPIC, TABLE_WRITERS, VOLATILITY, ModelKey
from btc_core.registry.champions import Champions
from btc_core.stores.kafka import first_group_behind
from btc_core.stores.kafka_topics import ensure_topics
from btc_core.stores.questdb import QuestDB, wait_until_applied, write_rows
from btc_core.stores.s3 import ObjectStore
from btc_core.tables import rows as table_rows
from btc_core.tables.bar_tables import GOLD_1MIN_SEALED, GOLD_5MIN_SEALED
from btc_core.tables.catalogue import BID_PREDICTION, MINUTE_BARS, SILVER_FEATURES, VOLATILITY_PREDICTION
from btc_core.utc_day import day_ns, day_of
from streaming import bronze, features
from streaming.forecast import GROUP, SPEC, ForecastHandler
from streaming.publisher import Publisher
from streaming.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.clock import Clock
    from btc_core.market.messages import Envelope
    from btc_core.settings import Settings
    from btc_core.tables.form import Table
    from stack.runtime import Stack
    from streaming.handler import Record

HOURS = 24
BARS_MIN = 2 * 1_440
AT_ONCE = 100
"""Rows that are forecast at a time: ten seconds of the market."""
REPEATS = 3
FEW_HOURS = 3
MOST_S, MOST_RATIO = 5.0, 3.0


class MarketClock:
    """Shows the time of the market."""

    def __init__(self) -> None:
        self.at_ns = 0

    def now_ns(self) -> int:
        """A moment after the newest row was received, later at each call: a forecast reads what was taken before it was made."""
        self.at_ns += NS_PER_US
        return self.at_ns

    def monotonic_s(self) -> float:
        """The clock of the machine."""
        return time.monotonic()


class PastForecasts(ForecastHandler):
    """Makes forecasts of a past day from `begin_ns` on, as if it were going on."""

    def __init__(self, settings: Settings, holder: Any, clock: MarketClock, begin_ns: int) -> None:
        shown: Clock = clock
        super().__init__(settings, holder, shown)
        self._shown = clock
        self._begin_ns = begin_ns
        self._rows = msgspec.msgpack.Decoder(FeatureMessage)

    def handle(self, messages: list[Record]) -> int:
        """Forecast some rows after the other, each time with the clock at their receipt."""
        kept = 0
        for first in range(0, len(messages), AT_ONCE):
            part = messages[first : first + AT_ONCE]
            received_ns = self._rows.decode(part[-1].value).ts_recv_ns
            if received_ns >= self._begin_ns:
                self._shown.at_ns = received_ns + NS_PER_MS
                kept = super().handle(part)
        return kept


class Holder:
    """The random walk, and the model that is delivered with the program."""

    def __init__(self, bars: np.ndarray) -> None:
        volatility = pretrained.model_of_bars(pretrained.shipped(), bars)
        models: Any = {ModelKey(SYMBOL, BID): random_walk_model(), ModelKey(SYMBOL, VOLATILITY): volatility}
        self.current = Champions((SYMBOL,), models)


def bars_before(begin_ns: int) -> np.ndarray:
    """Two days of minute bars of a random walk."""
    close = 60_000.0 * np.exp(np.random.default_rng(1).normal(0.0, 5e-4, BARS_MIN).cumsum())
    bars = np.zeros(BARS_MIN, BARS)
    bars["ts_ns"] = begin_ns - np.arange(BARS_MIN, 0, -1) * NS_PER_MIN
    bars["close"], bars["open"], bars["volume"] = close, np.concatenate([close[:1], close[:-1]]), 1.0
    bars["high"], bars["low"] = np.maximum(bars["open"], close), np.minimum(bars["open"], close)
    return bars


def busy_messages(begin_ns: int, hours: int, per_s: float) -> Iterator[Envelope]:
    """Hours of a market: quotes and trades, and a frame of the order book after each. A snapshot begins each hour."""
    an_hour = int(per_s / 2 * HOUR_NS / NS_PER_S)
    books = book_envelopes(an_hour)
    trades = 0
    for hour in range(hours):
        events = market(an_hour, per_s / 2, seed=hour)
        events["ts_ns"] += begin_ns + hour * HOUR_NS - BEGIN_NS
        events = events[events["ts_ns"] < begin_ns + (hour + 1) * HOUR_NS]
        ticks = frames(events, trades)
        trades += sum(each.channel == "trade" for each in ticks)
        for tick, book in zip(ticks, books, strict=False):
            yield tick
            yield msgspec.structs.replace(book, ts_recv_ns=tick.ts_recv_ns)


def stream(settings: Settings, begin_ns: int, hours: int, per_s: float, forecasts_from_ns: int) -> int:
    """Put hours of a market on the log, and let the workers work them off; returns the number of messages."""
    ensure_topics(settings)
    bars = bars_before(begin_ns)
    with QuestDB(settings.questdb) as db:
        write_rows(db, MINUTE_BARS, table_rows.minute_bars(bars, SYMBOL, "history"))
    publisher, count = Publisher(settings.kafka, "bench"), 0
    for envelope in busy_messages(begin_ns, hours, per_s):
        publisher.publish(EVENTS_TOPIC, SYMBOL, encode_envelope(envelope), envelope.ts_recv_ns)
        count += 1
    publisher.flush()
    forecasts = PastForecasts(settings, Holder(bars), MarketClock(), forecasts_from_ns)
    with running(bronze.build(settings), features.build(settings)):
        while first_group_behind(settings.kafka, TABLE_WRITERS, now_ns()):
            time.sleep(0.5)
    with running(Worker(settings, SPEC, forecasts)):
        wait_for_forecasts(settings)
    with QuestDB(settings.questdb) as db:
        for table in (BID_PREDICTION, VOLATILITY_PREDICTION, SILVER_FEATURES):
            wait_until_applied(db, table.name)
    return count


def wait_for_forecasts(settings: Settings) -> None:
    """Wait until the forecast worker has read every feature row."""
    from benchmarks.servers import wait_until_committed
    from btc_core.errors import NotReady

    for _ in range(20):
        try:
            wait_until_committed(settings, GROUP, FEATURES_TOPIC)
        except NotReady:
            continue
        return


@contextmanager
def running(*workers: Worker) -> Iterator[None]:
    """Workers in threads for the length of a block."""
    threads = [Thread(target=worker.run) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for worker in workers:
            worker.stop()
        for thread in threads:
            thread.join()


def _keep_nothing(_table: Table, _rows: Any) -> None:
    """A `Keep` for days in which no row is replaced."""


def seal_s(settings: Settings, db: QuestDB, store: ObjectStore, day: str) -> dict[str, float]:
    """The seconds of each step of the sealing of a day, without the copies of its tables."""
    history = History(db, lambda: store)
    took: dict[str, float] = {}

    def books_and_silver() -> None:
        books = books_around(db, settings.kafka, store, day)
        proof = prove(db, SYMBOL, day, _keep_nothing, books=None if books is None else books[SYMBOL])
        assert proof.stream_equals_replay, proof
        assert proof.books_proven

    def archived() -> None:
        made = archive_day(store, settings.kafka, day)
        assert made.archive is not None
        assert prove_archive(db, store, made.archive).is_complete

    def forecasts() -> None:
        assert not check_day(history, store, SYMBOL, day).problems

    steps = {
        "bronze": lambda: prove_bronze(db, settings.kafka, day, _keep_nothing, store=store),
        "features": books_and_silver,
        "gold": lambda: [make_gold(db, table, day) for table in (GOLD_1MIN_SEALED, GOLD_5MIN_SEALED)],
        "archive": archived,
        "forecasts": forecasts,
    }
    for name, step in steps.items():
        begin_s = time.perf_counter()
        step()
        took[name] = time.perf_counter() - begin_s
    return took


def verified(stack: Stack, *arguments: str, repeats: int = REPEATS) -> tuple[float, float]:
    """The median time and processor time of `btc verify`, each in a process of its own, after one that fills caches."""
    command = [sys.executable, "-W", "ignore", "-m", "btc_cli", "verify", *arguments, "--symbol", SYMBOL]
    command += ["--data-dir", str(stack.layout.data_dir)]
    walls, processors = [], []
    for turn in range(repeats + 1):
        begin_s, before = time.perf_counter(), os.times()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        after = os.times()
        if turn:
            walls.append(time.perf_counter() - begin_s)
            used = after.children_user + after.children_system - before.children_user - before.children_system
            processors.append(used)
    print(done.stdout, file=sys.stderr)
    return statistics.median(walls), statistics.median(processors)


@benchmark("verify-one", needs_servers=True)
def verify_one(_plan: Plan) -> list[Figure]:
    """`btc verify` of a forecast on a busy market, from the state that an hour names: with the most frames, and half an hour later.

    The state holds what a day of frames would give, so three hours on the log take as long as a year.
    """
    begin_ns = now_ns() // HOUR_NS * HOUR_NS - (FEW_HOURS + 1) * HOUR_NS
    with stack_for_now() as stack:
        stack.up(only=("questdb", "kafka", "valkey", "store"))
        settings = stack.settings
        stream(settings, begin_ns, FEW_HOURS, BUSY_PER_S, begin_ns + HOUR_NS - 10 * NS_PER_MIN)
        with QuestDB(settings.questdb) as db, ObjectStore(settings.store) as store:
            closer = Closer(History(db, lambda: store), settings, store)
            for hour in range(1, FEW_HOURS + 1):
                closer.close(SYMBOL, begin_ns + hour * HOUR_NS + CLOSE_GRACE_S * NS_PER_S + NS_PER_S)
        figures = []
        for minute, frames_min in ((16, 76), (46, 46)):
            at = f"{from_ns(begin_ns + 2 * HOUR_NS + minute * NS_PER_MIN):%Y-%m-%dT%H:%M:%S}"
            note = f"{frames_min} minutes of {BUSY_PER_S} messages a second, half of them of the order book"
            figures += _figures(f"btc verify, {frames_min} minutes of frames", verified(stack, at), note)
    return figures


@benchmark("verify", needs_servers=True)
def verify(plan: Plan) -> list[Figure]:
    """`btc verify` of the last forecast of a busy day, from the log and from its archive, and of the day beside its sealing."""
    per_s = BUSY_PER_S / 5 if plan.quick else BUSY_PER_S
    day = day_of(now_ns() - NS_PER_DAY)
    before = day_of(day_ns(day) - 1)
    at = f"{from_ns(day_ns(day) + NS_PER_DAY - 5 * NS_PER_MIN):%Y-%m-%dT%H:%M:%S}"
    with stack_for_now() as stack:
        stack.up(only=("questdb", "kafka", "valkey", "store"))
        settings = stack.settings
        begin_ns = day_ns(day) - NS_PER_DAY
        messages = stream(settings, begin_ns, 2 * HOURS, per_s, day_ns(day) - HOUR_NS) // 2
        with QuestDB(settings.questdb) as db, ObjectStore(settings.store) as store:
            closer = Closer(History(db, lambda: store), settings, store)
            closer.close(SYMBOL, day_ns(day) + CLOSE_GRACE_S * NS_PER_S + NS_PER_S)
            begin_s = time.process_time()
            closed = closer.close(SYMBOL, day_ns(day) + NS_PER_DAY + HOUR_NS)
            closing_s = (time.process_time() - begin_s) / max(1, sum(each.period == HOUR for each in closed))
            from_log, all_from_log = verified(stack, at), verified(stack, at, "--all-frames")
            archive_day(store, settings.kafka, before)
            sealing = seal_s(settings, db, store, day)
        from_archive, all_from_archive = verified(stack, at), verified(stack, at, "--all-frames")
        whole_day = verified(stack, "--day", day, repeats=1)
    sealed_s = sum(sealing.values())
    what = f"{messages} messages of the day, half of them of the order book"
    parts = ", ".join(f"{name} {took:.1f} s" for name, took in sealing.items())
    return list(
        chain(
            _figures("btc verify of a forecast, from the archives", from_archive, what),
            _figures("btc verify of a forecast, from the log", from_log, what),
            _figures("btc verify --all-frames, from the archives", all_from_archive, what, None),
            _figures("btc verify --all-frames, from the log", all_from_log, what, None),
            [Figure("closing an hour: processor", closing_s, "s", note=f"a 24th of {what}")],
            _figures("btc verify --day", whole_day, what, None),
            [
                Figure("sealing this day", sealed_s, "s", note=parts),
                Figure("btc verify --day over sealing", whole_day[0] / sealed_s, "times", MOST_RATIO),
            ],
        )
    )


def _figures(name: str, took: tuple[float, float], note: str, most_s: float | None = MOST_S) -> list[Figure]:
    return [Figure(name, took[0], "s", most_s, note=note), Figure(f"{name}: processor", took[1], "s")]
