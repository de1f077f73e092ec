"""The compiled arithmetic of one minute: quotes, trades, bars and the levels of a book.

Times within a minute are microseconds from its start, prices are ticks, quantities are lots (see `units`). A minute
follows from its row of the walk and the row before (`volatility`), and can be computed alone.

What does not belong here: volatility from minute to minute, days, caches and Python objects (`generated`, `order_book`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from exchange_simulator.market.random_numbers import (
    GOLDEN_GAMMA,
    compiled,
    mix,
    normal,
    quick_normal,
    stream_key,
    uniform,
)
from exchange_simulator.market.volatility import (
    BETA,
    FACTOR_JUMP,
    FACTOR_PRICE,
    FACTOR_SIGMA,
    FLOW,
    JUMP_AT,
    LAG_S,
    LOG_VOL,
    OWN_JUMP,
    OWN_PRICE,
    OWN_SIGMA,
    SIZE_SHARE,
    STREAM_BOOK,
    STREAM_MOVES,
    STREAM_PATH,
    STREAM_TRADES,
    TRADING,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

US_PER_MIN = 60_000_000
PATH_STEPS = 240
"""Steps of the factor's path in one minute, a quarter of a second each. A symbol sees a step when its quote moves."""
_STEP_US = US_PER_MIN // PATH_STEPS
MOVES_PER_MIN = 120.0
SIZES_PER_MIN = 480.0
"""Events in a minute of typical volatility at rate 1: changes of a best price, changes of a best size only."""
SPREAD_PER_MOVE = 0.5
"""How much a move of one standard deviation widens the spread of the quote before it, as a share."""
DEPTH_BY_LOG_VOL, DEPTH_PER_MOVE = 0.5, 0.3
"""How quickly sizes fall with log volatility, and before a move."""
SIZE_TILT = 0.2
"""How much the log size rises on the side from which the price will move away, for a move of one standard deviation."""
SIDE_KEPT = 0.35
"""The share of orders that have the side of the order before, as parts of one large order do."""
SIDE_BY_FLOW, SIDE_BY_MOVE, SIDE_BY_TREND = 0.35, 1.5, 1.2
TREND_MOVES = 20
"""How much the log odds of a buy rise with the flow of the minute, with the move of the mid that follows the order, and
with the sum of so many moves before it, in standard deviations."""

TIME, BID, ASK, NEXT_MOVE = range(4)
"""The columns of moves. `NEXT_MOVE` is the change of the mid that comes next, in 1/1000 of its standard deviation."""
MOVE_COLUMNS = 4


@compiled
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


@compiled
def move_count(log_vol: float, rate: float) -> int:
    """How often a best price changes in one minute; grows with the square root of the rate."""
    return max(2, int(MOVES_PER_MIN * math.exp(0.5 * log_vol) * math.sqrt(rate)))


@compiled
def fill_path(seed: Any, minute: int, row: Floats, next_row: Floats, path: Floats) -> None:
    """The factor's log price in one minute: `PATH_STEPS` steps from its price at the begin to that at the end.

    `row` and `next_row` are those of the walk. The path is a Brownian bridge, and jumps where the row says.
    """
    key = stream_key(seed, minute, STREAM_PATH)
    step = row[FACTOR_SIGMA] / math.sqrt(PATH_STEPS)
    path[0] = 0.0
    for k in range(PATH_STEPS):
        path[k + 1] = path[k] + step * quick_normal(key, k)
    drift = (next_row[FACTOR_PRICE] - row[FACTOR_PRICE] - row[FACTOR_JUMP] - path[PATH_STEPS]) / PATH_STEPS
    jump_at = row[JUMP_AT] * PATH_STEPS
    for k in range(PATH_STEPS + 1):
        path[k] += row[FACTOR_PRICE] + drift * k + (row[FACTOR_JUMP] if k > jump_at else 0.0)


@compiled
def _lagged(before: Floats, path: Floats, time_us: int, lag_us: int) -> float:
    """The factor's log price so long before this time of the minute of `path`; `before` is the path of the minute before."""
    place = (time_us - lag_us) // _STEP_US
    return float(path[place] if place >= 0 else before[PATH_STEPS + place])


