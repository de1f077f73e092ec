"""The minute columns of one market while its stream continues: stored bars first, then minutes made of feature rows.

Every trade gives a feature row, so the prices of the rows of trades make the bar of a minute as the exchange makes it; a
minute without a trade has no bar. A row in the first half of a minute has the columns at the close of the minute before. A
row in the second half has the columns that the minute in progress would give if it closed now, with the bar of the last 60
seconds: at the end of the minute this is the minute's own.
What does not belong here: the columns themselves (`minute_columns`), and reading bars (`stores.minute_bars`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from btc_core.clock import NS_PER_MIN
from btc_core.compiled import njit
from btc_core.features.catalogue import FEATURE_NAMES
from btc_core.features.minute_columns import (
    COLUMNS,
    MEMORY_DAYS,
    Grid,
    new_grid,
    prices_by_minute,
    put_columns,
    put_minute,
    put_minutes,
)
from btc_core.features.releases import release_minutes
from btc_core.market.bars import BARS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Singles = npt.NDArray[np.float32]

WINDOW_MIN = 9 * 1440
"""Minutes whose sums are kept: the longest window, the day before it, and a day as a margin."""
ROOM_MIN = 1440
"""Minutes that are added before the arrays are moved."""
MEMORY_MIN = MEMORY_DAYS * 1440

RECENT_TRADES = 16_384
"""Trades of the last 60 seconds that are kept; of a market with more, the oldest are left out."""

_INPUTS = [FEATURE_NAMES.index(name) for name in ("price", "log_volume_1m")]
_HALF_NS = NS_PER_MIN // 2
_OPEN, _HIGH, _LOW, _CLOSE, _VOLUME = range(5)
_FIRST, _NEXT = range(2)


class LiveMinutes:
    """The minutes of the last days of one market. Give it the rows of a market in the order of its clock."""

    def __init__(self, bars: npt.NDArray[Any], clock_ns: int) -> None:
        """`bars` (dtype `bars.BARS`, sorted) are stored; those that closed after `clock_ns` are left out."""
        self._releases, self._kinds = release_minutes()
        self._minute = clock_ns // NS_PER_MIN
        """The minute in progress."""
        closed = bars[bars["ts_ns"] // NS_PER_MIN < self._minute]
        first_min = max(
            self._minute - MEMORY_MIN, int(closed["ts_ns"][0]) // NS_PER_MIN if len(closed) else self._minute
        )
        known = closed[closed["ts_ns"] // NS_PER_MIN >= first_min]
        count = self._minute - first_min
        whole = new_grid(count)
        put_minutes(whole, 0, 0, prices_by_minute(known, first_min, count))
        self._count = min(count, WINDOW_MIN)
        """Minutes in the grid; the place of the minute in progress."""
        self._lead = count - self._count
        self._grid = new_grid(WINDOW_MIN + ROOM_MIN, MEMORY_MIN)
        _copy_newest(whole, count, self._grid, self._count)
        self._grid.ratio[:count], self._grid.ratio_five[:count] = whole.ratio, whole.ratio_five
        self._open = np.full(5, np.nan)
        """The bar of the minute in progress, NaN before its first trade; its volume is that of the newest 60 seconds."""
        self._recent_ns, self._recent_prices = np.zeros(RECENT_TRADES, np.int64), np.empty(RECENT_TRADES)
        self._recent = np.zeros(2, np.int64)
        """The numbers of the first of the recent trades and of the next one; their places are modulo `RECENT_TRADES`."""
        self._at_close = np.empty(len(COLUMNS))
        self._closed: list[tuple[int, float, float, float, float, float, int]] = []
        self._bars_end_ns = (int(known["ts_ns"][-1]) // NS_PER_MIN + 1) * NS_PER_MIN if len(known) else 0
        self.bars_end_ns: list[int] = []
        """The end of the newest minute with a price at each row of the last call of `columns`; 0 if there is none."""
        self._columns_at_close()

    def columns(self, clocks_ns: list[int], values: Floats, is_trade: Sequence[bool]) -> Singles:
        """The columns of rows, (n, COLUMNS); `values` (n, all features) are theirs, `clocks_ns` the clock at each.

        `is_trade` says which rows are those of trades. A row before the clock of an earlier one belongs to the minute in progress.
        """
        out = np.empty((len(values), len(COLUMNS)), np.float32)
        prices, log_volumes = values[:, _INPUTS].T
        row = np.empty(len(COLUMNS))
        self.bars_end_ns = []
        for place, clock_ns in enumerate(clocks_ns):
            self._advance(clock_ns // NS_PER_MIN)
            self.bars_end_ns.append(self._bars_end_ns)
            is_late_in_minute = clock_ns - self._minute * NS_PER_MIN >= _HALF_NS
            if is_trade[place]:
                _add_trade(
                    self._open, self._recent, self._recent_ns, self._recent_prices, clock_ns, prices[place]
                )  # fmt: skip
            self._open[_VOLUME] = math.expm1(log_volumes[place]) if log_volumes[place] == log_volumes[place] else 0.0
            if is_late_in_minute:
                _put_recent(
                    self._grid, self._lead, self._count, self._recent, self._recent_ns, self._recent_prices, clock_ns,
                    prices[place], self._open[_VOLUME],
                )  # fmt: skip
                at = self._lead, self._count, self._minute + 1
                put_columns(self._grid, *at, self._releases, self._kinds, row)
            out[place] = row if is_late_in_minute else self._at_close
        return out

    def take_closed(self) -> npt.NDArray[Any]:
        """The minutes that rows have closed since the last call, dtype `bars.BARS`, oldest first.

        A minute without a trade has NaN for its prices. The volume is that of the last 60 seconds.
        """
        closed, self._closed = np.array(self._closed, BARS), []
        return closed

    def _advance(self, minute: int) -> None:
        """Close the minutes that ended; a minute without a trade is unknown."""
        if minute <= self._minute:
            return
        if minute - self._minute > MEMORY_MIN:  # everything that is known is too old
            self._grid, self._count, self._lead = new_grid(WINDOW_MIN + ROOM_MIN, MEMORY_MIN), 0, 0
            self._closed.clear()
            self._bars_end_ns = 0
            self._minute = minute
            self._open[:] = np.nan
        while self._minute < minute:
            self._make_room()
            bar = self._open.tolist()
            put_minute(self._grid, self._lead, self._count, *bar)
            self._closed.append((self._minute * NS_PER_MIN, *bar, -1))
            self._open[:] = np.nan
            self._count += 1
            self._minute += 1
            if not math.isnan(bar[_CLOSE]):
                self._bars_end_ns = self._minute * NS_PER_MIN
        self._columns_at_close()

    def _columns_at_close(self) -> None:
        self._at_close[:] = np.nan
        if self._count:
            place = self._count - 1
            put_columns(self._grid, self._lead, place, self._minute, self._releases, self._kinds, self._at_close)

    def _make_room(self) -> None:
        """Move the newest minutes to the front when the next minute and the one after it have no room."""
        if self._count + 1 >= WINDOW_MIN + ROOM_MIN:
            moved = self._count - WINDOW_MIN
            grid = new_grid(WINDOW_MIN + ROOM_MIN, MEMORY_MIN)
            _copy_newest(self._grid, self._count, grid, WINDOW_MIN)
            known = self._lead + self._count
            dropped = max(known - MEMORY_MIN, 0)
            grid.ratio[: known - dropped] = self._grid.ratio[dropped:known]
            grid.ratio_five[: known - dropped] = self._grid.ratio_five[dropped:known]
            self._grid, self._count, self._lead = grid, WINDOW_MIN, self._lead + moved - dropped


def _copy_newest(source: Grid, total: int, target: Grid, count: int) -> None:
    """Copy the newest `count` of the `total` minutes of a grid to the front of another, without the ratios."""
    for name in Grid._fields:
        if name not in {"ratio", "ratio_five"}:
            getattr(target, name)[:count] = getattr(source, name)[total - count : total]
    target.large[:count] = np.maximum(target.large[:count] - (total - count), -1)


@njit
def _add_trade(bar: Floats, recent: Any, recent_ns: Any, recent_prices: Floats, clock_ns: int, price: float) -> None:
    """Take a trade into the bar of the minute in progress and into the recent trades."""
    if math.isnan(bar[_OPEN]):
        bar[_OPEN] = bar[_HIGH] = bar[_LOW] = price
    bar[_HIGH], bar[_LOW], bar[_CLOSE] = max(bar[_HIGH], price), min(bar[_LOW], price), price
    slot = recent[_NEXT] % RECENT_TRADES
    recent_ns[slot], recent_prices[slot] = clock_ns, price
    recent[_NEXT] += 1
    recent[_FIRST] = max(recent[_FIRST], recent[_NEXT] - RECENT_TRADES)


@njit
def _put_recent(
    grid: Any, lead: int, i: int, recent: Any, recent_ns: Any, recent_prices: Floats, clock_ns: int, price: float,
    volume: float,
) -> None:  # fmt: skip
    """Write the bar of the last 60 seconds at place i; without a trade in them it is flat at `price`."""
    while recent[_FIRST] < recent[_NEXT] and clock_ns - recent_ns[recent[_FIRST] % RECENT_TRADES] >= NS_PER_MIN:
        recent[_FIRST] += 1
    open_, high, low = price, price, price
    if recent[_FIRST] < recent[_NEXT]:
        open_ = recent_prices[recent[_FIRST] % RECENT_TRADES]
        for number in range(recent[_FIRST], recent[_NEXT]):
            each = recent_prices[number % RECENT_TRADES]
            high, low = max(high, each), min(low, each)
    put_minute(grid, lead, i, open_, high, low, price, volume)
