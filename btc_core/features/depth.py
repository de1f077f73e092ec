"""The features of the order book: its shape after each frame, and how fast it refills after trades.

`side_measures` reduces a book to five numbers for each side, which the fold takes as two events. A frame of the book
gives no row and does not move the clock of the fold: it changes what the next row says. A book is unknown before its
first snapshot, after a wrong checksum, and `MAX_SNAPSHOT_AGE_S` after its last snapshot, so that no row depends on a
frame from before the warm-up. Distances are from the mid of the book itself, not from that of the last quote.
What does not belong here: frames and their checksums (`book_reader`).

**Slope.** With the distances d₁ … dₙ of the n ≤ 10 best levels of a side from the mid and the cumulative quantities
q₁ … qₙ, the slope is the least-squares b in ln qₖ = a + b ln dₖ. Næs and Skjeltorp ("Order book characteristics and the
volume-volatility relation", Journal of Financial Markets 9, 2006) average the local elasticities of the cumulative
quantity over the levels, with logs of numbers of shares, which are negative for fractions of a coin. This regression is
the elasticity of a whole side and has no unit.

**Depth.** The quantity within a distance is divided by the quantity that the market trades per minute, so that a model
can read it in any market: 0.69 = ln 2 means that it takes one average minute to trade through it. The exchange sends ten
levels. If they end before the distance, the quantity is not known, and the feature is NaN.

**Resilience.** A trade hits the ask side if the taker bought, else the bid side. Q₀ is the total quantity of that side
after the newest frame with an exchange time before that of the trade. Q₁ is its total quantity when the first frame, quote
or trade arrives whose time is `REFILL_DELAY_S` or more after the trade, before that event is applied. The trade's result
is ln(Q₁ / Q₀). A side measures one trade at a time, and none that arrives later than the delay. The feature is
the mean of the newest results of the last `REFILL_MEMORY_S`, weighted by 0.5^(k / 8) for the k-th newest. Large
("Measuring the resiliency of an electronic limit order book", Journal of Financial Markets 10, 2007) asks, as this does,
whether and how fast the book is replenished after a trade; the fixed delay keeps the measure free of a fitted model.
"""

from __future__ import annotations

import math
from itertools import chain
from typing import Any

import numpy as np

from btc_core.compiled import njit
from btc_core.features.state import BOOK_SLOTS, NEVER, QTY_SCALE, REFILL_SLOTS, S_NS, SECOND_SLOTS, difference, float_of
from btc_core.market.events import BOOK_ASKS, BOOK_BIDS

LEVELS = 10
"""Levels of each side that the features use: the exchange sends ten."""
SIDE_MEASURES = ("total", "slope", "depth_1bps", "depth_5bps", "depth_10bps")
"""The five numbers of a side: the quantity of its best levels, the slope, and the quantity within each distance."""
MAX_BOOK_AGE_S = 90
"""An older book is not used. Ingest asks for a new snapshot when a book is silent for 8 to 60 s."""
MAX_SHOWN_AGE_S = 3_600
"""The age of an older book is NaN."""
MAX_SNAPSHOT_AGE_S = 6 * 3_600
"""A book is unknown this long after its snapshot. Ingest asks for one every hour."""
REFILL_DELAY_S = 5
"""Time between a trade and the look at what came back. Refilling takes seconds, and after a minute the price has moved."""
REFILL_MEMORY_S = 3_600
"""Older results are not used."""
BOOK_MEMORY_S = MAX_SNAPSHOT_AGE_S + 2 * REFILL_MEMORY_S
"""Frames of the book that are older than this have no influence on a row, unless ingest has got no snapshot for hours."""

_VOLUME_MIN = 240  # minutes over which the traded quantity is averaged: the longest window of the volume rings
_DECAY = 0.5 ** (1.0 / 8.0)
_BIDS, _ASKS = 0, 1
_NO_LEVELS = (0.0,) * (2 * LEVELS)
"""The prices and quantities of a side without levels."""