@compiled
def fill_moves(  # noqa: PLR0913, PLR0917 - compiled functions take numbers, not objects
    key: Any, base: float, character: Floats, row: Floats, next_row: Floats, before: Floats, path: Floats, moves: Ints
) -> None:
    """One minute of best prices, with the columns `TIME` to `NEXT_MOVE`.

    The mid is the symbol's own Brownian bridge plus the factor's path some seconds earlier. The first row is at the start
    of the minute, so every quote depends on its own minute and the factor alone.
    """
    count = moves.shape[0]
    times = np.empty(count, np.int64)
    arrival_times(mix(key), 0.0, times)
    times[0] = 0
    beta, lag_us = character[BETA], int(character[LAG_S] * 1e6)
    own = np.empty(count + 1)
    own[0] = 0.0
    step = row[OWN_SIGMA] / math.sqrt(count)
    for i in range(count):
        own[i + 1] = own[i] + step * normal(key, i)
    drift = (next_row[OWN_PRICE] - row[OWN_PRICE] - row[OWN_JUMP] - own[count]) / count
    spread_key = mix(key + GOLDEN_GAMMA)
    jump_at = uniform(spread_key, count) * count
    for i in range(count + 1):
        own[i] += row[OWN_PRICE] + drift * i + (row[OWN_JUMP] if i > jump_at else 0.0)
    spread_scale = 1.2 + 1.6 * math.exp(0.6 * row[LOG_VOL])
    move_sd = math.sqrt((beta * row[FACTOR_SIGMA]) ** 2 + row[OWN_SIGMA] ** 2 + 1e-18) / math.sqrt(count)
    log_mid = beta * _lagged(before, path, 0, lag_us) + own[0]
    for i in range(count):
        next_us = times[i + 1] if i + 1 < count else US_PER_MIN
        next_log_mid = beta * _lagged(before, path, next_us, lag_us) + own[i + 1]
        change = min(4.0, max(-4.0, (next_log_mid - log_mid) / move_sd))
        scale = spread_scale * (1.0 + SPREAD_PER_MOVE * (abs(change) - 0.8))
        spread = 1 - int(scale * math.log(uniform(spread_key, i)))
        bid = max(1, int(base * math.exp(log_mid) - 0.5 * spread + 0.5))
        moves[i, TIME], moves[i, BID], moves[i, ASK] = times[i], bid, bid + spread
        moves[i, NEXT_MOVE] = int(1000.0 * change)
        log_mid = next_log_mid


@compiled
def fill_trades(key: Any, row: Floats, moves: Ints, qty_scale: float, trades: Ints) -> None:
    """One minute of trades. The columns of `trades` are time in us, price, quantity, is a buy, is a market order.

    Trades at one time are one order that sweeps the book: they have one side, and prices further and further away.
    """
    count = trades.shape[0]
    times = np.empty(count, np.int64)
    arrival_times(mix(key), 0.3, times)
    at, buy, depth = 0, 1, 0
    size_scale = qty_scale * math.exp(SIZE_SHARE * row[TRADING])
    for i in range(count):
        sweep = i > 0 and times[i] == times[i - 1]
        while at + 1 < moves.shape[0] and moves[at + 1, TIME] <= times[i]:
            at += 1
        if not sweep:
            depth = 0
            if i == 0 or uniform(key, 8 * i) >= SIDE_KEPT:
                trend = 0
                for j in range(max(0, at - TREND_MOVES), at):
                    trend += moves[j, NEXT_MOVE]
                odds = SIDE_BY_FLOW * row[FLOW] + 1e-3 * SIDE_BY_MOVE * moves[at, NEXT_MOVE]
                odds += 1e-3 * SIDE_BY_TREND * trend / math.sqrt(TREND_MOVES)
                buy = 1 if uniform(key, 8 * i + 5) * (1.0 + math.exp(-odds)) < 1.0 else 0
        elif uniform(key, 8 * i) < 0.5:
            depth += 1 + int(3.0 * uniform(key, 8 * i + 1))
        price = moves[at, ASK] + depth if buy == 1 else max(1, moves[at, BID] - depth)
        size = math.exp(1.5 * normal(key, 4 * i + 1) - 4.0) * size_scale
        trades[i, 0], trades[i, 1] = times[i], price
        trades[i, 2] = max(100, int(min(size, 15.0 * qty_scale) * 1e8))
        trades[i, 3] = buy
        trades[i, 4] = 1 if uniform(key, 8 * i + 4) < 0.4 else 0


