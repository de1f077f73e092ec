"""The fold: market events in, feature rows out, compiled with numba.

There is one state per symbol, which `fold` changes in place. The state depends on the events of the last `WARM_UP_S`
seconds and on nothing older: sums over windows are differences of integers, and everything else is recomputed from
rings. A worker that folds the events of the warm-up window again therefore gives, to the last bit, the rows of a worker
that never stopped.

Quantities and notionals are summed in fixed units in integers of two words, which hold more than any market trades: a
cheap coin trades 1e13 coins a day. The units are constants, so that no row depends on the event that came first.

The clock is the latest exchange time of all quotes, trades and bars so far, so a late event counts as if it happened now.
Events of the order book and of the leading market give no row and do not move the clock; the next row shows what they
changed.
What does not belong here: frames and their checks (`market.events`), or names and units of features (`catalogue`).
"""

from __future__ import annotations

import math
from typing import Any

from btc_core.compiled import njit
from btc_core.features.depth import apply_book, measure_refills, note_hit
from btc_core.features.formulas import write_row
from btc_core.features.leader import apply_leader, sample_basis
from btc_core.features.state import MEMORY_S, S_NS, apply_event
from btc_core.market.events import BAR, LEAD_QUOTE, QUOTE, TRADE

EMIT_NONE, EMIT_TICKS, EMIT_BARS = 0, 1, 2
"""The events that give a row: none (during a warm-up), every quote and trade, or every bar."""


@njit
def _since_s(clock_ns: int, then_ns: int) -> float:
    """Return the seconds since an event; NaN if there was none within `MEMORY_S`."""
    if then_ns == 0 or clock_ns - then_ns > MEMORY_S * S_NS:
        return math.nan
    return (clock_ns - then_ns) / 1e9


@njit
def fold(state: Any, events: Any, rows: Any, emit: int) -> int:
    """Apply `events` (dtype `EVENT`, in order) to `state`, write feature rows, and return their number.

    `rows` (dtype `ROW`) must have room for one row per event that gives one: quotes and trades with `EMIT_TICKS`, bars
    with `EMIT_BARS`. A bar that begins before the clock does not change the state, but still gives a row.
    """
    s = state[0]
    written = 0
    for i in range(len(events)):
        event = events[i]
        if event.kind >= LEAD_QUOTE:
            apply_leader(s, event)
            continue
        if event.kind > BAR:
            apply_book(s, event)
            continue
        if s.lead_clock_ns != 0:
            sample_basis(s, event)
        quote_ns, trade_ns = s.quote_ns, s.trade_ns
        applied = apply_event(s, event)
        if s.books > 0:
            measure_refills(s, s.clock_ns)
        if applied and event.kind == QUOTE:
            s.quote_ns = s.last_event_ns = s.clock_ns
        elif applied and event.kind == TRADE:
            note_hit(s, event.ts_ns, event.slot_2)
            s.trade_ns = s.clock_ns
            s.last_event_ns = s.clock_ns
        elif applied:
            s.last_event_ns = s.clock_ns
        if (emit == EMIT_TICKS and event.kind != BAR) or (emit == EMIT_BARS and event.kind == BAR):
            write_row(s, rows[written], _since_s(s.clock_ns, quote_ns), _since_s(s.clock_ns, trade_ns))
            written += 1
        else:
            s.rv_step_end_s = max(s.rv_step_end_s, (s.open_second_s - 1) // 5 * 5)
    return written
