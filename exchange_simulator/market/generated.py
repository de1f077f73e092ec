"""The generated market: a pure function of seed, rate, symbol and minute.

A restarted simulator goes on with the same market, and history asked for later is what was streamed. Day after day
from `EPOCH_NS` only the state at midnight is kept; everything inside a day is made again when asked for.

What does not belong here: the arithmetic (`kernels`), frames and sockets.
"""

from __future__ import annotations

import threading
import zlib
from bisect import bisect_right
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from btc_core.clock import NS_PER_MIN, NS_PER_US
from btc_core.errors import InvalidInput
from exchange_simulator.market import kernels
from exchange_simulator.market.kernels import MIN_PER_DAY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from exchange_simulator.pairs import Pair

EPOCH_NS = 1_704_067_200_000_000_000
"""2024-01-01 00:00 UTC: the first minute of every generated market. Changing it changes every market."""
EPOCH_MIN = EPOCH_NS // NS_PER_MIN

DAYS_CACHED = 3
"""Days whose bars and minute skeletons stay in memory: a rolling day touches two. 150 KB each."""
MAX_BOOK_LEVELS = 1_000


class Trade(NamedTuple):
    """One trade; price in ticks, quantity in lots, the side is the taker's."""

    ts_ns: int
    trade_id: int
    price: int
    qty: int
    buy: bool
    market: bool


class Quote(NamedTuple):
    """The best bid and ask from this moment on; prices in ticks, quantities in lots."""

    ts_ns: int
    bid: int
    bid_qty: int
    ask: int
    ask_qty: int


class Bar(NamedTuple):
    """One bar; prices in ticks, volume in lots, `value` is the sum of price times quantity."""

    start_min: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    trades: int
    value: float


class Bars(NamedTuple):
    """Minute bars, one row a minute whether it has trades or not; the columns of `Bar`."""

    start_min: NDArray[np.int64]
    columns: NDArray[np.int64]
    """Open, high, low, close, volume, trades; zero where a minute has no trades."""
    value: NDArray[np.float64]


class Tape(Protocol):
    """The past of one symbol, generated or recorded; `until_ns` is the present and nothing later is told."""

    def trades_since(self, since_ns: int, count: int, until_ns: int) -> list[Trade]:
        """The first `count` trades later than `since_ns`, up to and with `until_ns`."""
        ...

    def last_trades(self, count: int, until_ns: int) -> list[Trade]:
        """The newest `count` trades up to and with `until_ns`, oldest first."""
        ...

    def minute_bars(self, first_min: int, end_min: int) -> Bars:
        """Bars of the minutes [first_min, end_min), counted since 1970, without those before the tape's first."""
        ...


def _symbol_seed(pair: Pair, seed: int) -> np.uint64:
    return np.uint64(kernels.mix(np.uint64(seed) ^ np.uint64(zlib.crc32(pair.symbol.encode()) << 20)))


def _key(seed: np.uint64, minute: int, stream: int) -> np.uint64:
    """Compiled functions hand back plain integers; a key must stay uint64 or its arithmetic turns into floats."""
    return np.uint64(kernels.stream_key(seed, minute, stream))


