"""The benchmark of several writers of one table: the processor time that QuestDB needs for the same rows.

Two processes that share the markets of `silver_features` commit rows of the same seconds one after the other, so QuestDB
has to merge the later ones. The benchmark sends the same rows by one writer, by two, and by two into a table each.
What does not belong here: the workers around the writers (`symbols`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import cost
from benchmarks.registry import Figure, Plan, benchmark
from benchmarks.servers import stack_for_now
from btc_core.clock import NS_PER_S, now_ns
from btc_core.features.catalogue import FEATURE_NAMES
from btc_core.stores.questdb import QuestDB, append
from btc_core.tables.catalogue import SILVER_FEATURES
from btc_core.tables.rows import silver_features

if TYPE_CHECKING:
    import pyarrow as pa

    from stack.runtime import Stack

ROWS_PER_S = 700
MARKETS = 8
FLUSH_S = 0.5
"""How often each writer commits, as `BTC_STREAM_TABLE_FLUSH_MS` says by default."""
WATCH_S = 30.0
OWN_TABLES = ("silver_features_1", "silver_features_2")
"""Tables of the same form, which no materialized view reads."""


@benchmark("writers", needs_servers=True)
def writers(plan: Plan) -> list[Figure]:
    """QuestDB's processor time for one writer, two writers of one table, and two writers of a table each."""
    watch_s = WATCH_S / 3 if plan.quick else WATCH_S
    with stack_for_now() as stack:
        stack.up(only=("questdb",))
        with QuestDB(stack.settings.questdb) as db:
            for name in OWN_TABLES:
                db.execute(SILVER_FEATURES.ddl(stack.settings.questdb, name))
        first, second = OWN_TABLES
        measured = {
            "one writer": _cores(stack, (SILVER_FEATURES.name,), watch_s),
            "two writers": _cores(stack, (SILVER_FEATURES.name,) * 2, watch_s),
            "one writer, no views": _cores(stack, (first,), watch_s),
            "two writers, no views": _cores(stack, (first,) * 2, watch_s),
            "two writers, a table each, no views": _cores(stack, (first, second), watch_s),
        }
    label = f"QuestDB's processor for {ROWS_PER_S} feature rows a second of {MARKETS} markets"
    return [
        Figure(
            f"{label}: {name}",
            cores,
            "cores",
            naive="one writer",
            naive_value=measured["one writer, no views" if "no views" in name else "one writer"],
        )
        for name, cores in measured.items()
    ]


def _cores(stack: Stack, tables: tuple[str, ...], watch_s: float) -> float:
    """Processor seconds a second of QuestDB while each table's writer commits its share of the markets."""
    rng = np.random.default_rng(1)
    clients = [QuestDB(stack.settings.questdb) for _ in tables]
    count = len(tables)
    now_s = time.monotonic()
    due_s = [now_s + FLUSH_S * place / count for place in range(count)]
    since_ns = [now_ns()] * count
    offset = 0
    with cost.usage_of(stack, ("questdb",)) as spent:
        while (writer := int(np.argmin(due_s))) >= 0 and due_s[writer] < now_s + watch_s:
            time.sleep(max(0.0, due_s[writer] - time.monotonic()))
            until_ns = now_ns()
            rows = _rows(rng, range(writer, MARKETS, count), since_ns[writer], until_ns, offset)
            append(clients[writer], SILVER_FEATURES, rows, tables[writer])
            offset += len(rows)
            since_ns[writer] = until_ns
            due_s[writer] += FLUSH_S
    for client in clients:
        client.close()
    return spent.cores


def _rows(rng: np.random.Generator, markets: range, begin_ns: int, end_ns: int, offset: int) -> pa.Table:
    """Rows of some markets, evenly spread over a span of time."""
    count = max(1, round(ROWS_PER_S * len(markets) / MARKETS * (end_ns - begin_ns) / NS_PER_S))
    ts_ns = np.sort(rng.integers(begin_ns, end_ns, count))
    zeros, unknown = np.zeros(count, np.int64), np.full(count, np.nan)
    events = {
        "symbol": [f"M{market}/USD" for market in rng.choice(list(markets), count)],
        "ts_event_ns": ts_ns, "ts_recv_ns": ts_ns,
        "partition": zeros, "offset": np.arange(offset, offset + count), "item": zeros,
        "kind": zeros, "trade_id": zeros, "trade_price": unknown, "trade_qty": unknown, "trade_side": unknown,
    }  # fmt: skip
    return silver_features(events, rng.normal(size=(count, len(FEATURE_NAMES))))
