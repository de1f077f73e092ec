"""Memory of the workers over millions of messages, which makes even a small leak visible.

What does not belong here: throughput (`servers`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmarks import cost
from benchmarks.pure import BEGIN_NS, frames, market
from benchmarks.registry import Figure, Plan, benchmark
from benchmarks.servers import SYMBOL, received_now, stack_for_now, wait_until_committed
from btc_core.clock import NS_PER_MIN
from btc_core.market.bars import BARS
from btc_core.market.events import TRADE
from btc_core.market.messages import encode_envelope
from btc_core.names import EVENTS_TOPIC, FEATURES_TOPIC
from btc_core.stores.questdb import QuestDB, write_rows
from btc_core.tables.catalogue import MINUTE_BARS
from btc_core.tables.rows import minute_bars
from streaming.publisher import Publisher

if TYPE_CHECKING:
    from btc_core.settings import Settings

MESSAGES = 10_000_000
PART = 100_000
HISTORY_MIN = 2_880
SETTLED_AFTER = 0.2
"""Share of the messages after which memory is first measured: by then caches and buffers have reached their size."""
WATCHED = (("bronze", EVENTS_TOPIC), ("features", EVENTS_TOPIC), ("forecast", FEATURES_TOPIC))


@benchmark("endurance", needs_servers=True)
def endurance(plan: Plan) -> list[Figure]:
    """Resident memory of each worker after all messages, divided by that after the first fifth of them."""
    parts = plan.size(MESSAGES) // PART
    names = tuple(name for name, _ in WATCHED)
    early: dict[str, int] = {}
    with stack_for_now() as stack:
        stack.up(only=("questdb",))
        write_history(stack.settings)
        stack.up(only=names)
        publisher = Publisher(stack.settings.kafka, "bench")
        shift_ns, trade_id = 0, 0
        for part in range(parts):
            events = market(PART, 1_000.0, seed=part)
            events["ts_ns"] += shift_ns
            shift_ns += int(events["ts_ns"][-1] - events["ts_ns"][0])
            for envelope in received_now(frames(events, trade_id)):
                publisher.publish(EVENTS_TOPIC, SYMBOL, encode_envelope(envelope), envelope.ts_recv_ns)
            trade_id += int((events["kind"] == TRADE).sum())
            publisher.flush()
            for group, topic in WATCHED:
                wait_until_committed(stack.settings, group, topic)
            if part == int(parts * SETTLED_AFTER):
                early = cost.memory_mb(stack, names)
        late = cost.memory_mb(stack, names)
    note = f"{parts * PART:,} messages"
    return [
        Figure(f"memory of {name}, after all messages against after a fifth", late[name] / early[name], "×", 1.1,
               note=f"{note}; {early[name]:.0f} MB, then {late[name]:.0f} MB")
        for name in names
    ]  # fmt: skip


def write_history(settings: Settings) -> None:
    """Write two days of minute bars, so that the forecast worker can fit a baseline."""
    rng = np.random.default_rng(3)
    bars = np.zeros(HISTORY_MIN, BARS)
    bars["ts_ns"] = (BEGIN_NS // NS_PER_MIN - np.arange(HISTORY_MIN, 0, -1)) * NS_PER_MIN
    bars["close"] = 60_000.0 * np.exp(np.cumsum(rng.normal(0.0, 5e-4, HISTORY_MIN)))
    bars["open"] = bars["close"] * np.exp(rng.normal(0.0, 1e-4, HISTORY_MIN))
    bars["high"], bars["low"] = bars["close"] * 1.0005, bars["close"] * 0.9995
    bars["volume"] = rng.exponential(1.0, HISTORY_MIN)
    with QuestDB(settings.questdb) as db:
        write_rows(db, MINUTE_BARS, minute_bars(bars, SYMBOL, "file"))
