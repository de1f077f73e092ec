"""Columns of closed minute bars, which the models read beside the features of the stream.

A column of a minute uses the bars that closed by then and nothing later. It depends on the bars of the last
`MEMORY_DAYS` days and on nothing older, so a process that holds these bars computes, to the last bit, the columns of
the whole history: long windows are sums of shorter ones that end at the same minute, never differences of running sums.

A minute without a bar is unknown. A column is NaN while less than half of its window is known.
What does not belong here: features of ticks (`fold`), and what a model makes of a column (`btc_core.models.net`).
"""

from __future__ import annotations

import hashlib
import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from btc_core.clock import NS_PER_MIN
from btc_core.compiled import njit
from btc_core.features.new_york import new_york_behind_s
from btc_core.features.releases import KINDS, release_minutes
from btc_core.market.bars import FILE_COLUMNS

Floats = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]

WINDOWS_MIN = (5, 15, 30, 60, 240, 1440, 4320, 10_080)
PROFILE_DAYS = 120
"""How many past days the profiles of the day are means of."""
PROFILE_HALF_LIVES_DAYS = (15, 60)
MEMORY_DAYS = PROFILE_DAYS + 3
"""Days of bars on which a column depends: the days of the profiles, the day before each of them by which its minutes are
divided, an hour when the clocks change, and a day as a margin."""
NEEDED_MIN = 1440
"""Without half of the bars of the last day there are no columns: the models that read them need a level of the day."""

GK_WINDOWS_MIN = WINDOWS_MIN
RANGE_WINDOWS_MIN = (60, 240, 1440)
VOLUME_WINDOWS_MIN = (1, 5, 15, 60, 240)
PARKINSON_LAGS, RETURN_LAGS, VOLUME_LAGS = 10, 5, 5
GK_HALF_LIVES_MIN = (10, 60)
UTC_HARMONICS, NEW_YORK_HARMONICS, SLOTS = 3, 4, 12
SOON_HALF_LIVES_MIN, SINCE_HALF_LIVES_MIN = (10, 60), (15, 60)

LOG_VARIANCES: tuple[str, ...] = (
    *(f"log_gk_{w}m" for w in GK_WINDOWS_MIN),
    *(f"log_parkinson_lag_{k}" for k in range(PARKINSON_LAGS)),
    *(f"log_medrv_{w}m" for w in (15, 60)),
    *(f"log_gk_ewma_{h}m" for h in GK_HALF_LIVES_MIN),
    *(f"log_span_{w}m" for w in RANGE_WINDOWS_MIN),
    *(f"log_largest_range_{w}m" for w in (60, 1440)),
    "log_parkinson_240m",
    "log_parkinson_1440m",
)
"""Logs of variances, ln of ln². `gk` is Garman and Klass (1980), `medrv` Andersen, Dobrev and Schaumburg (2012), `span`
the squared range of a whole window, `largest_range` the largest squared range of a minute in it."""
RETURNS: tuple[str, ...] = (*(f"return_lag_{k}" for k in range(RETURN_LAGS)), "return_1440m")
"""Log returns: of single minutes, counted back from the newest, and of the last day."""
SHAPES: tuple[str, ...] = (
    *(f"downside_share_{w}m" for w in (5, 30, 240)),
    *(f"rv_over_parkinson_{w}m" for w in (5, 60, 1440)),
    *(f"quarticity_{w}m" for w in (60, 1440)),
    "range_volatility_60m",
    *(f"zero_share_{w}m" for w in (5, 60, 1440)),
    "since_large_range",
    *(f"volume_{w}m" for w in VOLUME_WINDOWS_MIN),
    "volume_1440m",
    *(f"volume_lag_{k}" for k in range(1, VOLUME_LAGS)),
    *(f"variance_per_volume_{w}m" for w in (5, 60)),
    *(f"profile_{d}d" for d in PROFILE_HALF_LIVES_DAYS),
    "profile_first_minute",
    "profile_surprise",
)
"""Numbers without a level: shares, logs of ratios, and the profile of the day in New York (ln of the variance of the next
five minutes relative to that of a day). Volumes are relative to the mean of the day, that of the day to the week's."""
RELEASES: tuple[str, ...] = (
    *(f"release_{kind}" for kind in KINDS),
    *(f"release_soon_{h}m" for h in SOON_HALF_LIVES_MIN),
    *(f"since_{group}_{h}m" for group in ("fomc", "morning") for h in SINCE_HALF_LIVES_MIN),
)
"""The share of the next five minutes that follows a release, how soon the next one is, and how recent the last one is."""
CLOCK: tuple[str, ...] = (
    *(f"utc_{wave}_{k}" for k in range(1, UTC_HARMONICS + 1) for wave in ("sin", "cos")),
    *(f"new_york_{wave}_{k}" for k in range(1, NEW_YORK_HARMONICS + 1) for wave in ("sin", "cos")),
    *(f"weekday_{day}" for day in range(7)),
    *(f"slot_{slot}" for slot in range(SLOTS)),
)
"""The time of day and week, and the five-minute slot of the hour in which the next five minutes lie."""
COLUMNS: tuple[str, ...] = (*LOG_VARIANCES, *RETURNS, *SHAPES, *RELEASES, *CLOCK)
"""All columns, in the order of a row."""
TREE_COLUMNS: tuple[str, ...] = (*LOG_VARIANCES, *RETURNS, *SHAPES, *RELEASES)
"""The columns that trees read: they find the clock in the features. These are the first columns of a row."""

