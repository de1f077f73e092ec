"""The generated market: a pure function of seed, rate, symbol and minute.

A restarted simulator continues the same market, and history read later equals what was streamed. Of every day since
`EPOCH_NS` only the state at midnight is kept; the minutes of a day are computed again when they are asked for.

What does not belong here: the arithmetic (`volatility`, `kernels`), the levels of a book (`order_book`), frames and sockets.
"""

from __future__ import annotations

import threading
import zlib
from bisect import bisect_right
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from btc_core.clock import NS_PER_MIN, NS_PER_US
from btc_core.errors import InvalidInput
from exchange_simulator.market import kernels, volatility
from exchange_simulator.market.characters import character
from exchange_simulator.market.events import Bars, Quote, Trade
from exchange_simulator.market.random_numbers import mix, stream_key
from exchange_simulator.market.seasons import day_calendar
from exchange_simulator.units import MIN_PER_DAY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from exchange_simulator.pairs import Pair

EPOCH_NS = 1_704_067_200_000_000_000
"""2024-01-01 00:00 UTC, the first minute of every generated market. Another epoch changes every market."""
EPOCH_MIN = EPOCH_NS // NS_PER_MIN

REVISION = 3
"""Raise this whenever the same seed gives another market: a data directory then belongs to trades with other ids."""

DAYS_CACHED = 3
"""Days whose walks and bars stay in memory, 210 KB each. The rolling 24 hours touch two days."""
REFERENCE_PRICE = 60_000.0
"""The price at which quantities have a scale of 1; a cheaper asset trades in larger quantities."""


def symbol_seed(pair: Pair, seed: int) -> np.uint64:
    """The seed of one symbol of the market with this seed."""
    return np.uint64(mix(np.uint64(seed) ^ np.uint64(zlib.crc32(pair.symbol.encode()) << 20)))


def factor_seed(seed: int) -> np.uint64:
    """The seed of the factor that all symbols of the market with this seed share."""
    return np.uint64(mix(np.uint64(seed)))


def qty_scale(pair: Pair) -> float:
    """What quantities of this pair are multiplied with."""
    return REFERENCE_PRICE / pair.base_price


def _stream_key(seed: np.uint64, minute: int, stream: int) -> np.uint64:
    """A compiled function returns a plain integer; with a key that is not uint64 the arithmetic would be in floats."""
    return np.uint64(stream_key(seed, minute, stream))


