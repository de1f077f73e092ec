"""What the proofs of forecasts cost: a leaf of each forecast, the log's root, and a replay of the frames behind one.

What does not belong here: reading the rows from QuestDB, which takes as long as any export of them.
"""

from __future__ import annotations

import statistics
import time
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa

from benchmarks.pure import book_envelopes, frames, market
from benchmarks.registry import Figure, Plan, benchmark
from btc_core.clock import NS_PER_S
from btc_core.days.fold_states import BOOKS_NS, WARM_NS
from btc_core.days.forecast_hours import Place
from btc_core.days.forecast_leaves import leaf_of, row_hashes
from btc_core.days.forecast_replay import FEW_BOOKS_NS, LogCheck, WantedRow, replayed_rows
from btc_core.days.log_hours import LogRange
from btc_core.days.merkle import GrowingRoot, leaf_hash, leaf_hashes, root_of
from btc_core.exchanges.recorded_blocks import blocks_of, read_ahead
from btc_core.exchanges.recorded_lines import RecordedMessage
from btc_core.exchanges.tick_lines import with_ticks
from btc_core.tables.arrow import arrow_schema
from btc_core.tables.catalogue import BID_PREDICTION, SILVER_FEATURES, VOLATILITY_PREDICTION

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from btc_core.market.messages import Envelope
    from btc_core.tables.form import Table

ROWS = 20_000
WORKERS_US = 0.34e6 / 90
"""Processor time of all workers for one message at 90 messages/s (`benchmarks.servers`, docs/benchmarks.md)."""
MOST_PCT = 3.0
BUSY_PER_S = 20
"""Messages of the simulator at its own rate, half of them of the order book."""


def rows_of(table: Table, count: int) -> pa.Table:
    """Rows with a value in every column."""
    rng = np.random.default_rng(1)
    columns: list[Any] = []
    for field in arrow_schema(table):
        if pa.types.is_floating(field.type):
            columns.append(pa.array(rng.normal(size=count)))
        elif pa.types.is_string(field.type):
            columns.append(pa.array(["xgboost"] * count))
        else:
            columns.append(pa.array(rng.integers(0, 1 << 30, count)).cast(field.type))
    return pa.table(columns, schema=arrow_schema(table))


def processor_s(work: Callable[[], object], repeats: int) -> float:
    """The median processor time of `work` in all threads, after one warm-up: other programs hardly change it."""
    work()
    times = []
    for _ in range(repeats):
        begin_s = time.process_time()
        work()
        times.append(time.process_time() - begin_s)
    return statistics.median(times)


@benchmark("forecast-leaves")
def forecast_leaves(plan: Plan) -> list[Figure]:
    """The time to close an hour, for each forecast in it."""
    count = plan.size(ROWS)
    tables = (BID_PREDICTION, VOLATILITY_PREDICTION, SILVER_FEATURES)
    rows = [rows_of(table, count) for table in tables]
    bundles = bytes(32), bytes(32)

    def close() -> bytes:
        hashes = zip(*(row_hashes(table, each) for table, each in zip(tables, rows, strict=True)), strict=True)
        return root_of(leaf_hash(leaf_of(bid, volatility, feature, bundles)) for bid, volatility, feature in hashes)

    leaf_us = processor_s(close, plan.repeats) / count * 1e6
    envelopes = frames(market(count, 90.0))

    messages = [RecordedMessage(envelope, 0, offset) for offset, envelope in enumerate(envelopes)]

    def log_root() -> bytes:
        growing = GrowingRoot()
        for block in blocks_of(messages):
            growing.extend(leaf_hashes(block.data(), block.lines["begin"], block.lines["end"]))
        return growing.root()

    log_us = processor_s(log_root, plan.repeats) / count * 1e6
    share_pct = 100.0 * (leaf_us + log_us) / WORKERS_US
    note = "of the processor time of the workers at 90 messages/s, with a forecast for each message"
    return [
        Figure("leaf of a forecast in the root of its hour", leaf_us, "µs"),
        Figure("leaf of a message in the root of the log", log_us, "µs"),
        Figure("hashing, share of the processor", share_pct, "%", MOST_PCT, note=note),
    ]


def with_books(ticks: Sequence[Envelope]) -> list[Envelope]:
    """Messages with a frame of the order book after each, as on a market that sends as many of these as of all others.

    A snapshot begins the book again 25 times, which is once an hour in a verification.
    """
    books = cycle(book_envelopes(len(ticks) // 25))
    return [
        envelope
        for tick in ticks
        for envelope in (tick, msgspec.structs.replace(next(books), ts_recv_ns=tick.ts_recv_ns))
    ]


@benchmark("verify-replay")
def verify_replay(plan: Plan) -> list[Figure]:
    """The time to compute the feature row of a forecast again from frames, the longest step of a verification.

    The messages cover the time before a row that a verification reads, and half of them are of the order book. They are
    hashed as in a verification. The time for a busy market follows from their number, which costs little memory here.
    """
    count = plan.size(2 * ROWS)
    ticks = frames(market(count, count * NS_PER_S / WARM_NS))
    envelopes = with_books(ticks)
    blocks = list(blocks_of(RecordedMessage(envelope, 0, offset) for offset, envelope in enumerate(envelopes)))
    place = len(envelopes) - 2
    wanted = WantedRow("BTC/USD", Place(0, place, 0), envelopes[place].ts_recv_ns, "")

    def replay(books_ns: int) -> None:
        log = LogCheck([LogRange("", 0, 0, place + 1, "")])
        if replayed_rows(read_ahead(with_ticks(log.passing(iter(blocks)))), wanted, log.end, books_ns) is None:
            msg = "the replay gave no row"
            raise AssertionError(msg)

    per_s, slower = (
        len(envelopes) / processor_s(partial(replay, books_ns), plan.repeats) for books_ns in (FEW_BOOKS_NS, BOOKS_NS)
    )
    busy_s = BUSY_PER_S * WARM_NS / NS_PER_S / per_s
    note = f"the frames of 25 hours at {BUSY_PER_S}/s, without reading them"
    return [
        Figure(
            "frames replayed for each second of processor time",
            per_s,
            "/s",
            None,
            "higher",
            "with all order books that can matter",
            slower,
        ),
        Figure("processor time to replay a busy market", busy_s, "s", note=note),
    ]