COLUMNS_REVISION = 1
"""Raise this whenever the columns get other values from the same bars. Model bundles of another revision are refused."""
COLUMNS_VERSION: str = hashlib.sha256(repr((COLUMNS_REVISION, COLUMNS)).encode()).hexdigest()[:12]
"""A hash of the names and the revision."""

_KNOWN, _RV, _DOWN, _PARKINSON, _GK, _VOLUME, _ZERO, _MEDRV, _FOURTH, _LOG_RANGE, _LOG_RANGE_2 = range(11)
_SUMS = 11
_HIGH, _LOW, _RANGE = range(3)
_FLOOR = 1e-10  # (0.1 bps)², as in the features
_RANGE_FLOOR = 1e-5  # 0.1 bps
_PARKINSON_FACTOR = 1.0 / (4.0 * math.log(2.0))
_GK_FACTOR = 2.0 * math.log(2.0) - 1.0
_MEDRV_FACTOR = math.pi / (6.0 - 4.0 * math.sqrt(3.0) + math.pi)
_LARGE_RANGE = 8.0  # a Parkinson variance of a minute above this multiple of the day's mean is a range of about 4 σ
_MAX_RATIO = 20.0  # a minute counts in a profile with at most this multiple of the variance of its day
_GK_WEIGHTS = np.array([[0.5 ** (5.0 * k / h) for k in range(48)] for h in GK_HALF_LIVES_MIN])
_PROFILE_WEIGHTS = np.array([[0.5 ** (d / h) for d in range(1, PROFILE_DAYS + 1)] for h in PROFILE_HALF_LIVES_DAYS])
_WINDOWS = np.array(WINDOWS_MIN, np.float64)


class Grid(NamedTuple):
    """Quantities of consecutive minutes and their sums and maxima over windows; the place of a minute is its row.

    `ratio` and `ratio_five` reach further back than the others: a minute at place i is their row `lead + i`.
    """

    log_close: Floats
    one: Floats
    """(n, sums): the quantities of single minutes; all 0 for an unknown minute."""
    five: Floats
    hour: Floats
    day: Floats
    top_one: Floats
    """(n, 3): log high, minus log low, and range of single minutes; −∞ for an unknown minute."""
    top_five: Floats
    top_hour: Floats
    top_day: Floats
    ratio: Floats
    """Variance of a minute relative to the mean of its last day; NaN where unknown."""
    ratio_five: Floats
    """The mean of `ratio` over five minutes."""
    large: Longs
    """The place of the last minute with a large range, −1 before the first one."""


def new_grid(capacity: int, lead: int = 0) -> Grid:
    """An empty grid with room for `capacity` minutes, and for `lead` minutes more in the ratios."""
    one, five, hour, day = (np.zeros((capacity, _SUMS)) for _ in range(4))
    top_one, top_five, top_hour, top_day = (np.full((capacity, 3), -np.inf) for _ in range(4))
    log_close = np.full(capacity, np.nan)
    ratio, ratio_five = (np.full(lead + capacity, np.nan) for _ in range(2))
    large = np.full(capacity, -1, np.int64)
    return Grid(log_close, one, five, hour, day, top_one, top_five, top_hour, top_day, ratio, ratio_five, large)


