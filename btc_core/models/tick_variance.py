"""The realized variance of ticks: from prices on a 5-second grid, averaged over shifted grids.

The prices are the mids of the stream, which do not jump between bid and ask as trades do. A grid of five seconds begins at
each of five seconds, and the variance is the mean over these five grids (Zhang, Mykland and Aït-Sahalia 2005), so that all
prices of whole seconds count. Imported trades have no quotes. Their prices bounce, which makes neighbouring returns correlate
negatively, and twice the sum of their products is added (Zhou 1996; Hansen and Lunde 2006).
What does not belong here: where prices are stored (`btc_core.days.tick_labels`), and the variance of minutes (`targets`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from btc_core.clock import NS_PER_S
from btc_core.names import FRESH_ROW_NS, HEADLINE_MIN, HORIZONS_MIN

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Longs = npt.NDArray[np.int64]

GRID_S = 5
"""Seconds between two prices of a grid. Below it, the discreteness of prices and stale quotes dominate."""
MINUTE_S = 60
SPAN_S = HEADLINE_MIN * MINUTE_S


def is_current(ts_ns: Longs, clock_ns: Longs) -> npt.NDArray[np.bool_]:
    """Which rows came before the clock of the log had passed their second. The others hold prices of another time."""
    return np.asarray(ts_ns // NS_PER_S == clock_ns // NS_PER_S)


def log_price_by_second(clock_ns: Longs, price: Floats, first_s: int, last_s: int) -> Floats:
    """The log of the price at each whole second from `first_s` to `last_s`: that of the last row before it.

    Rows are in the order of the log, and `clock_ns` never falls. NaN before the first price, and at the end of a minute
    whose last price is older than `FRESH_ROW_NS`.
    """
    seconds = np.arange(first_s, last_s + 1)
    logs = np.full(len(seconds), np.nan)
    known = np.flatnonzero(price > 0.0)
    if not len(known):
        return logs
    at = np.searchsorted(clock_ns[known], seconds * NS_PER_S, side="left") - 1
    last = known[np.maximum(at, 0)]
    is_stale = (seconds % MINUTE_S == 0) & (seconds * NS_PER_S - clock_ns[last] > FRESH_ROW_NS)
    return np.where((at < 0) | is_stale, np.nan, np.log(price[last]))


def tick_variance(log_price: Floats, origins_s: Longs, first_s: int, *, bounces: bool = False) -> Floats:
    """Targets `TICK_RV_TARGETS` at origins, ln², (n, horizons); NaN where the price is not known at a minute of them.

    `log_price` has the prices of whole seconds from `first_s` on. A window of h minutes holds five shifted grids, which
    together miss four of its seconds; the sum is scaled up for them. With `bounces`, prices are those of trades.
    """
    steps = np.full(len(log_price), np.nan)
    steps[GRID_S:] = log_price[GRID_S:] - log_price[:-GRID_S]
    products = np.full(len(log_price), np.nan)
    products[GRID_S:] = steps[GRID_S:] * steps[:-GRID_S]
    variance = np.full((len(origins_s), len(HORIZONS_MIN)), np.nan)
    for row, begin in enumerate((origins_s - first_s).tolist()):
        if begin < 0 or begin + SPAN_S >= len(log_price):
            continue
        if np.isnan(log_price[begin : begin + SPAN_S + 1 : MINUTE_S]).any():
            continue
        for column, minutes in enumerate(HORIZONS_MIN):
            span = minutes * MINUTE_S
            inside = steps[begin + GRID_S : begin + span + 1]
            total = inside @ inside / GRID_S * span / (span - GRID_S + 1)
            if bounces:
                total += 2.0 * products[begin + 2 * GRID_S : begin + span + 1].sum() / GRID_S
            variance[row, column] = max(total, 0.0)
    return np.maximum.accumulate(variance, axis=1)


def origins_between(first_s: int, last_s: int) -> Longs:
    """The ends of minutes, in seconds, from which a whole window lies between two times."""
    return np.arange(-(-first_s // MINUTE_S) * MINUTE_S, last_s - SPAN_S + 1, MINUTE_S).astype(np.int64)