@njit
def side_measures(levels: Any, count: int, mid: float, measures: Any) -> None:
    """Write the measures of one side of a book (see `SIDE_MEASURES`) into `measures`.

    `levels` (levels, 2) are price and quantity, best first, of which `count` exist. Without levels, or if the best level
    is not beyond the mid, all measures are NaN.
    """
    measures[:] = math.nan
    if count == 0 or not abs(levels[0, 0] - mid) > 0.0:
        return
    cumulative, distance_bps = 0.0, 0.0
    depth_1, depth_5, depth_10 = 0.0, 0.0, 0.0
    first_x = math.log(abs(levels[0, 0] - mid))
    sum_x, sum_y, sum_xx, sum_xy = 0.0, 0.0, 0.0, 0.0
    for k in range(count):
        distance = abs(levels[k, 0] - mid)
        distance_bps = distance / mid * 1e4
        cumulative += levels[k, 1]
        depth_1 = cumulative if distance_bps <= 1.0 else depth_1
        depth_5 = cumulative if distance_bps <= 5.0 else depth_5
        depth_10 = cumulative if distance_bps <= 10.0 else depth_10
        x, y = math.log(distance) - first_x, math.log(cumulative)
        sum_x += x
        sum_y += y
        sum_xx += x * x
        sum_xy += x * y
    measures[0] = cumulative
    spread_x = sum_xx - sum_x * sum_x / count
    if count >= 3 and spread_x > 0.0:
        measures[1] = (sum_xy - sum_x * sum_y / count) / spread_x
    reach_bps = distance_bps if count >= LEVELS else math.inf  # a side with fewer levels has no others
    measures[2] = depth_1 if reach_bps > 1.0 else math.nan
    measures[3] = depth_5 if reach_bps > 5.0 else math.nan
    measures[4] = depth_10 if reach_bps > 10.0 else math.nan


@njit
def book_measures(levels: Any, bids: int, asks: int, measures: Any) -> None:
    """Write the measures of both sides of a book into `measures` (2, 5); NaN if the best bid is not below the best ask.

    `levels` (2, levels, 2) holds the bids, of which `bids` exist, and the asks.
    """
    measures[:] = math.nan
    if bids > 0 and asks > 0 and levels[_BIDS, 0, 0] < levels[_ASKS, 0, 0]:
        mid = 0.5 * (levels[_BIDS, 0, 0] + levels[_ASKS, 0, 0])
        side_measures(levels[_BIDS], bids, mid, measures[_BIDS])
        side_measures(levels[_ASKS], asks, mid, measures[_ASKS])


@njit
def apply_book(s: Any, event: Any) -> None:
    """Apply an event of the order book. The asks of a frame come right after its bids and complete it."""
    if event.kind == BOOK_BIDS:
        measure_refills(s, event.ts_ns)
        _copy_side(event, s.book_bids)
    elif event.kind == BOOK_ASKS:
        _copy_side(event, s.book_asks)
        s.book_ns = event.ts_ns
        slot = s.books % BOOK_SLOTS
        s.book_times_ns[slot] = event.ts_ns
        s.book_totals[slot, _BIDS] = s.book_bids.total
        s.book_totals[slot, _ASKS] = s.book_asks.total
        s.books += 1
    else:  # the book is lost
        s.book_ns = 0
        s.books = 0
        s.hit_ns[:] = 0


@njit
def _copy_side(event: Any, side: Any) -> None:
    side.total = event.slot_0
    side.slope = event.slot_1
    side.depth_1bps = event.slot_2
    side.depth_5bps = event.slot_3
    side.depth_10bps = event.slot_4


@njit
def _is_usable(s: Any, at_ns: int) -> bool:
    """Whether the book is known and young enough at a time."""
    return bool(s.book_ns != 0 and at_ns - s.book_ns <= MAX_BOOK_AGE_S * S_NS)


@njit
def note_hit(s: Any, ts_ns: int, sign: float) -> None:
    """Begin to measure a trade if its side measures no other one and the book right before it is known."""
    side = _ASKS if sign > 0.0 else _BIDS
    is_late = s.clock_ns - ts_ns >= REFILL_DELAY_S * S_NS
    if s.hit_ns[side] != 0 or is_late or not _is_usable(s, ts_ns):
        return
    for back in range(min(s.books, BOOK_SLOTS)):
        slot = (s.books - 1 - back) % BOOK_SLOTS
        if s.book_times_ns[slot] < ts_ns:
            total = s.book_totals[slot, side]
            if total > 0.0 and ts_ns - s.book_times_ns[slot] <= MAX_BOOK_AGE_S * S_NS:
                s.hit_ns[side], s.hit_total[side] = ts_ns, total
            return


