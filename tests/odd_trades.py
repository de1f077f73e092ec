"""Trades whose ids misbehave: they jump, restart, repeat, come late or come again with another content."""

from __future__ import annotations

import msgspec
from hypothesis import strategies as st

from btc_core.clock import NS_PER_S
from btc_core.market.events import TradeEvent

BEGIN_NS = 1_700_000_000 * NS_PER_S
FAR_ID = 9_000_000_000_000_000_000
FIRST_ID = 80_000_000


def trade(trade_id: int, at_s: float, price: float = 60_000.0, qty: float = 0.1) -> TradeEvent:
    return TradeEvent("BTC/USD", BEGIN_NS + round(at_s * NS_PER_S), 0, trade_id, price, qty, "buy", "limit")


def run_of(first_id: int, count: int, at_s: float) -> list[TradeEvent]:
    return [trade(first_id + number, at_s + number) for number in range(count)]


@st.composite
def odd_streams(draw: st.DrawFn) -> list[TradeEvent]:
    """Trades one second apart, with repeats, late ones, outliers, restarts, skipped ids and corrections among them."""
    kinds = ("next", "next", "next", "repeat", "late", "far", "near", "restart", "lower", "skip", "correct")
    found = [trade(draw(st.sampled_from((1, 1_000, FIRST_ID))), 0)]
    held: list[TradeEvent] = []
    last_id = found[0].trade_id
    for second, kind in enumerate(draw(st.lists(st.sampled_from(kinds), max_size=60)), start=1):
        pick = draw(st.integers(0, 10_000))
        earlier = found[pick % len(found)]
        extra = {
            "repeat": earlier,
            "correct": msgspec.structs.replace(earlier, price=1.0 + pick),
            "far": trade(FAR_ID - pick, second),
            "near": trade(last_id + 2 + pick % 900, second),
        }
        if kind in extra:
            found.append(extra[kind])
            continue
        before = {"restart": pick % 50, "lower": max(0, last_id - pick), "skip": last_id + 1 + pick % 5}
        last_id = before.get(kind, last_id) + 1
        (held if kind == "late" else found).append(trade(last_id, second))
        if held and pick % 3 == 0:
            found.append(held.pop())
    return found + held


def identity(each: TradeEvent) -> tuple[int, int, float, float]:
    return each.trade_id, each.ts_event_ns, each.price, each.qty