@njit
def _add_rows(target: Floats, source: Floats, i: int, step: int, count: int) -> None:
    """Set row i of `target` to the sum of `count` rows of `source` that end at i, `step` apart."""
    for k in range(target.shape[1]):
        target[i, k] = 0.0
    for block in range(count):
        j = i - block * step
        if j < 0:
            break
        for k in range(target.shape[1]):
            target[i, k] += source[j, k]


@njit
def _max_rows(target: Floats, source: Floats, i: int, step: int, count: int) -> None:
    """Set row i of `target` to the maxima of `count` rows of `source` that end at i, `step` apart."""
    for k in range(target.shape[1]):
        target[i, k] = -np.inf
    for block in range(count):
        j = i - block * step
        if j < 0:
            break
        for k in range(target.shape[1]):
            target[i, k] = max(target[i, k], source[j, k])


@njit
def _move(grid: Any, i: int) -> float:
    """The absolute return of minute i; NaN where it or the minute before is unknown."""
    if i < 1:
        return math.nan
    return float(abs(grid.log_close[i] - grid.log_close[i - 1]))


@njit
def put_minute(
    grid: Any, lead: int, i: int, open_: float, high: float, low: float, close: float, volume: float
) -> None:
    """Write the minute at place i and its windows; a NaN price makes it unknown. Those before it must have been written."""
    row, top = grid.one[i], grid.top_one[i]
    row[:] = 0.0
    top[:] = -np.inf
    grid.log_close[i] = math.nan
    if close == close:
        grid.log_close[i] = math.log(close)
        before = grid.log_close[i - 1] if i > 0 else math.nan
        move = grid.log_close[i] - (before if before == before else math.log(open_))
        body, width = math.log(close / open_), math.log(high / low)
        log_width = math.log(max(width, _RANGE_FLOOR))
        square = move * move
        row[_KNOWN], row[_RV], row[_DOWN] = 1.0, square, (square if move < 0.0 else 0.0)
        row[_PARKINSON] = _PARKINSON_FACTOR * width * width
        row[_GK] = 0.5 * width * width - _GK_FACTOR * body * body
        row[_VOLUME], row[_ZERO], row[_FOURTH] = volume, (1.0 if move == 0.0 else 0.0), square * square
        row[_LOG_RANGE], row[_LOG_RANGE_2] = log_width, log_width * log_width
        a, b, c = _move(grid, i), _move(grid, i - 1), _move(grid, i - 2)
        if a + b + c == a + b + c:
            median = max(min(a, b), min(max(a, b), c))
            row[_MEDRV] = _MEDRV_FACTOR * median * median
        top[_HIGH], top[_LOW], top[_RANGE] = math.log(high), -math.log(low), width
    _add_rows(grid.five, grid.one, i, 1, 5)
    _add_rows(grid.hour, grid.five, i, 5, 12)
    _add_rows(grid.day, grid.hour, i, 60, 24)
    _max_rows(grid.top_five, grid.top_one, i, 1, 5)
    _max_rows(grid.top_hour, grid.top_five, i, 5, 12)
    _max_rows(grid.top_day, grid.top_hour, i, 60, 24)
    day = grid.day[i]
    grid.large[i] = grid.large[i - 1] if i > 0 else -1
    j = lead + i
    grid.ratio[j] = grid.ratio_five[j] = math.nan
    if day[_KNOWN] * 2.0 >= NEEDED_MIN:
        if row[_PARKINSON] * day[_KNOWN] > _LARGE_RANGE * day[_PARKINSON]:
            grid.large[i] = i
        mean = max(day[_GK] / day[_KNOWN], _FLOOR / 5.0)
        if row[_KNOWN] > 0.0:
            grid.ratio[j] = min(row[_GK] / mean, _MAX_RATIO)
        five = grid.five[i]
        if five[_KNOWN] >= 3.0:
            grid.ratio_five[j] = min(five[_GK] / five[_KNOWN] / mean, _MAX_RATIO)


