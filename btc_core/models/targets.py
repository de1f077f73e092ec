"""What the models forecast: returns and realized variances of the next minutes, over each horizon, joined by time.

A label at origin t (a bar's close, or the time of a live row) uses the prices at t, t + 1 min, … t + h min and nothing
else. Prices are looked up by time, so a missing minute makes every label that needs it NaN.
What does not belong here: features (`btc_core.features`), and scores of forecasts against these labels (`scores`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from btc_core.clock import NS_PER_MIN
from btc_core.names import APART_MIN, HEADLINE_MIN, HORIZONS_MIN, MINUTES, TICKS, VolatilityTarget

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Longs = npt.NDArray[np.int64]

BID_TARGETS: tuple[str, ...] = tuple(f"bid_{h}m_bps" for h in HORIZONS_MIN)
"""10⁴ ln(bid[t + h] / bid[t]). In a history of bars the close takes the place of the bid, since bars hold no quotes."""
RV_TARGETS: tuple[str, ...] = tuple(f"rv_1m_grid_{h}m" for h in HORIZONS_MIN)
"""Sum of squared one-minute log returns over (t, t + h min]. The name says the grid, since other grids are other targets."""

TICK_RV_TARGETS: tuple[str, ...] = tuple(f"rv_5s_grid_{h}m" for h in HORIZONS_MIN)
"""The realized variance of ticks over (t, t + h min] (`btc_core.models.tick_variance`)."""
VARIANCE_TARGETS: dict[VolatilityTarget, tuple[str, ...]] = {MINUTES: RV_TARGETS, TICKS: TICK_RV_TARGETS}
"""The names of the labels of a volatility model, by what it forecasts."""

LABEL_SPAN_NS = HEADLINE_MIN * NS_PER_MIN
"""How far a label looks ahead. Rows nearer than this to a test block must not be trained on."""
APART_NS = APART_MIN * NS_PER_MIN
"""Outcomes of origins at multiples of this move the intervals and the level; their labels do not overlap."""


def known_outcomes(origin_ns: Longs) -> tuple[Longs, Longs]:
    """The places of the origins whose outcomes move levels and intervals, and for each origin how many of these it knows.

    They are at multiples of `APART_MIN`, and an outcome is known after the longest horizon. `origin_ns` ascends.
    """
    moving = np.flatnonzero(origin_ns % APART_NS == 0)
    return moving, np.searchsorted(origin_ns[moving] + LABEL_SPAN_NS, origin_ns, side="right")


def close_times_ns(open_ns: Longs) -> Longs:
    """Origins of minute bars, which are their closing times, ns, from their opening times."""
    return np.asarray(open_ns, np.int64) + NS_PER_MIN


def log_price_path(ts_ns: Longs, price: Floats) -> Floats:
    """ln(price[t + k min] / price[t]) for every minute up to the longest horizon; NaN where that exact minute is missing.

    `ts_ns` is sorted and without duplicates; prices that are not positive count as missing.
    """
    ts = np.asarray(ts_ns, np.int64)
    with np.errstate(invalid="ignore", divide="ignore"):
        log_price = np.where(price > 0.0, np.log(price), np.nan)
    path = np.full((len(ts), HEADLINE_MIN), np.nan)
    for column in range(HEADLINE_MIN):
        wanted = ts + (column + 1) * NS_PER_MIN
        at = np.searchsorted(ts, wanted)
        inside = at < len(ts)
        found = np.zeros(len(ts), np.bool_)
        found[inside] = ts[at[inside]] == wanted[inside]
        path[found, column] = log_price[at[found]] - log_price[found]
    return path


def _horizon_places() -> Longs:
    """The places of the horizons in a path of every minute."""
    return np.asarray(HORIZONS_MIN) - 1


def bid_path_bps(ts_ns: Longs, price: Floats) -> Floats:
    """Targets `BID_TARGETS`, bps, shape (n, horizons)."""
    return log_price_path(ts_ns, price)[:, _horizon_places()] * 1e4


def realized_variance(ts_ns: Longs, price: Floats) -> Floats:
    """Targets `RV_TARGETS`, ln², shape (n, horizons), sums over every minute; NaN from the first missing minute on."""
    path = log_price_path(ts_ns, price)
    steps = np.diff(path, axis=1, prepend=0.0)
    return np.cumsum(steps * steps, axis=1)[:, _horizon_places()]
