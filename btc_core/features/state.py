"""The state of the fold: what it keeps of the past, and how one event changes it.

A second with the number n holds the events with n − 1 < t ≤ n, in seconds since the epoch. Rings hold one value for each
of the last seconds, minutes or quotes, and a new value overwrites the oldest one.

What does not belong here: the formulas that compute a row from the state (`formulas`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from btc_core.compiled import njit
from btc_core.features.catalogue import ROW
from btc_core.market.events import (
    BAR,
    BOOK_ASKS,
    BOOK_BIDS,
    BOOK_LOST,
    LEAD_QUOTE,
    LEAD_TRADE,
    QUOTE,
    TRADE,
    QuoteEvent,
    TradeEvent,
)

if TYPE_CHECKING:
    from btc_core.market.events import Event

STEPS = 1440
"""The longest window in one-minute steps."""
WARM_UP_S = (STEPS + 30) * 60
"""An event that was received longer ago than this cannot change a row.

It is the longest window and 30 minutes of slack. The slack covers a clock that a future timestamp moved ahead
(`events.MAX_AHEAD_S`), `PRICE_MEMORY_S`, `LATE_TRADE_S`, and the delay between the exchange and us."""
MEMORY_S = STEPS * 60
"""A quote or trade older than this has no influence on `since_quote_s` and `since_trade_s`."""
MAX_SILENCE_S = 90
"""After a longer silence the windows start again at the next event. Bars come once a minute, so it must exceed 60.

Between two bars, `PRICE_MEMORY_S` takes its place: a minute without a bar is most often a minute without a trade. The mid
becomes unknown after such a silence of quotes and bars, even if trades continue."""
PRICE_MEMORY_S = 300
"""The price of a trade, or the close of a bar, is unknown from this age on, even if quotes continue.

It is a multiple of 60, so that a history of bars with missing minutes and the trades behind it know the price at the same
minutes. It is part of the slack of `WARM_UP_S`."""
LATE_TRADE_S = 600
"""For this long after a bar, a trade from before its close is ignored, because the volume of the bar contains it.

