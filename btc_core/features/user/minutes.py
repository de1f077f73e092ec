"""The closed minutes of a market that a user's feature reads, from the events of the stream or from stored minute bars.

A minute ends with the clock of the fold, which is the latest exchange time so far, so a late trade counts in the minute in
progress. In a minute without a trade, the prices, volumes and trade count are NaN. In a minute that the stream saw only in
part, or that follows a silence, every number except `end_min` is NaN. Numbers of quotes, and the sides of trades, are NaN in
minutes that came as bars.
What does not belong here: the user's functions (`compile`), and their values (`values`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from btc_core.clock import NS_PER_MIN
from btc_core.compiled import njit
from btc_core.features.state import LATE_TRADE_S, MAX_SILENCE_S, S_NS
from btc_core.market.events import BAR, QUOTE, TRADE

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

MINUTES_REVISION = 1
"""Raise this whenever the minutes of the same events change. Values of another revision are not mixed."""
LONGEST = 1440
"""Most minutes that a feature may read. The features worker rebuilds its state from a day of the log (`WARM_UP_S`)."""


class Minutes(NamedTuple):
    """What a feature gets: one array for each number, oldest minute first, so that index −1 is the minute just closed."""

    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    trades: Floats
    signed_volume: Floats
    quotes: Floats
    spread_bps: Floats
    top_imbalance: Floats
    end_min: Floats


FIELDS = {
    "open": "first trade price, USD",
    "high": "highest trade price, USD",
    "low": "lowest trade price, USD",
    "close": "last trade price, USD",
    "volume": "traded quantity, base units",
    "trades": "number of trades",
    "signed_volume": "quantity bought by takers minus quantity sold by takers, base units",
    "quotes": "number of quotes",
    "spread_bps": "mean over the quotes of ask minus bid, divided by the mid, bps",
    "top_imbalance": "mean over the quotes of (bid quantity − ask quantity) / (bid quantity + ask quantity)",
    "end_min": "end of the minute, in minutes since 1970 (UTC); never NaN",
}
"""Each field of `Minutes` with its meaning and unit."""
_OPEN, _HIGH, _LOW, _CLOSE, _VOLUME, _TRADES, _SIGNED, _QUOTES, _SPREAD, _IMBALANCE, _END = range(len(Minutes._fields))
_SLOTS = 2 * LONGEST
MINUTES_STATE = np.dtype(
    [
        ("clock_ns", "i8"),  # the latest event time so far; 0 before the first event
        ("minute", "i8"),  # the minute in progress
        ("is_whole", "i8"),  # whether the stream has seen the minute in progress from its begin
        ("last_bar_end_ns", "i8"),  # the close of the last bar, whose volume contains the trades before it
        ("valued", "i8"),  # the minute in progress at the last stop of `fold_minutes`
        ("count", "i8"),  # closed minutes in `closed`
        ("running", "f8", (len(Minutes._fields),)),  # the minute in progress; spread and imbalance are sums
        ("closed", "f8", (len(Minutes._fields), _SLOTS)),  # oldest first; unknown minutes are NaN
    ],
    align=True,
)


def new_minutes() -> np.ndarray:
    """Create the state before the first event, an array of shape (1,) and dtype `MINUTES_STATE` (253 kB)."""
    state = np.zeros(1, MINUTES_STATE)
    state["closed"] = math.nan
    state["count"] = LONGEST
    return state


def minutes_of_bars(bars: npt.NDArray[Any], first_min: int, count: int) -> Floats:
    """The minutes of bars (dtype `bars.BARS`) from `first_min` on, (fields, count); unknown where there is no bar."""
    fields = np.full((len(Minutes._fields), count), math.nan)
    places = bars["ts_ns"] // NS_PER_MIN - first_min
    for place, name in enumerate(("open", "high", "low", "close", "volume")):
        fields[place, places] = bars[name]
    fields[_TRADES, places] = np.where(bars["trades"] < 0, math.nan, bars["trades"])
    fields[_END] = first_min + 1.0 + np.arange(count)
    return fields


@njit
def _empty(running: Any) -> None:
    running[:] = 0.0
    running[_OPEN] = running[_HIGH] = running[_LOW] = running[_CLOSE] = math.nan


@njit
def _close(s: Any) -> None:
    """Append the minute in progress to the closed minutes; moves these to the front when there is no room."""
    if s.count == _SLOTS:
        for field in range(len(s.running)):
            for k in range(LONGEST):
                s.closed[field, k] = s.closed[field, _SLOTS - LONGEST + k]
        s.count = LONGEST
    row, at = s.running, s.count
    s.closed[:, at] = math.nan
    if s.is_whole == 1:
        if row[_TRADES] > 0.0:
            for field in range(_SIGNED + 1):
                s.closed[field, at] = row[field]
        s.closed[_QUOTES, at] = row[_QUOTES]
        if row[_QUOTES] > 0.0:
            s.closed[_SPREAD, at] = row[_SPREAD] / row[_QUOTES]
            s.closed[_IMBALANCE, at] = row[_IMBALANCE] / row[_QUOTES]
    s.minute += 1
    s.closed[_END, at] = float(s.minute)
    s.count += 1
    s.is_whole = 0
    _empty(row)


@njit
def _begin(s: Any, minute: int) -> None:
    """Start with a minute that the stream sees only in part; every minute before it is unknown."""
    s.closed[:] = math.nan
    for k in range(LONGEST):
        s.closed[_END, k] = float(minute - LONGEST + 1 + k)
    s.count, s.minute, s.is_whole = LONGEST, minute, 0
    _empty(s.running)


@njit
def _advance(s: Any, clock_ns: int) -> None:
    """Close the minutes that end until `clock_ns`. The minute of the first event after a silence or a bar is not whole."""
    minute = clock_ns // NS_PER_MIN
    if s.clock_ns == 0:
        _begin(s, minute)
        s.valued = minute
    elif minute - s.minute > LONGEST:
        _begin(s, minute)
    elif minute > s.minute:
        while s.minute < minute:
            _close(s)
        follows = s.clock_ns != s.last_bar_end_ns and clock_ns - s.clock_ns <= MAX_SILENCE_S * S_NS
        s.is_whole = 1 if follows else 0
    s.clock_ns = clock_ns


@njit
def _apply_bar(s: Any, event: Any) -> None:
    """Store a bar, which does not begin before the clock, at its minute. The next minute counts as incomplete."""
    _advance(s, event.ts_ns)
    _close(s)
    at = s.count - 1
    s.closed[_OPEN, at], s.closed[_HIGH, at], s.closed[_LOW, at] = event.slot_0, event.slot_1, event.slot_2
    s.closed[_CLOSE, at], s.closed[_VOLUME, at] = event.slot_3, event.slot_4
    s.clock_ns = s.last_bar_end_ns = s.minute * NS_PER_MIN


@njit
def _apply_tick(s: Any, event: Any) -> None:
    row = s.running
    if event.kind == QUOTE:
        bid, bid_qty, ask, ask_qty = event.slot_0, event.slot_1, event.slot_2, event.slot_3
        row[_QUOTES] += 1.0
        row[_SPREAD] += (ask - bid) / (0.5 * (ask + bid)) * 1e4
        row[_IMBALANCE] += (bid_qty - ask_qty) / (bid_qty + ask_qty) if bid_qty + ask_qty > 0.0 else 0.0
    elif event.ts_ns >= s.last_bar_end_ns or s.clock_ns - s.last_bar_end_ns > LATE_TRADE_S * S_NS:
        price, qty = event.slot_0, event.slot_1
        if row[_TRADES] == 0.0:
            row[_OPEN] = row[_HIGH] = row[_LOW] = price
        row[_HIGH], row[_LOW], row[_CLOSE] = max(row[_HIGH], price), min(row[_LOW], price), price
        row[_VOLUME] += qty
        row[_SIGNED] += qty if event.slot_2 > 0.0 else -qty
        row[_TRADES] += 1.0


@njit
def fold_minutes(state: Any, events: Any, start: int) -> int:
    """Apply events (dtype `EVENT`) from place `start` on, up to the first quote or trade after the close of a minute.

    Returns its index, or `len(events)`. The event at the returned index has not been applied; the last closed minute ends
    before it. Call again from that index to continue.
    """
    s = state[0]
    for i in range(start, len(events)):
        event = events[i]
        if event.kind == BAR:
            if s.clock_ns <= event.ts_ns:
                _apply_bar(s, event)
        elif event.kind == QUOTE or event.kind == TRADE:  # noqa: PLR1714 - numba compiles no test of a set
            _advance(s, max(s.clock_ns, event.ts_ns))
            if s.valued != s.minute:
                s.valued = s.minute
                return i
            _apply_tick(s, event)
    return len(events)
