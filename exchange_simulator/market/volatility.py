"""The compiled walk of a market through its minutes: volatility, activity, order flow and the price at each full minute.

All symbols of a seed share one factor, which has most of the volatility; each adds returns and volatility of its own.
Log volatility is a sum of components with half-lives from minutes to weeks, two regimes, bursts, the clock and releases
(`seasons`). Returns are a random walk: nothing here makes their sign predictable.

What does not belong here: what happens within a minute (`kernels`), days and Python objects (`generated`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from exchange_simulator.market.random_numbers import (
    compiled,
    normal,
    poisson,
    quick_normal,
    stream_key,
    uniform,
)
from exchange_simulator.market.seasons import IS_RELEASE, RELEASE, SEASON

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

# Each kind of number has a random stream of its own, so another draw in one kind does not change the other kinds.
STREAM_WALK, STREAM_MOVES, STREAM_TRADES, STREAM_SIZES, STREAM_BOOK, STREAM_FACTOR, STREAM_PATH = 1, 2, 3, 4, 5, 6, 7

MINUTE_SIGMA = 4.2e-4
"""Typical volatility of the factor in one minute, as a fraction of the price."""
MEMORY_SD = np.array([0.34, 0.2, 0.18, 0.22, 0.12])
MEMORY_TAU_MIN = np.array([43_200.0, 2_880.0, 360.0, 75.0, 15.0])
"""Standard deviations of the components of log volatility, and the times in which they decay to 1/e: a month to 15 minutes.
Together they have the autocorrelation of real log variances, which falls slowly from minutes to weeks."""
LEVERAGE = np.array([0.0, 0.05, 0.08, 0.1, 0.12])
"""The share of a component's shocks that is the minute's return with the opposite sign."""
FEEDBACK = np.array([0.0, 0.15, 0.25, 0.35, 0.35])
"""The share that is the size of the minute's return: a large move raises volatility whichever its sign."""
CALM, TURBULENT = -0.2, 0.4
CALM_MIN, TURBULENT_MIN = 14_400.0, 7_200.0
"""Log volatility of the two regimes and their mean duration: ten days and five."""
BURST_PER_MIN, BURST_SIZE, BURST_TAU_MIN = 1 / 480, 0.6, 20.0
"""News of no calendar: every eight hours on average log volatility rises by an exponential amount, then decays."""
PULSE_SD, PULSE_TAU_MIN = 0.36, 10.0
PULSE_RESPONSE, PULSE_DELAY_MIN = 0.55, 4.0
"""A pulse of interest raises trading at once and volatility within some minutes, so volume leads volatility a little."""
FLUTTER_SD = 0.3
"""Log volatility that lasts for one minute only."""
JUMP_PER_MIN, JUMP_SIGMAS, DOWN_SHARE = 1 / 2_000, 5.0, 0.55
"""Every day and a half on average the price jumps by about this many times the volatility of the minute."""
RELEASE_SPREAD, RELEASE_JUMP_SIGMAS = 0.35, 1.5
"""Releases differ in size by this standard deviation of logs; the price jumps at a release by a normal amount."""
LOG_VOL_LIMIT = 3.2
"""Log volatility is clipped to plus or minus this: e**3.2 is 25 times the typical volatility."""
OWN_TAU_MIN = np.array([5_760.0, 120.0])
"""The decay of the two halves of the log volatility that a symbol has alone."""
REVERSION_TAU_MIN = 43_200.0
"""Log prices revert to their base within about a month, so they stay within some tens of percent; over minutes this has no
effect."""
FLOW_TAU_MIN, FLOW_SHARE = 12.0, 0.35
"""The balance of buyers and sellers lasts for minutes. Its shocks share this part with the minute's return, which reacts
only to the shock: so flow and price move together, and yesterday's flow says nothing about the next return."""
INTEREST_SD, INTEREST_TAU_MIN = 0.25, 60.0
INTEREST_FLUTTER_SD = 0.15
"""Log of trading that has nothing to do with volatility: a part that lasts for an hour, and one for a minute."""
COUNT_SHARE, SIZE_SHARE = 0.6, 0.4
"""How much of the log of trading is the number of trades, and how much their size."""
TRADES_PER_MIN = 26.0
"""Trades in a typical minute at rate 1."""

