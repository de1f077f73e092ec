"""What the proofs of forecasts cost: a leaf of each forecast, the log's root, and a replay of the frames behind one.

What does not belong here: reading the rows from QuestDB, which takes as long as any export of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from benchmarks.pure import frames, market
from benchmarks.registry import Figure, Plan, benchmark, seconds
from btc_core.days.forecast_leaves import leaf_of, row_hashes
from btc_core.days.forecast_replay import Place, WantedRow, replayed_rows
from btc_core.days.merkle import GrowingRoot, leaf_hash, root_of
from btc_core.exchanges.recorded_lines import RecordedMessage, envelope_line
from btc_core.tables.arrow import arrow_schema
from btc_core.tables.catalogue import BID_PREDICTION, SILVER_FEATURES, VOLATILITY_PREDICTION

if TYPE_CHECKING:
    from btc_core.tables.form import Table

ROWS = 20_000
WORKERS_US = 0.34e6 / 90
"""Processor time of all workers for one message at 90 messages/s (`benchmarks.servers`, docs/benchmarks.md)."""
MOST_PCT = 3.0


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


@benchmark("forecast-leaves")
def forecast_leaves(plan: Plan) -> list[Figure]:
    """The time to close an hour, for each forecast in it."""
    count = plan.size(ROWS)
    tables = (BID_PREDICTION, VOLATILITY_PREDICTION, SILVER_FEATURES)
    rows = [rows_of(table, count) for table in tables]
    bundles = bytes(32), bytes(32)

    def close() -> bytes:
        hashes = zip(*(row_hashes(table, each) for table, each in zip(tables, rows, strict=True)), strict=True)
        return root_of(leaf_hash(leaf_of(*each, bundles)) for each in hashes)

    leaf_us = seconds(close, plan.repeats) / count * 1e6
    envelopes = frames(market(count, 90.0))

    def log_root() -> bytes:
        growing = GrowingRoot()
        for offset, envelope in enumerate(envelopes):
            growing.add(leaf_hash(envelope_line(envelope, 0, offset)))
        return growing.root()

    log_us = seconds(log_root, plan.repeats) / count * 1e6
    share_pct = 100.0 * (leaf_us + log_us) / WORKERS_US
    note = "of the processor time of the workers at 90 messages/s, with a forecast for each message"
    return [
        Figure("leaf of a forecast in the root of its hour", leaf_us, "µs"),
        Figure("leaf of a message in the root of the log", log_us, "µs"),
        Figure("hashing, share of the processor", share_pct, "%", MOST_PCT, note=note),
    ]


@benchmark("verify-replay")
def verify_replay(plan: Plan) -> list[Figure]:
    """The time to compute the feature row of a forecast again from frames, the longest step of a verification."""
    count = plan.size(5 * ROWS)
    envelopes = frames(market(count, 1.2))
    messages = [RecordedMessage(envelope, 0, offset) for offset, envelope in enumerate(envelopes)]
    wanted = WantedRow("BTC/USD", Place(0, count - 1, 0), envelopes[-1].ts_recv_ns, "")

    def replay() -> None:
        if replayed_rows(messages, wanted) is None:
            msg = "the replay gave no row"
            raise AssertionError(msg)

    return [
        Figure("frames replayed to verify a forecast", count / seconds(replay, plan.repeats), "/s", better="higher")
    ]
