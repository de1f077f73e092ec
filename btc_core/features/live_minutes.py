"""The minute columns of one market while its stream continues: stored bars first, then minutes made of feature rows.

Every quote and trade gives a feature row, so the mids of the rows of a minute are all mids of that minute. A row in the
first half of a minute has the columns at the close of the minute before. A row in the second half has the columns that the
minute in progress would give if it closed now, with the return, range and volume of the last 60 seconds: at the end of the
minute these are the minute's own.
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

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Singles = npt.NDArray[np.float32]

WINDOW_MIN = 9 * 1440
"""Minutes whose sums are kept: the longest window, the day before it, and a day as a margin."""
ROOM_MIN = 1440
"""Minutes that are added before the arrays are moved."""
MEMORY_MIN = MEMORY_DAYS * 1440

_INPUTS = [FEATURE_NAMES.index(name) for name in ("mid", "return_1m_bps", "log_parkinson_1m", "log_volume_1m")]
_HALF_NS = NS_PER_MIN // 2
_HIGH, _LOW, _CLOSE, _VOLUME = range(4)


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
        self._open = np.full(4, np.nan)
        """High, low and close of the minute in progress in logs, and its volume; NaN before its first mid."""
        self._at_close = np.empty(len(COLUMNS))
        self._columns_at_close()

    def columns(self, clocks_ns: list[int], values: Floats) -> Singles:
        """The columns of rows, (n, COLUMNS); `values` (n, all features) are theirs, `clocks_ns` the clock at each.

        A row before the clock of an earlier one belongs to the minute in progress.
        """
        out = np.empty((len(values), len(COLUMNS)), np.float32)
        inputs = values[:, _INPUTS]
        row = np.empty(len(COLUMNS))
        for place, clock_ns in enumerate(clocks_ns):
            self._advance(clock_ns // NS_PER_MIN)
            is_late_in_minute = clock_ns - self._minute * NS_PER_MIN >= _HALF_NS
            _observe(
                self._grid, self._lead, self._count, self._minute, self._open, inputs[place],
                self._releases, self._kinds, is_late_in_minute, row,
            )  # fmt: skip
            out[place] = row if is_late_in_minute else self._at_close
        return out

    def _advance(self, minute: int) -> None:
        """Close the minutes that ended; a minute without a mid is unknown."""
        if minute <= self._minute:
            return
        if minute - self._minute > MEMORY_MIN:  # everything that is known is too old
            self._grid, self._count, self._lead = new_grid(WINDOW_MIN + ROOM_MIN, MEMORY_MIN), 0, 0
            self._minute = minute
        while self._minute < minute:
            self._make_room()
            _close_minute(self._grid, self._lead, self._count, self._open)
            self._count += 1
            self._minute += 1
        self._open[:] = np.nan
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
def _close_minute(grid: Any, lead: int, i: int, minute: Floats) -> None:
    """Write the minute in progress at place i; it opened at the close of the minute before, if that is known."""
    before = grid.log_close[i - 1] if i > 0 else math.nan
    open_ = before if before == before else minute[_CLOSE]
    high, low = max(minute[_HIGH], open_), min(minute[_LOW], open_)
    put_minute(grid, lead, i, math.exp(open_), math.exp(high), math.exp(low), math.exp(minute[_CLOSE]), minute[_VOLUME])
    minute[:] = math.nan


@njit
def _observe(
    grid: Any, lead: int, i: int, now_min: int, minute: Floats, row: Floats, releases: Any, kinds: Any,
    is_late_in_minute: bool, out: Floats,  # noqa: FBT001 - numba takes no keyword arguments
) -> None:  # fmt: skip
    """Take the mid of a row into the minute in progress, and write the columns if that minute closed now."""
    mid, move, log_parkinson, log_volume = row[0], row[1] * 1e-4, row[2], row[3]
    if mid == mid:
        log_mid = math.log(mid)
        minute[_HIGH] = log_mid if math.isnan(minute[_HIGH]) else max(minute[_HIGH], log_mid)
        minute[_LOW] = log_mid if math.isnan(minute[_LOW]) else min(minute[_LOW], log_mid)
        minute[_CLOSE] = log_mid
        minute[_VOLUME] = math.expm1(log_volume) if log_volume == log_volume else 0.0
    if not is_late_in_minute:
        return
    close = minute[_CLOSE]
    open_ = close - move if move == move else minute[_LOW]
    high, low = max(minute[_HIGH], open_), min(minute[_LOW], open_)
    if log_parkinson == log_parkinson:
        width = math.sqrt(4.0 * math.log(2.0) * math.exp(log_parkinson))
        spare = max(width - (high - low), 0.0)
        high, low = high + 0.5 * spare, low - 0.5 * spare
    put_minute(grid, lead, i, math.exp(open_), math.exp(high), math.exp(low), math.exp(close), minute[_VOLUME])
    put_columns(grid, lead, i, now_min + 1, releases, kinds, out)