# The columns of a walk; its first row is the minute before the first.
(OWN_PRICE, OWN_SIGMA, OWN_JUMP, FACTOR_PRICE, FACTOR_SIGMA, FACTOR_JUMP, JUMP_AT, LOG_VOL, TRADING, FLOW) = range(10)
WALK_COLUMNS = 10
# The state: components, then these, then the first seven columns of the minute before.
_REGIME, _BURST, _PULSE, _RESPONSE, _PRICE, _OWN_FAST, _OWN_SLOW, _OWN_LOG_PRICE, _FLOW_NOW, _INTEREST = range(5, 15)
_BEFORE = 15
STATE_SIZE = _BEFORE + JUMP_AT + 1
BETA, OWN, OWN_MEMORY, LAG_S = 0, 1, 2, 3
"""The places of a `Character` as an array."""
# A process that decays with `tau` keeps this share in each minute, and has this standard deviation with shocks so large.
_MEMORY_DECAY = np.exp(-1.0 / MEMORY_TAU_MIN)
_MEMORY_SHOCK = MEMORY_SD * np.sqrt(1.0 - _MEMORY_DECAY**2)
_MEMORY_REST = np.sqrt(1.0 - LEVERAGE**2 - FEEDBACK**2)
_BURST_DECAY = math.exp(-1.0 / BURST_TAU_MIN)
_PULSE_DECAY = math.exp(-1.0 / PULSE_TAU_MIN)
_PULSE_SHOCK = PULSE_SD * math.sqrt(1.0 - _PULSE_DECAY**2)
_OWN_SLOW_DECAY, _OWN_FAST_DECAY = math.exp(-1.0 / OWN_TAU_MIN[0]), math.exp(-1.0 / OWN_TAU_MIN[1])
_OWN_SLOW_SHOCK, _OWN_FAST_SHOCK = (math.sqrt(0.5 - 0.5 * each**2) for each in (_OWN_SLOW_DECAY, _OWN_FAST_DECAY))
_FLOW_DECAY = math.exp(-1.0 / FLOW_TAU_MIN)
_FLOW_SHOCK = math.sqrt(1.0 - _FLOW_DECAY**2)
_INTEREST_DECAY = math.exp(-1.0 / INTEREST_TAU_MIN)
_INTEREST_SHOCK = INTEREST_SD * math.sqrt(1.0 - _INTEREST_DECAY**2)
_MEAN_ABS, _SD_ABS = math.sqrt(2.0 / math.pi), math.sqrt(1.0 - 2.0 / math.pi)


@compiled
def _advance_factor(state: Floats, key: Any, move: float) -> None:
    """Bring the factor's volatility to the next minute; `move` is the standard normal number behind this one's return."""
    size = (min(abs(move), 4.0) - _MEAN_ABS) / _SD_ABS
    for k in range(len(MEMORY_SD)):
        shock = _MEMORY_REST[k] * quick_normal(key, 64 + k) - LEVERAGE[k] * move + FEEDBACK[k] * size
        state[k] = _MEMORY_DECAY[k] * state[k] + _MEMORY_SHOCK[k] * shock
    stays_min = CALM_MIN if state[_REGIME] == 0.0 else TURBULENT_MIN
    if uniform(key, 70) * stays_min < 1.0:
        state[_REGIME] = 1.0 - state[_REGIME]
    state[_BURST] *= _BURST_DECAY
    if uniform(key, 71) < BURST_PER_MIN:
        state[_BURST] -= BURST_SIZE * math.log(uniform(key, 72))
    state[_RESPONSE] += (PULSE_RESPONSE * state[_PULSE] - state[_RESPONSE]) / PULSE_DELAY_MIN
    state[_PULSE] = _PULSE_DECAY * state[_PULSE] + _PULSE_SHOCK * quick_normal(key, 73)


@compiled
def _factor_log_vol(state: Floats) -> float:
    """The factor's log volatility without clock, release and flutter."""
    total = state[_BURST] + state[_RESPONSE] + (CALM if state[_REGIME] == 0.0 else TURBULENT)
    for k in range(len(MEMORY_SD)):
        total += state[k]
    return float(total)


@compiled
def _advance_symbol(state: Floats, key: Any, own_memory: float, move: float) -> None:
    """Bring what a symbol has alone to the next minute; `move` is its return in this minute in standard deviations."""
    state[_OWN_SLOW] = _OWN_SLOW_DECAY * state[_OWN_SLOW] + own_memory * _OWN_SLOW_SHOCK * quick_normal(key, 64)
    state[_OWN_FAST] = _OWN_FAST_DECAY * state[_OWN_FAST] + own_memory * _OWN_FAST_SHOCK * quick_normal(key, 65)
    flow = FLOW_SHARE * move + math.sqrt(1.0 - FLOW_SHARE * FLOW_SHARE) * quick_normal(key, 66)
    state[_FLOW_NOW] = _FLOW_DECAY * state[_FLOW_NOW] + _FLOW_SHOCK * flow
    state[_INTEREST] = _INTEREST_DECAY * state[_INTEREST] + _INTEREST_SHOCK * quick_normal(key, 67)