@compiled
def fill_quotes(key: Any, row: Floats, moves: Ints, size_times: Ints, qty_scale: float, quotes: Ints) -> None:  # noqa: PLR0913, PLR0917 - compiled functions take numbers, not objects
    """One minute of quotes. The columns of `quotes` are time in us, bid, bid quantity, ask, ask quantity.

    `size_times` holds the times at which only a size changes. `quotes` has a row for each of them and for each move.
    """
    i, j = 0, 0
    bid_qty, ask_qty = 0, 0
    for k in range(quotes.shape[0]):
        moved = j >= size_times.shape[0] or (i < moves.shape[0] and moves[i, TIME] <= size_times[j])
        next_move = 1e-3 * moves[i if moved else max(0, i - 1), NEXT_MOVE]
        depth = 0.9e8 * qty_scale * math.exp(-DEPTH_BY_LOG_VOL * row[LOG_VOL]) / (1.0 + DEPTH_PER_MOVE * abs(next_move))
        tilt = math.exp(SIZE_TILT * next_move)
        new_bid_qty = 1000 - int(math.log(uniform(key, 3 * k)) * depth * tilt)
        new_ask_qty = 1000 - int(math.log(uniform(key, 3 * k + 1)) * depth / tilt)
        bid_changes = uniform(key, 3 * k + 2) < 0.5
        if moved or bid_changes:
            bid_qty = new_bid_qty
        if moved or not bid_changes:
            ask_qty = new_ask_qty
        quotes[k, 0] = moves[i, TIME] if moved else size_times[j]
        if moved:
            i += 1
        else:
            j += 1
        quotes[k, 1], quotes[k, 2] = moves[i - 1, BID], bid_qty
        quotes[k, 3], quotes[k, 4] = moves[i - 1, ASK], ask_qty


@compiled
def fill_bars(  # noqa: PLR0913, PLR0917 - compiled functions take numbers, not objects
    market_seed: Any,
    symbol_seed: Any,
    first: int,
    rate: float,
    base: float,
    qty_scale: float,
    character: Floats,
    walk: Floats,
    trade_counts: Ints,
    bars: Ints,
    value: Floats,
) -> None:
    """Minute bars of the generated trades: open, high, low, close (ticks), volume (lots), number of trades.

    `walk` and `trade_counts` come from `walk_minutes`. `value` gets the sum of price times quantity (ticks times lots).
    """
    before, path = np.empty(PATH_STEPS + 1), np.empty(PATH_STEPS + 1)
    fill_path(market_seed, first - 1, walk[0], walk[1], path)
    for i in range(trade_counts.shape[0]):
        before, path = path, before
        row, next_row = walk[i + 1], walk[i + 2]
        fill_path(market_seed, first + i, row, next_row, path)
        moves = np.empty((move_count(row[LOG_VOL], rate), MOVE_COLUMNS), np.int64)
        trades = np.empty((trade_counts[i], 5), np.int64)
        move_key = stream_key(symbol_seed, first + i, STREAM_MOVES)
        fill_moves(move_key, base, character, row, next_row, before, path, moves)
        fill_trades(stream_key(symbol_seed, first + i, STREAM_TRADES), row, moves, qty_scale, trades)
        fill_bar(trades, bars[i])
        total = 0.0
        for j in range(trade_counts[i]):
            total += float(trades[j, 1]) * float(trades[j, 2])
        value[i] = total


@compiled
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


@compiled
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