Such trades arrive at once, in the snapshot at the start of a connection."""

MINUTE_SLOTS = 1536  # of the minute rings; at least STEPS + 1
SECOND_SLOTS = 16_384  # of the counter rings; at least 240 · 60 + 60, and a power of two
RANGE_SLOTS = 2_048  # of the rings of highs, lows and mids; at least 30 · 60 + 60, and a power of two
BLOCK_STEPS = 60  # one-minute steps in a block of partial sums
BLOCK_SLOTS = 32  # of the block rings; at least STEPS / BLOCK_STEPS + 1
QUOTE_SLOTS = 64  # of the quote rings, from which the moving averages are computed
BOOK_SLOTS = 64  # of the rings of book frames, in which the book right before a trade is found
LEAD_SLOTS = 4_096  # of the rings of the leading market by second; at least an hour and a power of two
BASIS_SLOTS = 512  # of the ring of the basis by minute; at least `leader.BASIS_MEMORY_MIN`
REFILL_SLOTS = 32  # of the rings of measured trades, of whose results the resilience is the mean
NEVER = np.int64(1) << np.int64(62)
S_NS = np.int64(1_000_000_000)
QTY_SCALE = 1e8  # quantities are counted in units of 1e-8 of the base currency
NOTIONAL_SCALE = 1e9  # notionals are counted in units of 1e-9 of the quote currency: exact for prices of one decimal
WORD_BITS = 52  # of the low word of a sum, so that a float64 holds the word exactly
WORD = 2.0**WORD_BITS
LOW, HIGH = 0, 1  # the words of a sum: it is LOW + HIGH · 2**52, with 0 ≤ LOW < 2**52

EVENT_FIELDS: dict[int, tuple[str, ...]] = {
    QUOTE: ("bid", "bid_qty", "ask", "ask_qty"),
    TRADE: ("price", "qty", "sign"),
    BAR: ("open", "high", "low", "close", "volume"),
    BOOK_BIDS: ("total", "slope", "depth_1bps", "depth_5bps", "depth_10bps"),
    BOOK_ASKS: ("total", "slope", "depth_1bps", "depth_5bps", "depth_10bps"),
    BOOK_LOST: (),
    LEAD_QUOTE: ("mid",),
    LEAD_TRADE: ("qty",),
}
"""The numbers of an event by its kind. `sign` is +1 if the taker bought and −1 if the taker sold; those of a side of the
order book are explained in `depth.SIDE_MEASURES`."""
_SLOTS = ("slot_0", "slot_1", "slot_2", "slot_3", "slot_4")
EVENT = np.dtype([("ts_ns", "i8"), ("kind", "i8"), *((slot, "f8") for slot in _SLOTS)], align=True)
"""One event as the fold reads it: exchange time (of a bar, the open), kind, and the numbers of `EVENT_FIELDS`."""
PackedEvent = tuple[int, int, float, float, float, float, float]
"""A row of dtype `EVENT` as a tuple."""


def pack(event: Event) -> PackedEvent:
    """Convert an event to a row of dtype `EVENT`; slots that its kind does not need are zero."""
    if isinstance(event, QuoteEvent):
        return event.ts_event_ns, QUOTE, event.bid, event.bid_qty, event.ask, event.ask_qty, 0.0
    if isinstance(event, TradeEvent):
        return event.ts_event_ns, TRADE, event.price, event.qty, event.sign, 0.0, 0.0
    return event.ts_event_ns, BAR, event.open, event.high, event.low, event.close, event.volume


def pack_for_followers(event: QuoteEvent | TradeEvent) -> PackedEvent:
    """Convert an event of the leading market to what the folds of the other markets read of it."""
    if isinstance(event, QuoteEvent):
        return pack_lead_quote(event.ts_event_ns, event.bid, event.ask)
    return event.ts_event_ns, LEAD_TRADE, event.qty, 0.0, 0.0, 0.0, 0.0


def pack_lead_quote(ts_ns: int, bid: float, ask: float) -> PackedEvent:
    """A quote of the leading market as the folds of the other markets read it."""
    return ts_ns, LEAD_QUOTE, 0.5 * (bid + ask), 0.0, 0.0, 0.0, 0.0


def slot_of(kind: int, field: str) -> str:
    """Return the name of the slot that holds a field of a kind of event.

    >>> slot_of(TRADE, "qty")
    'slot_1'
    """
    return _SLOTS[EVENT_FIELDS[kind].index(field)]


BOOK_SIDE = np.dtype([(name, "f8") for name in EVENT_FIELDS[BOOK_BIDS]])
"""What the state holds of one side of the order book."""
STATE = np.dtype(
    [
        ("clock_ns", "i8"),  # the latest event time so far; 0 before the first event
        ("open_second_s", "i8"),  # the number of the second of the newest event
        ("mid", "f8"), ("log_mid", "f8"),
        # the price is that of the last trade, or the close of a later bar; its high and low are those of the open second
        ("price", "f8"), ("log_price", "f8"), ("high", "f8"), ("low", "f8"), ("price_ns", "i8"),
        ("bid", "f8"), ("bid_qty", "f8"), ("ask", "f8"), ("ask_qty", "f8"),  # of the last quote
        ("trade_price", "f8"),  # of the last trade
        ("quote_ns", "i8"), ("trade_ns", "i8"), ("last_event_ns", "i8"),  # the clock at the last quote, trade and event
        ("mid_ns", "i8"),  # the clock at the last quote or bar; the mid is known until MAX_SILENCE_S later
        ("last_bar_end_ns", "i8"),  # the close of the last bar, whose volume contains the trades before it
        ("ticks_since_s", "i8"), ("volume_since_s", "i8"),  # a window that begins before this second is not covered
        # counts and sums of everything so far
        ("trades", "i8"), ("quotes", "i8"), ("unchanged_mids", "i8"),  # the last are quotes that did not change the mid
        ("volume", "i8", (2,)), ("signed_volume", "i8", (2,)), ("notional", "i8", (2,)),
        ("ofi", "i8", (2,)), ("depth", "i8", (2,)),  # order flow, and the quantity at the top of the book over all quotes
        ("midnight_s", "i8"), ("volume_at_midnight", "i8", (2,)),
        ("rv_step_end_s", "i8"),  # the last 5-second boundary that is contained in rv_5s_step
        # the newest quotes, and their number since the book was last unknown
        ("bids", "f8", (QUOTE_SLOTS,)), ("bid_qtys", "f8", (QUOTE_SLOTS,)), ("ask_qtys", "f8", (QUOTE_SLOTS,)),
        ("quotes_since_reset", "i8"),
        ("log_prices", "f8", (60, MINUTE_SLOTS)),  # at the end of each second, by second of the minute and by minute
        ("highs", "f8", (RANGE_SLOTS,)), ("lows", "f8", (RANGE_SLOTS,)),  # of the log price
        ("log_mids", "f8", (RANGE_SLOTS,)),  # at the end of each second
        # the counts and sums at the end of each second
        ("trade_counts", "i8", (SECOND_SLOTS,)), ("quote_counts", "i8", (SECOND_SLOTS,)),
        ("unchanged_mid_counts", "i8", (SECOND_SLOTS,)),
        ("volumes", "i8", (SECOND_SLOTS, 2)), ("signed_volumes", "i8", (SECOND_SLOTS, 2)),
        ("notionals", "i8", (SECOND_SLOTS, 2)), ("ofis", "i8", (SECOND_SLOTS, 2)), ("depths", "i8", (SECOND_SLOTS, 2)),
        # results that depend on closed seconds only, with the second or block that each slot belongs to
        ("minute_range_end_s", "i8", (RANGE_SLOTS,)), ("minute_ranges", "f8", (RANGE_SLOTS,)),
        ("block_numbers", "i8", (60, BLOCK_SLOTS)), ("block_sums", "f8", (60, BLOCK_SLOTS, 10)),
        # the order book after its last frame; see `depth`
        ("book_ns", "i8"),  # the exchange time of that frame; 0 if the book is unknown
        ("book_bids", BOOK_SIDE), ("book_asks", BOOK_SIDE),
        # the newest frames: their exchange times, and the total quantity of bids and asks
        ("books", "i8"), ("book_times_ns", "i8", (BOOK_SLOTS,)), ("book_totals", "f8", (BOOK_SLOTS, 2)),
        # by side (bids, asks): the trade whose effect is being measured, and the results of the newest ones
        ("hit_ns", "i8", (2,)), ("hit_total", "f8", (2,)), ("refills", "i8", (2,)),
        ("refill_times_ns", "i8", (2, REFILL_SLOTS)), ("refill_logs", "f8", (2, REFILL_SLOTS)),
        ("resilience", "f8", (2,)),
        # the leading market, with a clock of its own; see `leader`
        ("lead_clock_ns", "i8"), ("lead_open_s", "i8"), ("lead_since_s", "i8"),
        ("lead_log_mid", "f8"), ("lead_closed_log_mid", "f8"),  # now, and at the end of the last closed second
        ("lead_rv", "i8"), ("lead_volume", "i8", (2,)),  # the sums of everything so far
        ("lead_log_mids", "f8", (LEAD_SLOTS,)), ("lead_rvs", "i8", (LEAD_SLOTS,)), ("lead_volumes", "i8", (LEAD_SLOTS, 2)),
        # the samples of the basis by minute, the newest minute, and their mean
        ("basis_minute", "i8"), ("basis_mean", "f8"),
        ("basis_minutes", "i8", (BASIS_SLOTS,)), ("basis_logs", "f8", (BASIS_SLOTS,)),
        # the features that change once a second, with the second they were computed at
        ("minute_features_s", "i8"), ("minute_features", ROW),
    ],
    align=True,
)  # fmt: skip


def new_state() -> np.ndarray:
    """Create the state before the first event, an array of shape (1,) and dtype `STATE` (2.9 MB)."""
    state = np.zeros(1, STATE)
    for name in (
        "mid",
        "log_mid",
        "price",
        "log_price",
        "bid",
        "bid_qty",
        "ask",
        "ask_qty",
        "trade_price",
        "resilience",
    ):
        state[name] = np.nan
    for name in ("lead_log_mid", "lead_closed_log_mid", "lead_log_mids", "basis_mean"):
        state[name] = np.nan
    state["log_prices"] = state["log_mids"] = np.nan
    for name in ("high", "highs"):
        state[name] = -np.inf
    for name in ("low", "lows"):
        state[name] = np.inf
    state["minute_range_end_s"] = state["block_numbers"] = state["basis_minutes"] = -1
    state["ticks_since_s"] = state["volume_since_s"] = state["lead_since_s"] = NEVER
    state["minute_features_s"] = -1
    return state


@njit
def copy_sum(target: Any, total: Any) -> None:
    """Copy a sum."""
    target[LOW] = total[LOW]
    target[HIGH] = total[HIGH]


@njit
def add(total: Any, units: float) -> None:
    """Add a whole number of units, which may be negative or have more than 64 bits, to a sum."""
    high = np.floor(units / WORD)
    low = total[LOW] + np.int64(units - high * WORD)
    total[LOW] = low & ((1 << WORD_BITS) - 1)
    total[HIGH] += np.int64(high) + (low >> WORD_BITS)


@njit
def difference(now: int, then: int) -> int:
    """Return `now - then`, also if the counter wrapped around in between.

    The subtraction is unsigned because the compiler may assume that a signed one never overflows, and then computes
    `now - then > 0` as `now > then`.
    """
    return int(np.int64(np.uint64(now) - np.uint64(then)))


@njit
def float_of(low: int, high: int) -> float:
    """Return a sum as the nearest float64. The low word may be out of its range, as the difference of two low words is."""
    high += low >> WORD_BITS
    return high * WORD + (low & ((1 << WORD_BITS) - 1))


@njit
def store_second(s: Any, second: int) -> None:
    """Write the values at the end of one second into the rings."""
    s.log_prices[second % 60, (second // 60) % MINUTE_SLOTS] = s.log_price
    s.log_mids[second % RANGE_SLOTS] = s.log_mid
    s.highs[second % RANGE_SLOTS] = s.high
    s.lows[second % RANGE_SLOTS] = s.low
    slot = second % SECOND_SLOTS
    s.trade_counts[slot] = s.trades
    s.quote_counts[slot] = s.quotes
    s.unchanged_mid_counts[slot] = s.unchanged_mids
    copy_sum(s.volumes[slot], s.volume)
    copy_sum(s.signed_volumes[slot], s.signed_volume)
    copy_sum(s.notionals[slot], s.notional)
    copy_sum(s.ofis[slot], s.ofi)
    copy_sum(s.depths[slot], s.depth)
    if second % 86_400 == 0:
        s.midnight_s = second
        copy_sum(s.volume_at_midnight, s.volume)


@njit
def _forget_mid(s: Any) -> None:
    """Make the mid and the book unknown."""
    s.mid = s.log_mid = math.nan
    s.bid = s.ask = s.bid_qty = s.ask_qty = math.nan
    s.quotes_since_reset = 0


@njit
def _advance_clock(s: Any, ts_ns: int, max_silence_s: int) -> None:
    """Advance the clock to `ts_ns` and close every second that ended before it; a longer silence ends all windows."""
    second_s = -(-ts_ns // S_NS)
    if s.clock_ns == 0:
        s.open_second_s = second_s - 1
        s.last_event_ns = ts_ns
        s.rv_step_end_s = (second_s - 1) // 5 * 5
    s.clock_ns = max(s.clock_ns, ts_ns)
    if s.clock_ns - s.last_event_ns > max_silence_s * S_NS:
        s.ticks_since_s = s.volume_since_s = NEVER
    # the longest ring does not reach further back than this, so older seconds need not be stored
    first = max(s.open_second_s, second_s - MINUTE_SLOTS * 60)
    for second in range(first, second_s):
        if second * S_NS - s.mid_ns > MAX_SILENCE_S * S_NS:
            _forget_mid(s)
        if second * S_NS - s.price_ns >= PRICE_MEMORY_S * S_NS:
            s.price = s.log_price = math.nan
            s.high, s.low = -math.inf, math.inf
        store_second(s, second)
        s.high = s.log_price if s.log_price == s.log_price else -math.inf
        s.low = s.log_price if s.log_price == s.log_price else math.inf
    if first > s.open_second_s:
        s.midnight_s = (second_s - 1) // 86_400 * 86_400
        copy_sum(s.volume_at_midnight, s.volume)
    if s.clock_ns - s.mid_ns > MAX_SILENCE_S * S_NS:
        _forget_mid(s)
    if s.clock_ns - s.price_ns >= PRICE_MEMORY_S * S_NS:
        s.price = s.log_price = math.nan  # the range of the open second stays: the price was known for a part of it
    s.open_second_s = max(s.open_second_s, second_s)


@njit
def _set_mid(s: Any, mid: float) -> None:
    """Set the mid, and mark the minute features as outdated if the clock is at the end of a second."""
    s.mid = mid
    s.mid_ns = s.clock_ns
    s.log_mid = math.log(mid)
    s.minute_features_s = -1 if s.clock_ns % S_NS == 0 else s.minute_features_s


@njit
def _set_price(s: Any, price: float) -> None:
    """Set the price, and mark the minute features as outdated if the clock is at the end of a second."""
    s.price = price
    s.price_ns = s.clock_ns
    s.log_price = math.log(price)
    s.high = max(s.high, s.log_price)
    s.low = min(s.low, s.log_price)
    s.minute_features_s = -1 if s.clock_ns % S_NS == 0 else s.minute_features_s


@njit
def _start_windows(s: Any) -> None:
    """Start the windows at the first quote or trade after a start, a long silence or a bar."""
    if s.ticks_since_s == NEVER:
        s.ticks_since_s = s.open_second_s
    if s.volume_since_s == NEVER:
        s.volume_since_s = s.open_second_s


@njit
def _side_flow(before: float, before_qty: float, after: float, after_qty: float, direction: float) -> float:
    """Return one side of the order-flow imbalance: the added minus the removed quantity."""
    if (after - before) * direction > 0.0:
        return after_qty
    if (after - before) * direction < 0.0:
        return -before_qty
    return after_qty - before_qty


@njit
def _apply_quote(s: Any, bid: float, bid_qty: float, ask: float, ask_qty: float) -> None:
    """Apply a quote: count it, add its order flow, and put it into the quote rings."""
    _start_windows(s)
    mid = 0.5 * (bid + ask)
    if s.bid == s.bid:
        flow = _side_flow(s.bid, s.bid_qty, bid, bid_qty, 1.0) - _side_flow(s.ask, s.ask_qty, ask, ask_qty, -1.0)
        add(s.ofi, np.rint(flow * QTY_SCALE))
        s.unchanged_mids += 1 if mid == s.mid else 0
    s.quotes += 1
    add(s.depth, np.rint((bid_qty + ask_qty) * QTY_SCALE))
    s.bid, s.bid_qty, s.ask, s.ask_qty = bid, bid_qty, ask, ask_qty
    slot = s.quotes_since_reset % QUOTE_SLOTS
    s.bids[slot] = bid
    s.bid_qtys[slot] = bid_qty
    s.ask_qtys[slot] = ask_qty
    s.quotes_since_reset += 1
    _set_mid(s, mid)


@njit
def _apply_trade(s: Any, price: float, qty: float, sign: float) -> None:
    """Apply a trade: count it, and add its quantity, signed quantity and notional to the sums."""
    _start_windows(s)
    units = np.rint(qty * QTY_SCALE)
    add(s.volume, units)
    add(s.signed_volume, units if sign > 0.0 else -units)
    add(s.notional, np.rint(price * qty * NOTIONAL_SCALE))
    s.trades += 1
    s.trade_price = price
    _set_price(s, price)


@njit
def _apply_bar(s: Any, open_: float, high: float, low: float, close: float, volume: float) -> None:
    """Apply a closed minute bar: its close becomes the price and the mid, and the book becomes unknown."""
    if s.volume_since_s == NEVER:
        s.volume_since_s = s.open_second_s - 60
    if s.log_price != s.log_price:  # the price a minute ago is unknown; the open is the best estimate of it
        before = s.open_second_s - 60
        s.log_prices[before % 60, (before // 60) % MINUTE_SLOTS] = math.log(open_)
    s.last_bar_end_ns = s.clock_ns
    s.ticks_since_s = NEVER
    s.quotes_since_reset = 0
    s.bid = s.bid_qty = s.ask = s.ask_qty = math.nan
    add(s.volume, np.rint(volume * QTY_SCALE))
    _set_mid(s, close)
    _set_price(s, close)
    s.high = math.log(high)
    s.low = math.log(low)


@njit
def apply_event(s: Any, event: Any) -> bool:
    """Apply one event; return False for a bar that begins before the clock, which changes nothing."""
    if event.kind == BAR:
        begin_s = event.ts_ns // S_NS
        if s.clock_ns > event.ts_ns:
            return False
        follows_bar = s.last_event_ns == s.last_bar_end_ns
        _advance_clock(s, (begin_s + 60) * S_NS, PRICE_MEMORY_S - 1 if follows_bar else MAX_SILENCE_S)
        _apply_bar(s, event.slot_0, event.slot_1, event.slot_2, event.slot_3, event.slot_4)
    else:
        _advance_clock(s, event.ts_ns, MAX_SILENCE_S)
        if event.kind == QUOTE:
            _apply_quote(s, event.slot_0, event.slot_1, event.slot_2, event.slot_3)
        elif event.ts_ns >= s.last_bar_end_ns or s.clock_ns - s.last_bar_end_ns > LATE_TRADE_S * S_NS:
            _apply_trade(s, event.slot_0, event.slot_1, event.slot_2)
    return True
