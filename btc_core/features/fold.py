"""THE fold: market events in, feature rows out, compiled with numba.

One state per symbol, changed in place by `fold`. The state is a function of the events of the last
`WARM_UP_S` seconds and nothing older: sums over windows are differences of integer counters, and everything
else is computed anew from rings. So a worker that folds the warm-up window again has, to the last bit, the state
of one that never stopped. (Integers wrap; differences stay right.)

Time is the running maximum of the events' exchange time: a late event counts as happening now.
What does not belong here: frames and validation (`events`), names and units (`features`).
"""

from __future__ import annotations

import math
from typing import Any

from btc_core.compiled import njit
from btc_core.features.formulas import write_row
from btc_core.features.state import MEMORY_S, S_NS, apply_event
from btc_core.market.events import BAR, QUOTE, TRADE

EMIT_NONE, EMIT_TICKS, EMIT_BARS = 0, 1, 2
"""Which events give a row: none (warm-up), every quote and trade, or every bar."""


@njit
def _since_s(clock_ns: int, then_ns: int) -> float:
    """Seconds since an event; NaN when there was none within `MEMORY_S`."""
    if then_ns == 0 or clock_ns - then_ns > MEMORY_S * S_NS:
        return math.nan
    return (clock_ns - then_ns) / 1e9


@njit
def fold(state: Any, events: Any, rows: Any, emit: int) -> int:
    """Apply `events` (dtype `EVENT`, in order) to `state`; write and count the rows.

    `rows` (dtype `ROW`) must hold one row per event that gives one: `EMIT_TICKS` quotes and trades, `EMIT_BARS` bars
    (a bar that the state already covers changes nothing and gives the row of the state as it is), `EMIT_NONE` none.
    """
    s = state[0]
    written = 0
    for i in range(len(events)):
        event = events[i]
        quote_ns, trade_ns = s.quote_ns, s.trade_ns
        applied = apply_event(s, event)
        if applied and event.kind == QUOTE:
            s.quote_ns = s.seen_ns = s.clock_ns
        elif applied and event.kind == TRADE:
            s.trade_ns = s.clock_ns
            s.seen_ns = s.clock_ns
        elif applied:
            s.seen_ns = s.clock_ns
        if (emit == EMIT_TICKS and event.kind != BAR) or (emit == EMIT_BARS and event.kind == BAR):
            write_row(s, rows[written], _since_s(s.clock_ns, quote_ns), _since_s(s.clock_ns, trade_ns))
            written += 1
        else:
            s.grid_s = max(s.grid_s, (s.edge_s - 1) // 5 * 5)
    return written