@njit
def put_minutes(grid: Any, lead: int, first: int, prices: Floats) -> None:
    """Write minutes from place `first` on; `prices` (n, 5) are open, high, low, close and volume."""
    for k in range(len(prices)):
        row = prices[k]
        put_minute(grid, lead, first + k, row[0], row[1], row[2], row[3], row[4])


@njit
def _log_variance(total: float, known: float, minutes: float) -> float:
    if known * 2.0 < minutes:
        return math.nan
    return math.log(max(total * minutes / known, _FLOOR))


@njit
def _log_ratio(above: float, below: float) -> float:
    """Ln of a ratio of sums; NaN unless both are positive."""
    return math.log(above / below) if above > 0.0 and below > 0.0 else math.nan


@njit
def _profile(values: Floats, target: int, minute: int, weights: Floats) -> float:
    """Weighted mean of `values` at the New York time of minute `minute`, whose place is `target`, on the days before."""
    behind = new_york_behind_s(minute * 60) // 60
    total, weight = 0.0, 0.0
    for day in range(1, len(weights) + 1):
        j = target - 1440 * day
        j += new_york_behind_s((minute - 1440 * day) * 60) // 60 - behind
        if j < 0:
            break
        if values[j] == values[j]:
            total += weights[day - 1] * values[j]
            weight += weights[day - 1]
    return math.log(max(total / weight, 1e-3)) if weight > 0.0 else math.nan


