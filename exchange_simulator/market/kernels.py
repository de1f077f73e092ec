"""The compiled arithmetic of the generated market: every number is a pure function of a key and a counter.

Times inside a minute are microseconds from its start; prices are ticks, quantities lots (see `pairs`).
The random numbers are splitmix64 over a counter, so any minute can be made alone and always comes out the same.

What does not belong here: calendars, caches and Python objects (`market`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numba
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

_Function = TypeVar("_Function", bound="Callable[..., Any]")


def _compiled(function: _Function) -> _Function:
    return cast("_Function", numba.njit(cache=True, nogil=True, error_model="numpy")(function))


GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_A = np.uint64(0xBF58476D1CE4E5B9)
_MIX_B = np.uint64(0x94D049BB133111EB)
US_PER_MIN = 60_000_000
MIN_PER_DAY = 1_440

# One key per kind of number, so that adding a draw to one kind leaves the others as they were.
STREAM_SKELETON, STREAM_MOVES, STREAM_TRADES, STREAM_SIZES, STREAM_BOOK = 1, 2, 3, 4, 5

# Log volatility = slow + medium AR(1) + bursts + daily rhythm. Sizes are standard deviations of log volatility.
# Together they give a median 5-minute realized volatility of 8-12 bps and a HAR forecast that beats the last value.
SLOW_SD, SLOW_TAU_MIN = 0.35, 2_880.0
MEDIUM_SD, MEDIUM_TAU_MIN = 0.40, 90.0
BURST_PER_MIN, BURST_SIZE, BURST_TAU_MIN = 1 / 480, 0.8, 15.0
DAILY_AMPLITUDE = 0.25
SIGMA_MIN = 4.3e-4
"""Typical volatility of one minute, as a fraction of the price (4.3 bps)."""
LOG_VOL_LIMIT = 2.5
"""Log volatility is cut here on both sides: e**2.5 = 12 times the typical one."""
JUMP_PER_MIN, JUMP_SIGMAS = 1 / 2_880, 6.0
PULL_TAU_MIN = 43_200.0
"""The log price is pulled to its base within about a month: it stays within some 10 %; nothing to see in minutes."""

TRADES_PER_MIN = 26.0
MOVES_PER_MIN = 120.0
SIZES_PER_MIN = 480.0
"""Events of a minute of typical volatility at rate 1: trades, changes of the best prices, changes of sizes only."""
POISSON_EXACT_BELOW = 12.0


@_compiled
def mix(value: Any) -> Any:
    """The finaliser of splitmix64: uint64 -> uint64."""
    z = value
    z = (z ^ (z >> np.uint64(30))) * _MIX_A
    z = (z ^ (z >> np.uint64(27))) * _MIX_B
    return z ^ (z >> np.uint64(31))


@_compiled
def stream_key(seed: Any, minute: int, stream: int) -> Any:
    """The key of one kind of number in one minute."""
    return mix(mix(np.uint64(seed) + GOLDEN * np.uint64(minute)) + GOLDEN * np.uint64(stream))


@_compiled
def uniform(key: Any, counter: int) -> float:
    """A number in (0, 1), never 0 or 1."""
    bits = mix(key + GOLDEN * np.uint64(counter)) >> np.uint64(11)
    return (np.float64(bits) + 0.5) * (1.0 / 9007199254740992.0)


@_compiled
def normal(key: Any, counter: int) -> float:
    """A standard normal number (Box-Muller, two counters each)."""
    radius = math.sqrt(-2.0 * math.log(uniform(key, 2 * counter)))
    return radius * math.cos(6.283185307179586 * uniform(key, 2 * counter + 1))


@_compiled
def poisson(mean: float, key: Any, counter: int) -> int:
    """A Poisson number: exact by products for small means, rounded normal above (much faster, near enough)."""
    if mean > POISSON_EXACT_BELOW:
        return max(0, int(mean + math.sqrt(mean) * normal(key, counter) + 0.5))
    limit = math.exp(-mean)
    product = uniform(key, 2 * counter)
    count = 0
    while product > limit:
        count += 1
        product *= uniform(key, 2 * counter + count)
    return count


@_compiled
def skeleton(seed: Any, first: int, count: int, rate: float, state: Floats, out: Floats, trades: Ints) -> None:  # noqa: PLR0913, PLR0917 - compiled functions take numbers, not objects
    """Walk `count` minutes from `first` (minutes since the market's epoch).

    `state` = slow, medium, burst, log price; changed in place. `out` rows (count + 1 of them, the last holds only
    the price): log price at the minute's start, its volatility as a fraction, its log volatility. `trades`: how many.
    """
    keep_slow = math.exp(-1.0 / SLOW_TAU_MIN)
    keep_medium = math.exp(-1.0 / MEDIUM_TAU_MIN)
    keep_burst = math.exp(-1.0 / BURST_TAU_MIN)
    kick_slow = SLOW_SD * math.sqrt(1.0 - keep_slow * keep_slow)
    kick_medium = MEDIUM_SD * math.sqrt(1.0 - keep_medium * keep_medium)
    slow, medium, burst, log_price = state[0], state[1], state[2], state[3]
    for i in range(count):
        minute = first + i
        key = stream_key(seed, minute, STREAM_SKELETON)
        slow = keep_slow * slow + kick_slow * normal(key, 0)
        medium = keep_medium * medium + kick_medium * normal(key, 1)
        burst *= keep_burst
        if uniform(key, 4) < BURST_PER_MIN:
            burst -= BURST_SIZE * math.log(uniform(key, 5))
        phase = 6.283185307179586 * (minute % MIN_PER_DAY) / MIN_PER_DAY
        rhythm = DAILY_AMPLITUDE * math.cos(phase - 4.05)  # busiest at 15:30 UTC
        log_vol = min(LOG_VOL_LIMIT, max(-LOG_VOL_LIMIT, slow + medium + burst + rhythm))
        sigma = SIGMA_MIN * math.exp(log_vol)
        change = sigma * normal(key, 3)
        if uniform(key, 8) < JUMP_PER_MIN:
            change += sigma * JUMP_SIGMAS * (1.0 if uniform(key, 9) < 0.5 else -1.0)
        out[i, 0], out[i, 1], out[i, 2] = log_price, sigma, log_vol
        trades[i] = poisson(TRADES_PER_MIN * rate * math.exp(0.7 * log_vol), key, 16)
        log_price += change - log_price / PULL_TAU_MIN
    out[count, 0] = log_price
    state[0], state[1], state[2], state[3] = slow, medium, burst, log_price


@_compiled
def arrival_times(key: Any, together: float, times: Ints) -> None:
    """Fill `times` with ordered times in one minute, us; a share `together` of them repeats the one before."""
    count = times.shape[0]
    until = np.empty(count)
    total = 0.0
    for i in range(count):
        if i == 0 or uniform(key, 2 * i + 1) >= together:
            total -= math.log(uniform(key, 2 * i))
        until[i] = total
    scale = US_PER_MIN / (total - math.log(uniform(key, 2 * count)))
    for i in range(count):
        times[i] = min(US_PER_MIN - 1, int(until[i] * scale))


@_compiled
def move_count(log_vol: float, rate: float) -> int:
    """Changes of the best prices in one minute; grows with the root of the rate."""
    return max(2, int(MOVES_PER_MIN * math.exp(0.5 * log_vol) * math.sqrt(rate)))


@_compiled
def fill_moves(key: Any, start: float, end: float, sd: float, log_vol: float, moves: Ints) -> None:  # noqa: PLR0913, PLR0917 - compiled functions take numbers, not objects
    """One minute of best prices: columns of `moves` are time in us, bid, ask.

    The mid walks from `start` to `end` (ticks) as a Brownian bridge of standard deviation `sd`; the first row is the
    minute's first microsecond, so that a quote is a function of its minute alone.
    """
    count = moves.shape[0]
    times = np.empty(count, np.int64)
    arrival_times(mix(key), 0.0, times)
    walk = np.empty(count + 1)
    walk[0] = 0.0
    step = sd / math.sqrt(count)
    for i in range(count):
        walk[i + 1] = walk[i] + step * normal(key, i)
    wide = 1.2 + 1.6 * math.exp(0.6 * log_vol)
    spreads = mix(key + GOLDEN)
    for i in range(count):
        share = i / count
        mid = start + (end - start) * share + walk[i] - walk[count] * share
        spread = 1 - int(wide * math.log(uniform(spreads, i)))
        bid = max(1, int(mid - 0.5 * spread + 0.5))
        moves[i, 0], moves[i, 1], moves[i, 2] = (0 if i == 0 else times[i]), bid, bid + spread


@_compiled
def fill_trades(key: Any, moves: Ints, qty_scale: float, trades: Ints) -> None:
    """One minute of trades: columns of `trades` are time in us, price, quantity, whether buy, whether market order."""
    count = trades.shape[0]
    times = np.empty(count, np.int64)
    arrival_times(mix(key), 0.3, times)
    at, buy, depth = 0, 1, 0
    for i in range(count):
        sweep = i > 0 and times[i] == times[i - 1]
        while at + 1 < moves.shape[0] and moves[at + 1, 0] <= times[i]:
            at += 1
        if not sweep:
            depth = 0
            if uniform(key, 8 * i) < 0.4:
                buy = 1 - buy
        elif uniform(key, 8 * i) < 0.5:
            depth += 1 + int(3.0 * uniform(key, 8 * i + 1))
        price = moves[at, 2] + depth if buy == 1 else max(1, moves[at, 1] - depth)
        size = math.exp(1.5 * normal(key, 4 * i + 1) - 4.0) * qty_scale
        trades[i, 0], trades[i, 1] = times[i], price
        trades[i, 2] = max(100, int(min(size, 15.0 * qty_scale) * 1e8))
        trades[i, 3] = buy
        trades[i, 4] = 1 if uniform(key, 8 * i + 4) < 0.4 else 0


@_compiled
def fill_quotes(key: Any, moves: Ints, sizes: Ints, qty_scale: float, quotes: Ints) -> None:
    """One minute of quotes: columns of `quotes` are time in us, bid, bid quantity, ask, ask quantity.

    `sizes` holds the times at which only a size changes; `quotes` has a row for each of these and for each move.
    """
    i, j = 0, 0
    bid_qty, ask_qty = 0, 0
    for k in range(quotes.shape[0]):
        moved = j >= sizes.shape[0] or (i < moves.shape[0] and moves[i, 0] <= sizes[j])
        fresh_bid = 1000 - int(math.log(uniform(key, 3 * k)) * 0.9e8 * qty_scale)
        fresh_ask = 1000 - int(math.log(uniform(key, 3 * k + 1)) * 0.9e8 * qty_scale)
        bid_side = uniform(key, 3 * k + 2) < 0.5
        if moved or bid_side:
            bid_qty = fresh_bid
        if moved or not bid_side:
            ask_qty = fresh_ask
        quotes[k, 0] = moves[i, 0] if moved else sizes[j]
        if moved:
            i += 1
        else:
            j += 1
        quotes[k, 1], quotes[k, 2] = moves[i - 1, 1], bid_qty
        quotes[k, 3], quotes[k, 4] = moves[i - 1, 2], ask_qty


@_compiled
def fill_bars(  # noqa: PLR0913, PLR0917 - compiled functions take numbers, not objects
    seed: Any,
    first: int,
    rate: float,
    base: float,
    qty_scale: float,
    walk: Floats,
    counts: Ints,
    bars: Ints,
    value: Floats,
) -> None:
    """Minute bars from the trades themselves: columns open, high, low, close (ticks), volume (lots), trades.

    `walk` and `counts` are what `skeleton` wrote; `value` gets the sum of price times quantity (ticks times lots).
    """
    for i in range(counts.shape[0]):
        moves = np.empty((move_count(walk[i, 2], rate), 3), np.int64)
        trades = np.empty((counts[i], 5), np.int64)
        start, end = base * math.exp(walk[i, 0]), base * math.exp(walk[i + 1, 0])
        fill_moves(stream_key(seed, first + i, STREAM_MOVES), start, end, start * walk[i, 1], walk[i, 2], moves)
        fill_trades(stream_key(seed, first + i, STREAM_TRADES), moves, qty_scale, trades)
        aggregate(trades, bars[i])
        total = 0.0
        for j in range(counts[i]):
            total += float(trades[j, 1]) * float(trades[j, 2])
        value[i] = total


@_compiled
def aggregate(trades: Ints, bar: Ints) -> None:
    """The bar (see `fill_bars`) of these trades; all zero when there are none."""
    bar[:] = 0
    count = trades.shape[0]
    if count == 0:
        return
    bar[0], bar[1], bar[2], bar[3], bar[5] = trades[0, 1], trades[0, 1], trades[0, 1], trades[count - 1, 1], count
    for j in range(count):
        bar[1] = max(bar[1], trades[j, 1])
        bar[2] = min(bar[2], trades[j, 1])
        bar[4] += trades[j, 2]


@_compiled
def book_side(seed: Any, time_us: int, side: int, best: int, best_qty: int, qty_scale: float, levels: Ints) -> int:  # noqa: PLR0913, PLR0917 - compiled functions take numbers, not objects
    """Fill `levels` (price, quantity) from the best outward at one moment; returns how many there are.

    Whether a price holds an order, and how large, is a function of the price and of a clock of its own that ticks
    every 3-40 s; so a book needs no memory. `side` is 1 for asks, -1 for bids.
    """
    levels[0, 0], levels[0, 1] = best, best_qty
    found, price = 1, best
    key = stream_key(seed, side + 1, STREAM_BOOK)
    while found < levels.shape[0]:
        price += side
        if price < 1:
            break
        own = mix(key + GOLDEN * np.uint64(price))
        period_us = 3_000_000 + int(own % np.uint64(37_000_000))
        bits = mix(own + GOLDEN * np.uint64((time_us + int(own % np.uint64(40_000_000))) // period_us))
        if (bits & np.uint64(1023)) < np.uint64(360):
            levels[found, 0] = price
            levels[found, 1] = 1000 - int(math.log(uniform(bits, 1)) * 1.5e8 * qty_scale)
            found += 1
    return found
