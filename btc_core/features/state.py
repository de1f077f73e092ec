"""The state behind the fold: what is kept of the past, and how one event changes it.

What does not belong here: what a row is computed from the state (`fold_rows`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from btc_core.compiled import njit
from btc_core.features.catalogue import ROW
from btc_core.market.events import BAR, QUOTE, TRADE, QuoteEvent, TradeEvent

if TYPE_CHECKING:
    from btc_core.market.events import Event

STEPS = 1440
"""Longest window in one-minute steps."""
WARM_UP_S = (STEPS + 30) * 60
"""Events received longer ago than this cannot change a row: the longest window, and 30 min for a clock that a future
timestamp set ahead (`events.FUTURE_S`), for `HOLE_S` and `COVER_S`, and for a delay between the exchange and us."""
MEMORY_S = STEPS * 60
"""A quote or trade older than this is as if it had never been."""
HOLE_S = 90
"""Silence after which the state is unknown until the next event: bars come once a minute, so it must exceed 60.
The mid is unknown after as long a silence of quotes and bars, whatever the trades do."""
COVER_S = 600
"""How long after a bar late trades may still belong to it. The snapshot at a connection brings such trades at once."""

MINUTES = 1536  # slots of the minute rings, at least STEPS + 1
SECONDS = 16_384  # slots of the counter rings, at least 240 · 60 + 60, a power of two
RANGE_SECONDS = 2_048  # slots of the high/low rings, at least 30 · 60 + 60, a power of two
BLOCK = 60  # one-minute steps in a block of partial sums
BLOCKS = 32  # slots of the block rings, at least STEPS / BLOCK + 1
QUOTES = 64  # quotes kept for the moving averages
NEVER = np.int64(1) << np.int64(62)
S_NS = np.int64(1_000_000_000)
QTY_SCALE = 1e8  # quantities are counted in satoshi
USD_SCALE = 1e9  # notionals in 1e-9 USD: exact for prices of one decimal; an hour may hold 9e9 USD

EVENT_FIELDS: dict[int, tuple[str, ...]] = {
    QUOTE: ("bid", "bid_qty", "ask", "ask_qty"),
    TRADE: ("price", "qty", "sign"),
    BAR: ("open", "high", "low", "close", "volume"),
}
"""The numbers of an event by its kind; `sign` is +1 when the taker bought and −1 when the taker sold."""
_SLOTS = ("slot_0", "slot_1", "slot_2", "slot_3", "slot_4")
EVENT = np.dtype([("ts_ns", "i8"), ("kind", "i8"), *((slot, "f8") for slot in _SLOTS)], align=True)
"""One event as the fold takes it: exchange time (a bar's open), kind, and the numbers of its kind, slot by slot."""
PackedEvent = tuple[int, int, float, float, float, float, float]
"""The same as a tuple."""


def pack(event: Event) -> PackedEvent:
    """An event as a row of dtype `EVENT`; slots that its kind does not need are zero."""
    if isinstance(event, QuoteEvent):
        return event.ts_event_ns, QUOTE, event.bid, event.bid_qty, event.ask, event.ask_qty, 0.0
    if isinstance(event, TradeEvent):
        return event.ts_event_ns, TRADE, event.price, event.qty, event.sign, 0.0, 0.0
    return event.ts_event_ns, BAR, event.open, event.high, event.low, event.close, event.volume


def slot_of(kind: int, field: str) -> str:
    """The slot of `EVENT` that holds a field of a kind of event.

    >>> slot_of(TRADE, "qty")
    'slot_1'
    """
    return _SLOTS[EVENT_FIELDS[kind].index(field)]


STATE = np.dtype(
    [
        ("clock_ns", "i8"),  # running maximum of event time; 0 before the first event
        ("edge_s", "i8"),  # the second that the newest events belong to: events with edge−1 < t ≤ edge
        ("mid", "f8"), ("log_mid", "f8"), ("high", "f8"), ("low", "f8"),  # now; high and low of log-mid this second
        ("bid", "f8"), ("bid_qty", "f8"), ("ask", "f8"), ("ask_qty", "f8"),
        ("trade_price", "f8"), ("quote_ns", "i8"), ("trade_ns", "i8"), ("seen_ns", "i8"),
        ("mid_ns", "i8"),  # clock at the last quote or bar: the mid is known until HOLE_S later
        ("covered_ns", "i8"),  # close of the last bar: its volume already holds the trades before
        ("ticks_since_s", "i8"), ("volume_since_s", "i8"),  # windows that begin earlier are not covered
        ("volume", "i8"), ("signed", "i8"), ("notional", "i8"), ("trades", "i8"), ("quotes", "i8"), ("still", "i8"),
        ("ofi", "i8"), ("depth", "i8"),  # running counters
        ("midnight_s", "i8"), ("volume_at_midnight", "i8"),
        ("grid_s", "i8"),  # last 5-second boundary that went into rv_5s_step
        ("bids", "f8", (QUOTES,)), ("bid_qtys", "f8", (QUOTES,)), ("ask_qtys", "f8", (QUOTES,)), ("n_quotes", "i8"),
        ("log_mids", "f8", (60, MINUTES)),  # at each second, by second of the minute and minute
        ("highs", "f8", (RANGE_SECONDS,)), ("lows", "f8", (RANGE_SECONDS,)),
        ("volumes", "i8", (SECONDS,)), ("signeds", "i8", (SECONDS,)), ("notionals", "i8", (SECONDS,)),
        ("trade_counts", "i8", (SECONDS,)), ("quote_counts", "i8", (SECONDS,)), ("stills", "i8", (SECONDS,)),
        ("ofis", "i8", (SECONDS,)), ("depths", "i8", (SECONDS,)),
        # what is computed from closed seconds only, kept under the second or block it belongs to
        ("range_at_s", "i8", (RANGE_SECONDS,)), ("ranges", "f8", (RANGE_SECONDS,)),
        ("sums_of", "i8", (60, BLOCKS)), ("sums", "f8", (60, BLOCKS, 10)),
        ("block_s", "i8"), ("block", ROW),  # the minute features, computed once a second
    ],
    align=True,
)  # fmt: skip


def new_state() -> np.ndarray:
    """A fresh state, shape (1,), of dtype `STATE` (about 2 MB)."""
    state = np.zeros(1, STATE)
    for name in ("mid", "log_mid", "bid", "bid_qty", "ask", "ask_qty", "trade_price", "log_mids"):
        state[name] = np.nan
    for name in ("high", "highs"):
        state[name] = -np.inf
    for name in ("low", "lows"):
        state[name] = np.inf
    state["range_at_s"] = state["sums_of"] = -1
    state["ticks_since_s"] = state["volume_since_s"] = NEVER
    state["block_s"] = -1
    return state


@njit
def store_second(s: Any, second: int) -> None:
    """Write what is known at the end of one second into the rings."""
    s.log_mids[second % 60, (second // 60) % MINUTES] = s.log_mid
    s.highs[second % RANGE_SECONDS] = s.high
    s.lows[second % RANGE_SECONDS] = s.low
    slot = second % SECONDS
    s.volumes[slot] = s.volume
    s.signeds[slot] = s.signed
    s.notionals[slot] = s.notional
    s.trade_counts[slot] = s.trades
    s.quote_counts[slot] = s.quotes
    s.stills[slot] = s.still
    s.ofis[slot] = s.ofi
    s.depths[slot] = s.depth
    if second % 86_400 == 0:
        s.midnight_s = second
        s.volume_at_midnight = s.volume


@njit
def _forget_mid(s: Any) -> None:
    """The range of the second that is open stays: the mid was known in a part of it."""
    s.mid = s.log_mid = math.nan
    s.bid = s.ask = s.bid_qty = s.ask_qty = math.nan
    s.n_quotes = 0


@njit
def _advance(s: Any, ts_ns: int) -> None:
    """Close every second that ended before `ts_ns`; a hole makes the state unknown."""
    edge = -(-ts_ns // S_NS)
    if s.clock_ns == 0:
        s.edge_s = edge - 1
        s.seen_ns = ts_ns
        s.grid_s = (edge - 1) // 5 * 5
    s.clock_ns = max(s.clock_ns, ts_ns)
    if s.clock_ns - s.seen_ns > HOLE_S * S_NS:
        s.ticks_since_s = s.volume_since_s = NEVER
    # slots older than the longest ring hold nothing anyone reads: skip them
    first = max(s.edge_s, edge - MINUTES * 60)
    for second in range(first, edge):
        if second * S_NS - s.mid_ns > HOLE_S * S_NS:
            _forget_mid(s)
            s.high, s.low = -math.inf, math.inf
        store_second(s, second)
        s.high = s.log_mid if s.log_mid == s.log_mid else -math.inf
        s.low = s.log_mid if s.log_mid == s.log_mid else math.inf
    if first > s.edge_s:
        s.midnight_s = (edge - 1) // 86_400 * 86_400
        s.volume_at_midnight = s.volume
    if s.clock_ns - s.mid_ns > HOLE_S * S_NS:
        _forget_mid(s)
    s.edge_s = max(s.edge_s, edge)


@njit
def _set_mid(s: Any, mid: float) -> None:
    s.mid = mid
    s.mid_ns = s.clock_ns
    s.log_mid = math.log(mid)
    s.high = max(s.high, s.log_mid)
    s.low = min(s.low, s.log_mid)
    s.block_s = -1 if s.clock_ns % S_NS == 0 else s.block_s


@njit
def _begin_ticks(s: Any) -> None:
    """The first tick after a start, a hole or a bar: from here on windows of ticks are covered."""
    if s.ticks_since_s == NEVER:
        s.ticks_since_s = s.edge_s
    if s.volume_since_s == NEVER:
        s.volume_since_s = s.edge_s


@njit
def _flow(before: float, before_qty: float, after: float, after_qty: float, direction: float) -> float:
    """One side of the order-flow imbalance: what joined minus what left, in BTC."""
    if (after - before) * direction > 0.0:
        return after_qty
    if (after - before) * direction < 0.0:
        return -before_qty
    return after_qty - before_qty


@njit
def _quote(s: Any, bid: float, bid_qty: float, ask: float, ask_qty: float) -> None:
    _begin_ticks(s)
    mid = 0.5 * (bid + ask)
    if s.bid == s.bid:
        flow = _flow(s.bid, s.bid_qty, bid, bid_qty, 1.0) - _flow(s.ask, s.ask_qty, ask, ask_qty, -1.0)
        s.ofi += np.int64(np.rint(flow * QTY_SCALE))
        s.still += 1 if mid == s.mid else 0
    s.quotes += 1
    s.depth += np.int64(np.rint((bid_qty + ask_qty) * QTY_SCALE))
    s.bid, s.bid_qty, s.ask, s.ask_qty = bid, bid_qty, ask, ask_qty
    slot = s.n_quotes % QUOTES
    s.bids[slot] = bid
    s.bid_qtys[slot] = bid_qty
    s.ask_qtys[slot] = ask_qty
    s.n_quotes += 1
    _set_mid(s, mid)


@njit
def _trade(s: Any, price: float, qty: float, sign: float) -> None:
    _begin_ticks(s)
    satoshi = np.int64(np.rint(qty * QTY_SCALE))
    s.volume += satoshi
    s.signed += satoshi if sign > 0.0 else -satoshi
    s.notional += np.int64(np.rint(price * qty * USD_SCALE))
    s.trades += 1
    s.trade_price = price


@njit
def _bar(s: Any, open_: float, high: float, low: float, close: float, volume: float) -> None:
    """A closed minute bar: its close is the mid from now on."""
    if s.volume_since_s == NEVER:
        s.volume_since_s = s.edge_s - 60
    if s.log_mid != s.log_mid:  # the step before is unknown; the open is the best word on it
        before = s.edge_s - 60
        s.log_mids[before % 60, (before // 60) % MINUTES] = math.log(open_)
    s.covered_ns = s.clock_ns
    s.ticks_since_s = NEVER
    s.n_quotes = 0
    s.bid = s.bid_qty = s.ask = s.ask_qty = math.nan
    s.volume += np.int64(np.rint(volume * QTY_SCALE))
    _set_mid(s, close)
    s.high = math.log(high)
    s.low = math.log(low)


@njit
def apply_event(s: Any, event: Any) -> bool:
    """Change the state by one event; False for a bar that the state already covers."""
    if event.kind == BAR:
        begin_s = event.ts_ns // S_NS
        if s.clock_ns > event.ts_ns:
            return False
        _advance(s, (begin_s + 60) * S_NS)
        _bar(s, event.slot_0, event.slot_1, event.slot_2, event.slot_3, event.slot_4)
    else:
        _advance(s, event.ts_ns)
        if event.kind == QUOTE:
            _quote(s, event.slot_0, event.slot_1, event.slot_2, event.slot_3)
        elif event.ts_ns >= s.covered_ns or s.clock_ns - s.covered_ns > COVER_S * S_NS:
            _trade(s, event.slot_0, event.slot_1, event.slot_2)
    return True