class _Walk(NamedTuple):
    """What `_Midnights` needs to walk a market: both seeds, the rate, and the character as a tuple."""

    factor_seed: np.uint64
    symbol_seed: np.uint64
    rate: float
    character: tuple[float, ...]

    def day(
        self, day: int, state: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
        """The walk and the trade counts of a day that begins in `state` (see `volatility.walk_minutes`), and its end state."""
        walk = np.empty((MIN_PER_DAY + 2, volatility.WALK_COLUMNS))
        trade_counts, end_state = np.zeros(MIN_PER_DAY, np.int64), state.copy()
        calendar, shape = day_calendar(EPOCH_MIN // MIN_PER_DAY + day), np.array(self.character)
        first = day * MIN_PER_DAY
        volatility.walk_minutes(
            self.factor_seed, self.symbol_seed, first, self.rate, calendar, shape, end_state, walk, trade_counts
        )
        return walk, trade_counts, end_state


class _Midnights:
    """The state of one market at every midnight so far: 300 bytes a day, half a second of work for three years."""

    def __init__(self, walk: _Walk) -> None:
        self._walk = walk
        self._lock = threading.Lock()
        self._states = [np.zeros(volatility.STATE_SIZE)]
        self._first_ids = [1]

    def at(self, day: int) -> tuple[NDArray[np.float64], int]:
        """The state at the start of a day (counted since the epoch), and the id of the day's first trade."""
        with self._lock:
            for earlier in range(len(self._states) - 1, day):
                _, trade_counts, end_state = self._walk.day(earlier, self._states[earlier])
                self._states.append(end_state)
                self._first_ids.append(self._first_ids[earlier] + int(trade_counts.sum()))
            return self._states[day], self._first_ids[day]


_midnights = lru_cache(16)(_Midnights)


class GeneratedMarket:
    """One symbol of the generated market, and a tape of its past. Several threads may use it at once."""

    def __init__(self, pair: Pair, *, seed: int = 1, rate: float = 1.0) -> None:
        self.pair = pair
        self.seed = symbol_seed(pair, seed)
        self.rate = rate
        self.base_ticks = pair.base_price * pair.ticks_per_unit
        self.qty_scale = qty_scale(pair)
        self._factor_seed = factor_seed(seed)
        self._character = np.array(character(pair.symbol))
        self._walk = _Walk(self._factor_seed, self.seed, rate, tuple(character(pair.symbol)))
        self._midnights = _midnights(self._walk)
        self._day = lru_cache(DAYS_CACHED)(self._make_day)
        self._day_bars = lru_cache(DAYS_CACHED)(self._make_day_bars)

    # `day` and `minute` count from the epoch of the market; `*_min` counts from 1970.

    def _make_day(self, day: int) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
        """The walk of a day, its trade counts, and the first trade id of each minute and of the next day."""
        if day < 0:
            msg = f"the generated market of {self.pair.symbol} begins on 2024-01-01; nothing is known before"
            raise InvalidInput(msg)
        state, first_id = self._midnights.at(day)
        walk, trade_counts, _ = self._walk.day(day, state)
        first_ids = np.concatenate(([first_id], first_id + np.cumsum(trade_counts)))
        return walk, trade_counts, first_ids

    def _make_day_bars(self, day: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        walk, trade_counts, _ = self._day(day)
        bars, value = np.zeros((MIN_PER_DAY, 6), np.int64), np.zeros(MIN_PER_DAY)
        kernels.fill_bars(
            self._factor_seed,
            self.seed,
            day * MIN_PER_DAY,
            self.rate,
            self.base_ticks,
            self.qty_scale,
            self._character,
            walk,
            trade_counts,
            bars,
            value,
        )
        return bars, value

    def _row(self, minute: int) -> NDArray[np.float64]:
        """The row of the walk of a minute."""
        day, row = divmod(minute, MIN_PER_DAY)
        return np.asarray(self._day(day)[0][row + 1])

    def log_vol(self, at_min: int) -> float:
        """The log volatility of this minute (0 is typical): the true value of what a forecast estimates."""
        return float(self._row(at_min - EPOCH_MIN)[volatility.LOG_VOL])

    def _moves(self, minute: int) -> NDArray[np.int64]:
        """The best prices of one minute, as `kernels.fill_moves` writes them."""
        day, row = divmod(minute, MIN_PER_DAY)
        earlier, now, following = self._day(day)[0][row : row + 3]
        before, path = np.empty(kernels.PATH_STEPS + 1), np.empty(kernels.PATH_STEPS + 1)
        kernels.fill_path(self._factor_seed, minute - 1, earlier, now, before)
        kernels.fill_path(self._factor_seed, minute, now, following, path)
        count = kernels.move_count(now[volatility.LOG_VOL], self.rate)
        moves = np.empty((count, kernels.MOVE_COLUMNS), np.int64)
        key = _stream_key(self.seed, minute, volatility.STREAM_MOVES)
        kernels.fill_moves(key, self.base_ticks, self._character, now, following, before, path, moves)
        return moves

    def trades(self, at_min: int) -> list[Trade]:
        """All trades of one minute (counted since 1970), in order."""
        minute = at_min - EPOCH_MIN
        day, row = divmod(minute, MIN_PER_DAY)
        _, trade_counts, first_ids = self._day(day)
        rows = np.empty((trade_counts[row], 5), np.int64)
        key = _stream_key(self.seed, minute, volatility.STREAM_TRADES)
        kernels.fill_trades(key, self._row(minute), self._moves(minute), self.qty_scale, rows)
        start_ns, first_id = at_min * NS_PER_MIN, int(first_ids[row])
        return [
            Trade(start_ns + time_us * NS_PER_US, first_id + i, price, qty, buy == 1, market == 1)
            for i, (time_us, price, qty, buy, market) in enumerate(rows.tolist())
        ]

    def quotes(self, at_min: int) -> list[Quote]:
        """All quotes of one minute (counted since 1970), in order; the first is at the start of the minute."""
        minute = at_min - EPOCH_MIN
        moves = self._moves(minute)
        activity = np.exp(0.5 * self.log_vol(at_min))
        size_times = np.empty(int(kernels.SIZES_PER_MIN * activity * self.rate), np.int64)
        key = _stream_key(self.seed, minute, volatility.STREAM_SIZES)
        kernels.arrival_times(key, 0.0, size_times)
        rows = np.empty((len(moves) + len(size_times), 5), np.int64)
        kernels.fill_quotes(np.uint64(mix(key)), self._row(minute), moves, size_times, self.qty_scale, rows)
        start_ns = at_min * NS_PER_MIN
        return [
            Quote(start_ns + time_us * NS_PER_US, bid, bid_qty, ask, ask_qty)
            for time_us, bid, bid_qty, ask, ask_qty in rows.tolist()
        ]

    def quote_at(self, ts_ns: int) -> Quote:
        """The quote that is valid at this time."""
        quotes = self.quotes(ts_ns // NS_PER_MIN)
        return quotes[bisect_right(quotes, ts_ns, key=lambda quote: quote.ts_ns) - 1]

    def trades_since(self, since_ns: int, count: int, until_ns: int) -> list[Trade]:
        """The first `count` trades after `since_ns`, up to and including `until_ns`."""
        found: list[Trade] = []
        at_min = max(since_ns // NS_PER_MIN, EPOCH_MIN)
        while len(found) < count and at_min * NS_PER_MIN <= until_ns:
            found += [trade for trade in self.trades(at_min) if since_ns < trade.ts_ns <= until_ns]
            at_min += 1
        return found[:count]

    def last_trades(self, count: int, until_ns: int) -> list[Trade]:
        """The newest `count` trades up to and including `until_ns`, oldest first."""
        found: list[Trade] = []
        at_min = until_ns // NS_PER_MIN
        while len(found) < count and at_min >= EPOCH_MIN:
            found = [trade for trade in self.trades(at_min) if trade.ts_ns <= until_ns] + found
            at_min -= 1
        return found[-count:]

    def minute_bars(self, first_min: int, end_min: int) -> Bars:
        """Bars of the minutes [first_min, end_min), counted since 1970, without minutes before the epoch."""
        first, end = max(0, first_min - EPOCH_MIN), max(0, end_min - EPOCH_MIN)
        columns, values = [np.zeros((0, 6), np.int64)], [np.zeros(0)]
        for day in range(first // MIN_PER_DAY, -(-end // MIN_PER_DAY)):
            bars, value = self._day_bars(day)
            rows = slice(max(0, first - day * MIN_PER_DAY), end - day * MIN_PER_DAY)
            columns.append(bars[rows])
            values.append(value[rows])
        return Bars(np.arange(first, max(first, end)) + EPOCH_MIN, np.concatenate(columns), np.concatenate(values))