@compiled
def walk_minutes(  # noqa: PLR0913, PLR0917 - compiled functions take numbers, not objects
    market_seed: Any,
    symbol_seed: Any,
    first: int,
    rate: float,
    calendar: Floats,
    character: Floats,
    state: Floats,
    walk: Floats,
    trade_counts: Ints,
) -> None:
    """Walk one symbol through the minutes of `calendar` (`seasons.day_calendar`) from minute `first` (since the market's epoch).

    `state` is changed in place. `walk` gets a row for the minute before `first`, one for each minute, and one whose prices
    are those at the end. Prices are logs relative to the base, sigmas are fractions, jumps are logs, `JUMP_AT` is the share
    of the minute at which the factor jumps, `TRADING` is the log of how much is traded, `FLOW` leans to buyers when it is
    positive. `trade_counts` gets the number of trades in each minute.
    """
    count = calendar.shape[0]
    beta, own = character[BETA], character[OWN]
    typical = beta * beta + own * own
    release_size = math.exp(RELEASE_SPREAD * quick_normal(stream_key(market_seed, first, STREAM_FACTOR), 80))
    walk[0, :] = 0.0
    for k in range(JUMP_AT + 1):
        walk[0, k] = state[_BEFORE + k]
    for i in range(count):
        key = stream_key(market_seed, first + i, STREAM_FACTOR)
        lasting = _factor_log_vol(state) + calendar[i, SEASON] + release_size * calendar[i, RELEASE]
        log_vol = min(LOG_VOL_LIMIT, max(-LOG_VOL_LIMIT, lasting + FLUTTER_SD * quick_normal(key, 74)))
        sigma, move, jump = MINUTE_SIGMA * math.exp(log_vol), normal(key, 0), 0.0
        if uniform(key, 75) < JUMP_PER_MIN:
            jump = sigma * JUMP_SIGMAS * (0.5 + uniform(key, 76)) * (-1.0 if uniform(key, 77) < DOWN_SHARE else 1.0)
        jump_at = uniform(key, 78)
        if calendar[i, IS_RELEASE] > 0.0:
            jump, jump_at = sigma * RELEASE_JUMP_SIGMAS * normal(key, 1), 0.02
        own_key = stream_key(symbol_seed, first + i, STREAM_WALK)
        own_log_vol = state[_OWN_FAST] + state[_OWN_SLOW]
        own_sigma, own_move, own_jump = own * sigma * math.exp(own_log_vol), normal(own_key, 0), 0.0
        if uniform(own_key, 75) < JUMP_PER_MIN:
            own_jump = (
                own_sigma
                * JUMP_SIGMAS
                * (0.5 + uniform(own_key, 76))
                * (-1.0 if uniform(own_key, 77) < DOWN_SHARE else 1.0)
            )
        own_share = own * own * math.exp(2.0 * own_log_vol)
        wide = 0.5 * math.log((beta * beta + own_share) / typical)
        trading = lasting + wide + state[_PULSE] + state[_INTEREST] + INTEREST_FLUTTER_SD * quick_normal(own_key, 79)
        row = walk[i + 1]
        row[OWN_PRICE], row[OWN_SIGMA], row[OWN_JUMP] = state[_OWN_LOG_PRICE], own_sigma, own_jump
        row[FACTOR_PRICE], row[FACTOR_SIGMA], row[FACTOR_JUMP], row[JUMP_AT] = state[_PRICE], sigma, jump, jump_at
        row[LOG_VOL] = min(LOG_VOL_LIMIT, max(-LOG_VOL_LIMIT, log_vol + wide))
        row[TRADING] = min(LOG_VOL_LIMIT, max(-LOG_VOL_LIMIT, trading))
        row[FLOW] = state[_FLOW_NOW]
        trade_counts[i] = poisson(TRADES_PER_MIN * rate * math.exp(COUNT_SHARE * row[TRADING]), own_key, 60)
        state[_PRICE] += sigma * move + jump - state[_PRICE] / REVERSION_TAU_MIN
        state[_OWN_LOG_PRICE] += own_sigma * own_move + own_jump - state[_OWN_LOG_PRICE] / REVERSION_TAU_MIN
        _advance_factor(state, key, move)
        total_move = (beta * move + own * own_move) / math.sqrt(typical)
        _advance_symbol(state, own_key, character[OWN_MEMORY], total_move)
    walk[count + 1, :] = 0.0
    walk[count + 1, OWN_PRICE], walk[count + 1, FACTOR_PRICE] = state[_OWN_LOG_PRICE], state[_PRICE]
    for k in range(JUMP_AT + 1):
        state[_BEFORE + k] = walk[count, k]
