"""The checks of minute bars that come as files or from a REST API, with the bounds that the stream uses.

What does not belong here: reading files (`days.bar_files`), or the checks of frames (`events`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, NS_PER_S, from_ns, now_ns
from btc_core.errors import InvalidInput
from btc_core.market.bars import BARS, PRICES
from btc_core.market.events import MAX_AHEAD_S, MAX_QTY, max_price

if TYPE_CHECKING:
    import numpy.typing as npt

EARLIEST_NS = 14_245 * NS_PER_DAY
"""2009-01-01. No market of a cryptocurrency is older than Bitcoin."""
EARLIEST = f"{from_ns(EARLIEST_NS):%Y-%m-%d}"
MAX_HIGH_TO_LOW = 1e4
"""The limit of a minute's high over its low. The deepest flash crashes of large exchanges were a factor of about 3,000."""
INTERVALS_MIN = (1_440, 720, 480, 360, 240, 120, 60, 30, 20, 15, 10, 5, 4, 3, 2)
"""Lengths of bars other than one minute, longest first."""
INTERVAL_NAMES = {1_440: "daily", 60: "hourly"}
MANY_BARS = 20
"""From this number of bars on, a few bars off the grid of a longer interval do not hide that interval."""
RUN_BITS = 50
"""Consecutive bars on the grid of a longer interval are taken for such bars once chance would put minute bars there with a
probability of 2 to the minus this, and never less than `MANY_BARS` of them."""
ALIGNED_SHARE = 0.9
"""The share of many bars that lie on one grid when they are longer than a minute. Of minute bars, about half lie on
the grid of two minutes, and fewer on any other."""


def bar_faults(bars: np.ndarray, latest_ns: int, symbol: str | None = None) -> dict[str, np.ndarray]:
    """The mask of the bars (dtype `BARS`) of a market that have each fault, by a description of the fault.

    A bar that opens after `latest_ns` has a fault.
    """
    most = max_price(symbol)
    faults = {
        f"the time is before {EARLIEST}": bars["ts_ns"] < EARLIEST_NS,
        "the time lies in the future, or in a minute that was not over": bars["ts_ns"] > latest_ns,
        "the time is not a whole minute": bars["ts_ns"] % NS_PER_MIN != 0,
    }
    for name in PRICES:
        is_sane = (bars[name] > 0) & (bars[name] <= most)
        faults[f"{name} must be above zero and at most {most:.0e}"] = ~is_sane
    volume, low, high = bars["volume"], bars["low"], bars["high"]
    faults[f"volume must be zero or more and at most {MAX_QTY:.0e}"] = ~((volume >= 0) & (volume <= MAX_QTY))
    is_inside = np.all([(low <= bars[name]) & (bars[name] <= high) for name in ("open", "close")], axis=0)
    faults["open and close must lie between low and high"] = ~is_inside
    faults[f"high is more than {MAX_HIGH_TO_LOW:.0e} times low"] = high > MAX_HIGH_TO_LOW * low
    faults["the number of trades is negative"] = bars["trades"] < -1
    return faults


