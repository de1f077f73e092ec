"""The compiled arithmetic of the generated market: every number is a pure function of a key and a counter.

Times within a minute are microseconds from its start, prices are ticks, quantities are lots (see `units`).
The random numbers are splitmix64 over a counter, so any minute can be computed alone and is always equal.

What does not belong here: days, caches and Python objects (`generated`, `order_book`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numba
import numpy as np

from exchange_simulator.units import MIN_PER_DAY

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

_Function = TypeVar("_Function", bound="Callable[..., Any]")


def _compiled(function: _Function) -> _Function:
    return cast("_Function", numba.njit(cache=True, nogil=True, error_model="numpy")(function))


GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)
"""The increment of splitmix64."""
_MIX_A = np.uint64(0xBF58476D1CE4E5B9)
_MIX_B = np.uint64(0x94D049BB133111EB)
US_PER_MIN = 60_000_000

# Each kind of number has a random stream of its own, so another draw in one kind does not change the other kinds.
STREAM_WALK, STREAM_MOVES, STREAM_TRADES, STREAM_SIZES, STREAM_BOOK = 1, 2, 3, 4, 5

# Log volatility is the sum of a slow and a medium AR(1) process, bursts and a daily cycle. The sizes are standard
# deviations of log volatility. Together they give a median 5-minute realized volatility of 8 to 12 bps, and a HAR
# forecast that beats the last value.
SLOW_SD, SLOW_TAU_MIN = 0.35, 2_880.0
MEDIUM_SD, MEDIUM_TAU_MIN = 0.40, 90.0
BURST_PER_MIN, BURST_SIZE, BURST_TAU_MIN = 1 / 480, 0.8, 15.0
"""Every eight hours on average volatility rises by an exponentially distributed amount of this mean, then decays."""
DAILY_AMPLITUDE = 0.25
MINUTE_SIGMA = 4.3e-4
"""Typical volatility of one minute, as a fraction of the price (4.3 bps)."""
LOG_VOL_LIMIT = 2.5
"""Log volatility is clipped to plus or minus this: e**2.5 is 12 times the typical volatility."""
JUMP_PER_MIN, JUMP_SIGMAS = 1 / 2_880, 6.0
"""Every two days on average the price jumps, up or down, by this many times the volatility of the minute."""
REVERSION_TAU_MIN = 43_200.0
"""The log price reverts to its base within about a month. It stays within some 10 %; over minutes this has no effect."""

TRADES_PER_MIN = 26.0
MOVES_PER_MIN = 120.0
SIZES_PER_MIN = 480.0
"""Events in a minute of typical volatility at rate 1: trades, changes of a best price, changes of a best size only."""
POISSON_EXACT_BELOW = 12.0
"""Above this mean a rounded normal number replaces the Poisson number."""


@_compiled
def mix(value: Any) -> Any:
    """The output function of splitmix64: uint64 -> uint64."""
    z = value
    z = (z ^ (z >> np.uint64(30))) * _MIX_A
    z = (z ^ (z >> np.uint64(27))) * _MIX_B
    return z ^ (z >> np.uint64(31))


@_compiled
def stream_key(seed: Any, minute: int, stream: int) -> Any:
    """The key of one random stream in one minute."""
    return mix(mix(np.uint64(seed) + GOLDEN_GAMMA * np.uint64(minute)) + GOLDEN_GAMMA * np.uint64(stream))


@_compiled
def uniform(key: Any, counter: int) -> float:
    """A uniform number strictly between 0 and 1."""
    bits = mix(key + GOLDEN_GAMMA * np.uint64(counter)) >> np.uint64(11)
    return (np.float64(bits) + 0.5) * (1.0 / 9007199254740992.0)


@_compiled
def normal(key: Any, counter: int) -> float:
    """A standard normal number by Box-Muller. It uses the uniform numbers of counters `2 * counter` and the next."""
    radius = math.sqrt(-2.0 * math.log(uniform(key, 2 * counter)))
    return radius * math.cos(6.283185307179586 * uniform(key, 2 * counter + 1))


@_compiled
def poisson(mean: float, key: Any, counter: int) -> int:
    """A Poisson number: exact for small means (Knuth's method), else a rounded normal number, which is faster."""
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
def walk_minutes(  # noqa: PLR0913, PLR0917 - compiled functions take numbers, not objects
    seed: Any, first: int, count: int, rate: float, state: Floats, walk: Floats, trade_counts: Ints
) -> None:
    """Walk price and volatility through `count` minutes from minute `first` (since the market's epoch).

    `state` holds the slow and the medium component, the burst and the log price; it is changed in place. A row of
    `walk` holds the log price at the minute's start, the minute's volatility as a fraction, and its log volatility; one
    more row holds only the log price at the end. `trade_counts` gets the number of trades in each minute.
    """
    slow_decay = math.exp(-1.0 / SLOW_TAU_MIN)
    medium_decay = math.exp(-1.0 / MEDIUM_TAU_MIN)
    burst_decay = math.exp(-1.0 / BURST_TAU_MIN)
    slow_shock = SLOW_SD * math.sqrt(1.0 - slow_decay * slow_decay)
    medium_shock = MEDIUM_SD * math.sqrt(1.0 - medium_decay * medium_decay)
    slow, medium, burst, log_price = state[0], state[1], state[2], state[3]
    for i in range(count):
        minute = first + i
        key = stream_key(seed, minute, STREAM_WALK)
        slow = slow_decay * slow + slow_shock * normal(key, 0)
        medium = medium_decay * medium + medium_shock * normal(key, 1)
        burst *= burst_decay
        if uniform(key, 4) < BURST_PER_MIN:
            burst -= BURST_SIZE * math.log(uniform(key, 5))
        phase = 6.283185307179586 * (minute % MIN_PER_DAY) / MIN_PER_DAY
        cycle = DAILY_AMPLITUDE * math.cos(phase - 4.05)  # Highest at 15:30 UTC.
        log_vol = min(LOG_VOL_LIMIT, max(-LOG_VOL_LIMIT, slow + medium + burst + cycle))
        sigma = MINUTE_SIGMA * math.exp(log_vol)
        change = sigma * normal(key, 3)
        if uniform(key, 8) < JUMP_PER_MIN:
            change += sigma * JUMP_SIGMAS * (1.0 if uniform(key, 9) < 0.5 else -1.0)
        walk[i, 0], walk[i, 1], walk[i, 2] = log_price, sigma, log_vol
        trade_counts[i] = poisson(TRADES_PER_MIN * rate * math.exp(0.7 * log_vol), key, 16)
        log_price += change - log_price / REVERSION_TAU_MIN
    walk[count, 0] = log_price
    state[0], state[1], state[2], state[3] = slow, medium, burst, log_price


@_compiled
def arrival_times(key: Any, repeated_share: float, times: Ints) -> None:
    """Fill `times` with ordered times of a Poisson process in one minute, us; this share repeats the time before."""
    count = times.shape[0]
    elapsed = np.empty(count)
    total = 0.0
    for i in range(count):
        if i == 0 or uniform(key, 2 * i + 1) >= repeated_share:
            total -= math.log(uniform(key, 2 * i))
        elapsed[i] = total
    scale = US_PER_MIN / (total - math.log(uniform(key, 2 * count)))
    for i in range(count):
        times[i] = min(US_PER_MIN - 1, int(elapsed[i] * scale))


@_compiled
def move_count(log_vol: float, rate: float) -> int:
    """How often a best price changes in one minute; grows with the square root of the rate."""
    return max(2, int(MOVES_PER_MIN * math.exp(0.5 * log_vol) * math.sqrt(rate)))


@_compiled
def fill_moves(key: Any, start: float, end: float, sd: float, log_vol: float, moves: Ints) -> None:  # noqa: PLR0913, PLR0917 - compiled functions take numbers, not objects
    """One minute of best prices. The columns of `moves` are time in us, bid, ask.

    The mid moves from `start` to `end` (ticks) as a Brownian bridge of standard deviation `sd`. The first row is at the
    start of the minute, so every quote depends on its own minute alone.
    """
    count = moves.shape[0]
    times = np.empty(count, np.int64)
    arrival_times(mix(key), 0.0, times)
    walk = np.empty(count + 1)
    walk[0] = 0.0
    step = sd / math.sqrt(count)
    for i in range(count):
        walk[i + 1] = walk[i] + step * normal(key, i)
    spread_scale = 1.2 + 1.6 * math.exp(0.6 * log_vol)
    spread_key = mix(key + GOLDEN_GAMMA)
    for i in range(count):
        share = i / count
        mid = start + (end - start) * share + walk[i] - walk[count] * share
        spread = 1 - int(spread_scale * math.log(uniform(spread_key, i)))
        bid = max(1, int(mid - 0.5 * spread + 0.5))
        moves[i, 0], moves[i, 1], moves[i, 2] = (0 if i == 0 else times[i]), bid, bid + spread


@_compiled
def fill_trades(key: Any, moves: Ints, qty_scale: float, trades: Ints) -> None:
    """One minute of trades. The columns of `trades` are time in us, price, quantity, is a buy, is a market order.

    Trades at one time are one order that sweeps the book: they have one side, and prices further and further away.
    """
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
def fill_quotes(key: Any, moves: Ints, size_times: Ints, qty_scale: float, quotes: Ints) -> None:
    """One minute of quotes. The columns of `quotes` are time in us, bid, bid quantity, ask, ask quantity.

    `size_times` holds the times at which only a size changes. `quotes` has a row for each of them and for each move.
    """
    i, j = 0, 0
    bid_qty, ask_qty = 0, 0
    for k in range(quotes.shape[0]):
        moved = j >= size_times.shape[0] or (i < moves.shape[0] and moves[i, 0] <= size_times[j])
        new_bid_qty = 1000 - int(math.log(uniform(key, 3 * k)) * 0.9e8 * qty_scale)
        new_ask_qty = 1000 - int(math.log(uniform(key, 3 * k + 1)) * 0.9e8 * qty_scale)
        bid_changes = uniform(key, 3 * k + 2) < 0.5
        if moved or bid_changes:
            bid_qty = new_bid_qty
        if moved or not bid_changes:
            ask_qty = new_ask_qty
        quotes[k, 0] = moves[i, 0] if moved else size_times[j]
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
    trade_counts: Ints,
    bars: Ints,
    value: Floats,
) -> None:
    """Minute bars of the generated trades: open, high, low, close (ticks), volume (lots), number of trades.

    `walk` and `trade_counts` come from `walk_minutes`. `value` gets the sum of price times quantity (ticks times lots).
    """
    for i in range(trade_counts.shape[0]):
        moves = np.empty((move_count(walk[i, 2], rate), 3), np.int64)
        trades = np.empty((trade_counts[i], 5), np.int64)
        start, end = base * math.exp(walk[i, 0]), base * math.exp(walk[i + 1, 0])
        fill_moves(stream_key(seed, first + i, STREAM_MOVES), start, end, start * walk[i, 1], walk[i, 2], moves)
        fill_trades(stream_key(seed, first + i, STREAM_TRADES), moves, qty_scale, trades)
        fill_bar(trades, bars[i])
        total = 0.0
        for j in range(trade_counts[i]):
            total += float(trades[j, 1]) * float(trades[j, 2])
        value[i] = total


@_compiled
def fill_bar(trades: Ints, bar: Ints) -> None:
    """The bar of these trades, with the columns of `fill_bars`; all zero when there are none."""
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
    """Fill `levels` (price, quantity) from the best price outward at one time; returns how many levels there are.

    Whether a price holds orders, and how large they are, depends only on the price and on the time divided by a period
    of that price, 3 to 40 s; so a book needs no state. `side` is 1 for asks, -1 for bids.
    """
    levels[0, 0], levels[0, 1] = best, best_qty
    found, price = 1, best
    key = stream_key(seed, side + 1, STREAM_BOOK)
    while found < levels.shape[0]:
        price += side
        if price < 1:
            break
        price_bits = mix(key + GOLDEN_GAMMA * np.uint64(price))
        period_us = 3_000_000 + int(price_bits % np.uint64(37_000_000))
        bits = mix(
            price_bits + GOLDEN_GAMMA * np.uint64((time_us + int(price_bits % np.uint64(40_000_000))) // period_us)
        )
        if (bits & np.uint64(1023)) < np.uint64(360):
            levels[found, 0] = price
            levels[found, 1] = 1000 - int(math.log(uniform(bits, 1)) * 1.5e8 * qty_scale)
            found += 1
    return found