@njit
def measure_refills(s: Any, now_ns: int) -> None:
    """Take the results of the trades whose delay has passed, from the book as it is now."""
    for side in range(2):
        hit_ns = s.hit_ns[side]
        if hit_ns == 0 or now_ns - hit_ns < REFILL_DELAY_S * S_NS:
            continue
        s.hit_ns[side] = 0
        total = s.book_bids.total if side == _BIDS else s.book_asks.total
        if _is_usable(s, hit_ns + REFILL_DELAY_S * S_NS) and total > 0.0:
            slot = s.refills[side] % REFILL_SLOTS
            s.refill_times_ns[side, slot] = hit_ns
            s.refill_logs[side, slot] = math.log(total / s.hit_total[side])
            s.refills[side] += 1
            s.resilience[side] = _resilience(s, side)


@njit
def _resilience(s: Any, side: int) -> float:
    """Return the weighted mean of the newest results of a side."""
    newest = s.refills[side] - 1
    newest_ns = s.refill_times_ns[side, newest % REFILL_SLOTS]
    weight, total, weights = 1.0, 0.0, 0.0
    for back in range(min(s.refills[side], REFILL_SLOTS)):
        slot = (newest - back) % REFILL_SLOTS
        if newest_ns - s.refill_times_ns[side, slot] > REFILL_MEMORY_S * S_NS:
            break
        total += weight * s.refill_logs[side, slot]
        weights += weight
        weight *= _DECAY
    return total / weights


@njit
def _shown_resilience(s: Any, side: int) -> float:
    """Return the resilience of a side; NaN without a result in the last `REFILL_MEMORY_S`."""
    if s.refills[side] == 0:
        return math.nan
    newest_ns = s.refill_times_ns[side, (s.refills[side] - 1) % REFILL_SLOTS]
    return s.resilience[side] if s.clock_ns - newest_ns <= REFILL_MEMORY_S * S_NS else math.nan


@njit
def _log_minutes(quantity: float, per_minute: float) -> float:
    """Return the log of one plus the minutes in which the market trades a quantity."""
    return math.log1p(quantity / per_minute) if per_minute > 0.0 else math.nan


@njit
def depth_columns(s: Any, row: Any, now_s: int) -> None:
    """Write the features of the order book; all are NaN if it is unknown or too old."""
    row.book_imbalance = row.book_slope_bid = row.book_slope_ask = math.nan
    row.depth_1bps_bid = row.depth_1bps_ask = row.depth_5bps_bid = row.depth_5bps_ask = math.nan
    row.depth_10bps_bid = row.depth_10bps_ask = math.nan
    row.book_resilience_bid = row.book_resilience_ask = row.book_age_s = math.nan
    age_ns = max(0, s.clock_ns - s.book_ns)
    if s.book_ns == 0 or age_ns > MAX_SHOWN_AGE_S * S_NS:
        return
    row.book_age_s = age_ns / 1e9
    if age_ns > MAX_BOOK_AGE_S * S_NS:
        return
    bids, asks = s.book_bids, s.book_asks
    row.book_imbalance = (bids.total - asks.total) / (bids.total + asks.total)
    row.book_slope_bid, row.book_slope_ask = bids.slope, asks.slope
    row.book_resilience_bid, row.book_resilience_ask = _shown_resilience(s, _BIDS), _shown_resilience(s, _ASKS)
    since_s = now_s - 60 * _VOLUME_MIN
    if since_s < s.volume_since_s or s.volume_since_s == NEVER:
        return
    before = s.volumes[since_s % SECOND_SLOTS]
    per_minute = float_of(s.volume[0] - before[0], difference(s.volume[1], before[1])) / QTY_SCALE / _VOLUME_MIN
    row.depth_1bps_bid = _log_minutes(bids.depth_1bps, per_minute)
    row.depth_1bps_ask = _log_minutes(asks.depth_1bps, per_minute)
    row.depth_5bps_bid = _log_minutes(bids.depth_5bps, per_minute)
    row.depth_5bps_ask = _log_minutes(asks.depth_5bps, per_minute)
    row.depth_10bps_bid = _log_minutes(bids.depth_10bps, per_minute)
    row.depth_10bps_ask = _log_minutes(asks.depth_10bps, per_minute)


def measured(bids: list[tuple[float, float]], asks: list[tuple[float, float]]) -> np.ndarray:
    """Return the measures (2, 5) of a book whose sides are (price, quantity), best first; the bids come first."""
    best = bids[:LEVELS], asks[:LEVELS]
    levels = np.array(
        [number for side in best for number in (*chain.from_iterable(side), *_NO_LEVELS[2 * len(side) :])]
    )
    measures = np.empty((2, len(SIDE_MEASURES)))
    book_measures(levels.reshape(2, LEVELS, 2), *map(len, best), measures)
    return measures