@njit
def _put_clock(out: Floats, p: int, minute: int) -> int:
    of_day, behind = minute % 1440, new_york_behind_s(minute * 60) // 60
    local = (minute - behind) % 1440
    for k in range(1, UTC_HARMONICS + 1):
        angle = 2.0 * math.pi * k * of_day / 1440.0
        out[p], out[p + 1] = math.sin(angle), math.cos(angle)
        p += 2
    for k in range(1, NEW_YORK_HARMONICS + 1):
        angle = 2.0 * math.pi * k * local / 1440.0
        out[p], out[p + 1] = math.sin(angle), math.cos(angle)
        p += 2
    for day in range(7):
        out[p + day] = 1.0 if (minute // 1440 + 3) % 7 == day else 0.0
    p += 7
    slot, late = (minute % 60) // 5, (minute % 5) / 5.0
    for k in range(SLOTS):
        out[p + k] = 0.0
    out[p + slot] = 1.0 - late
    out[p + (slot + 1) % SLOTS] += late
    return p + SLOTS


@njit
def _put_releases(out: Floats, p: int, minute: int, releases: Longs, kinds: Longs) -> int:
    for k in range(9):
        out[p + k] = 0.0
    place = np.searchsorted(releases, minute)
    for at in range(place, len(releases)):
        ahead = releases[at] - minute
        if ahead > 480:
            break
        if ahead < 5:
            out[p + kinds[at]] = max(out[p + kinds[at]], (5.0 - ahead) / 5.0)
        else:
            for k in range(2):
                out[p + 3 + k] = max(out[p + 3 + k], 0.5 ** ((ahead - 5) / SOON_HALF_LIVES_MIN[k]))
    for at in range(place - 1, -1, -1):
        since = minute - releases[at]
        if since > 480:
            break
        group = 0 if kinds[at] == 0 else 2
        for k in range(2):
            out[p + 5 + group + k] = max(out[p + 5 + group + k], 0.5 ** (since / SINCE_HALF_LIVES_MIN[k]))
    return p + 9


@njit
def _sum_windows(grid: Any, i: int, sums: Floats) -> None:
    """Sums over the minute at place i and over each of `WINDOWS_MIN` that end with it, (1 + windows, sums)."""
    sums[:] = 0.0
    sums[0] = grid.one[i]
    for window, (source, step, count) in enumerate(
        ((grid.five, 5, 1), (grid.five, 5, 3), (grid.five, 5, 6), (grid.hour, 60, 1), (grid.hour, 60, 4),
         (grid.day, 1440, 1), (grid.day, 1440, 3), (grid.day, 1440, 7))
    ):  # fmt: skip
        for block in range(count):
            j = i - block * step
            if j >= 0:
                for k in range(_SUMS):
                    sums[1 + window, k] += source[j, k]


@njit
def put_columns(grid: Any, lead: int, i: int, minute: int, releases: Longs, kinds: Longs, out: Floats) -> None:
    """Write the columns at the close of the minute at place i into `out`; `minute` is the time of the close.

    All are NaN while less than half of the last day is known.
    """
    if grid.day[i, _KNOWN] * 2.0 < NEEDED_MIN:
        out[:] = math.nan
        return
    sums = np.empty((1 + len(_WINDOWS), _SUMS))
    _sum_windows(grid, i, sums)
    w1, w5, w15, w30, w60, w240, w1440, w10080 = (
        sums[0], sums[1], sums[2], sums[3], sums[4], sums[5], sums[6], sums[8]
    )  # fmt: skip
    p = 0
    for window in range(len(_WINDOWS)):
        out[p] = _log_variance(sums[1 + window, _GK], sums[1 + window, _KNOWN], _WINDOWS[window])
        p += 1
    for lag in range(PARKINSON_LAGS):
        j = i - lag
        out[p] = _log_variance(grid.one[j, _PARKINSON], grid.one[j, _KNOWN], 1.0) if j >= 0 else math.nan
        p += 1
    out[p] = _log_variance(w15[_MEDRV], w15[_KNOWN], 15.0)
    out[p + 1] = _log_variance(w60[_MEDRV], w60[_KNOWN], 60.0)
    p += 2
    for half_life in range(2):
        total, weight = 0.0, 0.0
        for block in range(48):
            j = i - 5 * block
            if j >= 0:
                total += _GK_WEIGHTS[half_life, block] * grid.five[j, _GK]
                weight += _GK_WEIGHTS[half_life, block] * grid.five[j, _KNOWN]
        out[p] = math.log(max(5.0 * total / weight, _FLOOR)) if weight > 0.0 else math.nan
        p += 1
    high, low = -np.inf, -np.inf
    for block in range(4):
        j = max(i - 60 * block, 0)
        high, low = max(high, grid.top_hour[j, _HIGH]), max(low, grid.top_hour[j, _LOW])
    top_hour, top_day = grid.top_hour[i], grid.top_day[i]
    out[p] = 2.0 * math.log(max(top_hour[_HIGH] + top_hour[_LOW], _RANGE_FLOOR))
    out[p + 1] = 2.0 * math.log(max(high + low, _RANGE_FLOOR))
    out[p + 2] = 2.0 * math.log(max(top_day[_HIGH] + top_day[_LOW], _RANGE_FLOOR))
    out[p + 3] = 2.0 * math.log(max(top_hour[_RANGE], _RANGE_FLOOR))
    out[p + 4] = 2.0 * math.log(max(top_day[_RANGE], _RANGE_FLOOR))
    out[p + 5] = _log_variance(w240[_PARKINSON], w240[_KNOWN], 240.0)
    out[p + 6] = _log_variance(w1440[_PARKINSON], w1440[_KNOWN], 1440.0)
    p += 7
    for lag in range(RETURN_LAGS):
        out[p] = grid.log_close[i - lag] - grid.log_close[i - lag - 1] if i > lag else math.nan
        p += 1
    out[p] = grid.log_close[i] - grid.log_close[i - 1440] if i >= 1440 else math.nan
    p += 1
    for each in (w5, w30, w240):
        out[p] = each[_DOWN] / each[_RV] if each[_RV] > 0.0 else 0.5
        p += 1
    for each in (w5, w60, w1440):
        out[p] = math.log(max(each[_RV], _FLOOR) / max(each[_PARKINSON], _FLOOR)) if each[_KNOWN] > 0.0 else math.nan
        p += 1
    for each in (w60, w1440):
        out[p] = _log_ratio(each[_FOURTH] * each[_KNOWN] / 3.0, each[_RV] * each[_RV])
        p += 1
    known = max(w60[_KNOWN], 1.0)
    mean = w60[_LOG_RANGE] / known
    out[p] = math.sqrt(max(w60[_LOG_RANGE_2] / known - mean * mean, 0.0))
    p += 1
    for each in (w5, w60, w1440):
        out[p] = each[_ZERO] / each[_KNOWN] if each[_KNOWN] > 0.0 else math.nan
        p += 1
    since = i - grid.large[i] if grid.large[i] >= 0 else 1440
    out[p] = math.log1p(float(min(since, 1440)))
    p += 1
    day_volume = max(w1440[_VOLUME] / w1440[_KNOWN], 1e-12)
    for each in (w1, w5, w15, w60, w240):
        out[p] = math.log(max(each[_VOLUME] / each[_KNOWN] / day_volume, 1e-3)) if each[_KNOWN] > 0.0 else math.nan
        p += 1
    out[p] = _log_ratio(w1440[_VOLUME] * w10080[_KNOWN], w10080[_VOLUME] * w1440[_KNOWN])
    if w10080[_KNOWN] * 2.0 < 10_080.0:
        out[p] = math.nan
    p += 1
    for lag in range(1, VOLUME_LAGS):
        j = i - lag
        known = grid.one[j, _KNOWN] if j >= 0 else 0.0
        out[p] = math.log(max(grid.one[j, _VOLUME] / day_volume, 1e-3)) if known > 0.0 else math.nan
        p += 1
    for each in (w5, w60):
        out[p] = _log_ratio(each[_GK] * w1440[_VOLUME], each[_VOLUME] * w1440[_GK])
        p += 1
    for half_life in range(2):
        out[p] = _profile(grid.ratio_five, lead + i + 5, minute + 5, _PROFILE_WEIGHTS[half_life])
        p += 1
    out[p] = _profile(grid.ratio, lead + i + 1, minute + 1, _PROFILE_WEIGHTS[1]) - out[p - 1]
    out[p + 1] = -_profile(grid.ratio_five, lead + i, minute, _PROFILE_WEIGHTS[1])
    now = grid.ratio_five[lead + i]
    if now == now:
        out[p + 1] += math.log(max(now, 1e-3))
    p += 2
    p = _put_releases(out, p, minute, releases, kinds)
    _put_clock(out, p, minute)


@njit
def _put_all(grid: Any, places: Longs, first_min: int, releases: Longs, kinds: Longs, out: Any) -> None:
    row = np.empty(out.shape[1])
    for k in range(len(places)):
        put_columns(grid, 0, places[k], first_min + places[k] + 1, releases, kinds, row)
        out[k, :] = row


def prices_by_minute(bars: npt.NDArray[Any], first_min: int, count: int) -> Floats:
    """Open, high, low, close and volume of consecutive minutes from `first_min` on, (count, 5); NaN without a bar."""
    prices = np.full((count, 5), np.nan)
    places = bars["ts_ns"] // NS_PER_MIN - first_min
    for column, name in enumerate(FILE_COLUMNS[1:]):
        prices[places, column] = bars[name]
    return prices


CHUNK_DAYS = 200


def minute_columns(bars: npt.NDArray[Any], chosen: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.float32]:
    """The columns at the close of the chosen bars (dtype `bars.BARS`, sorted; all without `chosen`), (n, columns).

    The history is taken in pieces, each with the `MEMORY_DAYS` before it, so that its length does not matter.
    """
    releases, kinds = release_minutes()
    minutes = bars["ts_ns"] // NS_PER_MIN
    wanted = np.ones(len(bars), np.bool_) if chosen is None else chosen
    out = np.empty((int(wanted.sum()), len(COLUMNS)), np.float32)
    done = 0
    for begin in range(int(minutes[0]), int(minutes[-1]) + 1, CHUNK_DAYS * 1440) if len(bars) else ():
        from_min = max(begin - MEMORY_DAYS * 1440, int(minutes[0]))
        low, middle, high = np.searchsorted(minutes, [from_min, begin, begin + CHUNK_DAYS * 1440])
        part = minutes[low:high] - from_min
        prices = prices_by_minute(bars[low:high], from_min, int(part[-1]) + 1 if len(part) else 0)
        grid = new_grid(len(prices))
        put_minutes(grid, 0, 0, prices)
        places = part[middle - low :][wanted[middle:high]]
        _put_all(grid, places, from_min, releases, kinds, out[done : done + len(places)])
        done += len(places)
    return out