def have_equal_values(bars: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The mask of the pairs of bars with equal prices and volumes.

    Two volumes count as equal if they differ by the rounding of a sum of quantities with eight decimals.
    """
    prices = [np.isclose(bars[name], others[name], rtol=1e-12, atol=0.0) for name in PRICES]
    volume = np.isclose(bars["volume"], others["volume"], rtol=1e-9, atol=1e-7)
    return np.asarray(np.all(prices, axis=0) & volume)


def repeats(bars: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find bars of the same minute in bars that are sorted by time.

    Returns the mask of the bars that equal their predecessor, and the mask of all bars of minutes with different bars.
    """
    equal, conflicting = np.zeros(len(bars), bool), np.zeros(len(bars), bool)
    if len(bars) > 1:
        is_repeat = bars["ts_ns"][1:] == bars["ts_ns"][:-1]
        is_same = have_equal_values(bars[1:], bars[:-1])
        equal[1:] = is_repeat & is_same
        conflicting = np.isin(bars["ts_ns"], bars["ts_ns"][1:][is_repeat & ~is_same])
    return equal & ~conflicting, conflicting


def interval_min(ts_ns: np.ndarray, named_min: int | None = None) -> int:
    """The length in minutes of the bars that open at these times; `named_min` is the length that the file's name states.

    Thin markets have no bar for most minutes. The length is therefore the longest interval on whose grid the bars lie,
    and not the smallest distance between two bars.
    """
    minutes = np.unique(ts_ns // NS_PER_MIN)
    if len(minutes) < 2:
        return named_min or 1
    are_many = len(minutes) >= MANY_BARS
    if named_min == 1 and not are_many:
        return 1
    share = ALIGNED_SHARE if are_many else 1.0
    for interval in INTERVALS_MIN:
        if np.bincount(minutes % interval).max() >= share * len(minutes):
            return interval
    return 1


def runs_of_longer_bars(ts_ns: np.ndarray) -> dict[int, np.ndarray]:
    """Find longer bars among minute bars: the masks of the bars of each interval in minutes. Times ascend.

    >>> times = np.append(np.arange(60), np.arange(120, 120 + 25 * 5, 5)) * NS_PER_MIN
    >>> {interval: int(mask.sum()) for interval, mask in runs_of_longer_bars(times).items()}
    {5: 25}
    """
    minutes = ts_ns // NS_PER_MIN
    is_free = np.ones(len(minutes), bool)
    found: dict[int, np.ndarray] = {}
    if not len(minutes):
        return found
    for interval in INTERVALS_MIN:
        starts = np.flatnonzero(np.diff(minutes % interval, prepend=-1))
        lengths = np.diff(starts, append=len(minutes))
        fewest = max(MANY_BARS, math.ceil(RUN_BITS / math.log2(interval)))
        is_run = np.add.reduceat(is_free, starts, dtype=np.int64) >= fewest
        is_longer = np.repeat(is_run, lengths) & is_free
        if is_longer.any():
            found[interval] = is_longer
            is_free &= ~is_longer
    return found


def interval_name(interval: int) -> str:
    """Bars of an interval in minutes, in words."""
    return f"{INTERVAL_NAMES.get(interval, f'{interval}-minute')} bars"


def check_interval(ts_ns: np.ndarray, name: str, named_min: int | None = None) -> None:
    """Raise `InvalidInput` unless bars that open at these times are minute bars."""
    interval = interval_min(ts_ns, named_min)
    if interval != 1:
        msg = (
            f"{name} holds {interval_name(interval)}, and minute bars are needed. Exchanges name files of minute bars PAIR_1.csv "
            "or PAIR-1m-DATE.csv"
        )
        raise InvalidInput(msg)


def sorted_bars(bars: np.ndarray, name: str) -> np.ndarray:
    """Check bars, sort them by time, and keep one of several equal bars.

    Raises `InvalidInput` with the name of the source and the first impossible bar. Such a bar would distort the
    features of every window that contains it. An exchange's newest bar may still be open.
    """
    for fault, is_bad in bar_faults(bars, now_ns() + MAX_AHEAD_S * NS_PER_S).items():
        if is_bad.any():
            row = int(is_bad.argmax())
            msg = f"{name}: bar {row + 1} ({describe(bars[row])}): {fault} ({int(is_bad.sum())} such bars in total)"
            raise InvalidInput(msg)
    ordered = bars[np.argsort(bars["ts_ns"], kind="stable")]
    equal, conflicting = repeats(ordered)
    if conflicting.any():
        one, other = ordered[conflicting][:2]
        msg = f"{name} holds different bars of the same minute: {describe(one)}, and {describe(other)}"
        raise InvalidInput(msg)
    return np.asarray(ordered[~equal])


def bars_of_rows(numbers: npt.NDArray[np.float64], name: str) -> np.ndarray:
    """Convert rows `time_s, open, high, low, close, volume, trades` to bars of dtype `BARS`, as `sorted_bars`."""
    for column in (0, 6):
        is_bad = ~np.isfinite(numbers[:, column])
        if is_bad.any():
            msg = f"{name}: row {int(is_bad.argmax()) + 1} has a time or a number of trades that is not finite"
            raise InvalidInput(msg)
    bars = np.zeros(len(numbers), BARS)
    bars["ts_ns"] = numbers[:, 0].astype(np.int64) * NS_PER_S
    for column, field in enumerate((*PRICES, "volume", "trades"), start=1):
        bars[field] = numbers[:, column]
    return sorted_bars(bars, name)


def parse_csv(text: str, name: str) -> np.ndarray:
    """Read bars from CSV lines `time,open,high,low,close,volume,trades` (time in s, no header), as `sorted_bars`."""
    rows: list[list[float]] = []
    for number, line in enumerate(text.split(), start=1):
        try:
            row = [float(field) for field in line.split(",")]
        except ValueError:
            row = []
        if len(row) != 7:
            msg = (
                f"{name}, line {number}: expected the numbers time,open,high,low,close,volume,trades, not {line[:60]!r}"
            )
            raise InvalidInput(msg)
        rows.append(row)
    return bars_of_rows(np.array(rows, np.float64).reshape(len(rows), 7), name)


def describe(bar: np.ndarray) -> str:
    """The values of one bar for a message."""
    values = ", ".join(f"{name} {bar[name]:.10g}" for name in (*PRICES, "volume"))
    return f"{describe_time(int(bar['ts_ns']))}, {values}"


def describe_time(ts_ns: int) -> str:
    """A time for a message; it may be one that no calendar has."""
    try:
        return f"{from_ns(ts_ns):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, OSError, ValueError):
        return f"{ts_ns} ns since 1970"