def _walk_day(
    seed: np.uint64, rate: float, day: int, state: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Skeleton rows and trades a minute of one day that starts in `state`, and the state at its end."""
    walk, counts, end = np.zeros((MIN_PER_DAY + 1, 3)), np.zeros(MIN_PER_DAY, np.int64), state.copy()
    kernels.skeleton(seed, day * MIN_PER_DAY, MIN_PER_DAY, rate, end, walk, counts)
    return walk, counts, end


class _Calendar:
    """The state of one market at every midnight so far: 50 bytes a day, a second of work for three years."""

    def __init__(self, seed: np.uint64, rate: float) -> None:
        self._seed = seed
        self._rate = rate
        self._lock = threading.Lock()
        self._states = [np.zeros(4)]
        self._first_ids = [1]

    def midnight(self, day: int) -> tuple[NDArray[np.float64], int]:
        """The state at the start of a day (since the epoch) and the id of its first trade."""
        with self._lock:
            for earlier in range(len(self._states) - 1, day):
                _, counts, end = _walk_day(self._seed, self._rate, earlier, self._states[earlier])
                self._states.append(end)
                self._first_ids.append(self._first_ids[earlier] + int(counts.sum()))
            return self._states[day], self._first_ids[day]


_calendar = lru_cache(16)(_Calendar)


class Market:
    """One symbol of the generated market; safe to use from several threads."""

    def __init__(self, pair: Pair, *, seed: int = 1, rate: float = 1.0) -> None:
        self.pair = pair
        self.seed = _symbol_seed(pair, seed)
        self.rate = rate
        self.base_ticks = pair.base_price * pair.ticks_per_unit
        self.qty_scale = 60_000.0 / pair.base_price
        self._calendar = _calendar(self.seed, rate)
        self._day = lru_cache(DAYS_CACHED)(self._make_day)
        self._day_bars = lru_cache(DAYS_CACHED)(self._make_day_bars)

    # Days and minutes since the epoch are `day` and `minute`; minutes since 1970 are `*_min`.

    def _make_day(self, day: int) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
        """Skeleton rows, trades a minute and the first trade id of each minute (one more than minutes)."""
        if day < 0:
            msg = f"the generated market of {self.pair.symbol} begins on 2024-01-01; nothing is known before"
            raise InvalidInput(msg)
        state, first_id = self._calendar.midnight(day)
        walk, counts, _ = _walk_day(self.seed, self.rate, day, state)
        ids = np.concatenate(([first_id], first_id + np.cumsum(counts)))
        return walk, counts, ids

    def _make_day_bars(self, day: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        walk, counts, _ = self._day(day)
        bars, value = np.zeros((MIN_PER_DAY, 6), np.int64), np.zeros(MIN_PER_DAY)
        kernels.fill_bars(
            self.seed, day * MIN_PER_DAY, self.rate, self.base_ticks, self.qty_scale, walk, counts, bars, value
        )
        return bars, value

    def log_vol(self, at_min: int) -> float:
        """The log volatility that drives this minute (0 is typical): the truth that a forecast tries to find."""
        day, row = divmod(at_min - EPOCH_MIN, MIN_PER_DAY)
        return float(self._day(day)[0][row, 2])

    def _moves(self, minute: int) -> NDArray[np.int64]:
        day, row = divmod(minute, MIN_PER_DAY)
        walk, _, _ = self._day(day)
        log_price, sigma, log_vol = walk[row]
        start, end = (self.base_ticks * float(np.exp(price)) for price in (log_price, walk[row + 1, 0]))
        moves = np.empty((kernels.move_count(log_vol, self.rate), 3), np.int64)
        key = _key(self.seed, minute, kernels.STREAM_MOVES)
        kernels.fill_moves(key, start, end, start * sigma, log_vol, moves)
        return moves

    def trades(self, at_min: int) -> list[Trade]:
        """All trades of one minute (counted since 1970), in order."""
        minute = at_min - EPOCH_MIN
        day, row = divmod(minute, MIN_PER_DAY)
        _, counts, ids = self._day(day)
        rows = np.empty((counts[row], 5), np.int64)
        key = _key(self.seed, minute, kernels.STREAM_TRADES)
        kernels.fill_trades(key, self._moves(minute), self.qty_scale, rows)
        start_ns, first_id = at_min * NS_PER_MIN, int(ids[row])
        return [
            Trade(start_ns + t * NS_PER_US, first_id + i, price, qty, buy == 1, market == 1)
            for i, (t, price, qty, buy, market) in enumerate(rows.tolist())
        ]

    def quotes(self, at_min: int) -> list[Quote]:
        """All quotes of one minute (counted since 1970), in order; the first stands at its very start."""
        minute = at_min - EPOCH_MIN
        moves = self._moves(minute)
        quiet = np.exp(0.5 * self.log_vol(at_min))
        sizes = np.empty(int(kernels.SIZES_PER_MIN * quiet * self.rate), np.int64)
        key = _key(self.seed, minute, kernels.STREAM_SIZES)
        kernels.arrival_times(key, 0.0, sizes)
        rows = np.empty((len(moves) + len(sizes), 5), np.int64)
        kernels.fill_quotes(np.uint64(kernels.mix(key)), moves, sizes, self.qty_scale, rows)
        start_ns = at_min * NS_PER_MIN
        return [
            Quote(start_ns + t * NS_PER_US, bid, bid_qty, ask, ask_qty)
            for t, bid, bid_qty, ask, ask_qty in rows.tolist()
        ]

    def quote_at(self, ts_ns: int) -> Quote:
        """The quote that stands at this moment."""
        quotes = self.quotes(ts_ns // NS_PER_MIN)
        return quotes[bisect_right(quotes, ts_ns, key=lambda quote: quote.ts_ns) - 1]

    def trades_since(self, since_ns: int, count: int, until_ns: int) -> list[Trade]:
        """The first `count` trades later than `since_ns`, up to and with `until_ns`."""
        found: list[Trade] = []
        at_min = max(since_ns // NS_PER_MIN, EPOCH_MIN)
        while len(found) < count and at_min * NS_PER_MIN <= until_ns:
            found += [trade for trade in self.trades(at_min) if since_ns < trade.ts_ns <= until_ns]
            at_min += 1
        return found[:count]

    def last_trades(self, count: int, until_ns: int) -> list[Trade]:
        """The newest `count` trades up to and with `until_ns`, oldest first."""
        found: list[Trade] = []
        at_min = until_ns // NS_PER_MIN
        while len(found) < count and at_min >= EPOCH_MIN:
            found = [trade for trade in self.trades(at_min) if trade.ts_ns <= until_ns] + found
            at_min -= 1
        return found[-count:]

    def minute_bars(self, first_min: int, end_min: int) -> Bars:
        """Bars of the minutes [first_min, end_min), counted since 1970; minutes before the epoch are left out."""
        first, end = max(0, first_min - EPOCH_MIN), max(0, end_min - EPOCH_MIN)
        columns, values = [np.zeros((0, 6), np.int64)], [np.zeros(0)]
        for day in range(first // MIN_PER_DAY, -(-end // MIN_PER_DAY)):
            bars, value = self._day_bars(day)
            rows = slice(max(0, first - day * MIN_PER_DAY), end - day * MIN_PER_DAY)
            columns.append(bars[rows])
            values.append(value[rows])
        return Bars(np.arange(first, max(first, end)) + EPOCH_MIN, np.concatenate(columns), np.concatenate(values))


class BookMaker:
    """Books around a quote: the best level is the quote, the others are a function of price and time."""

    def __init__(self, pair: Pair, seed: int) -> None:
        self._seed = _symbol_seed(pair, seed)
        self._qty_scale = 60_000.0 / pair.base_price
        self._levels = np.empty((MAX_BOOK_LEVELS, 2), np.int64)

    def sides(self, quote: Quote, depth: int) -> tuple[dict[int, int], dict[int, int]]:
        """Bids and asks at `quote`, best first: price in ticks -> quantity in lots."""
        both = []
        time_us = quote.ts_ns // NS_PER_US
        for side, best, best_qty in ((-1, quote.bid, quote.bid_qty), (1, quote.ask, quote.ask_qty)):
            levels = self._levels[:depth]
            count = kernels.book_side(self._seed, time_us, side, best, best_qty, self._qty_scale, levels)
            both.append(dict(levels[:count].tolist()))
        return both[0], both[1]
