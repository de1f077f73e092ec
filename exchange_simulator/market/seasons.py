"""How volatility depends on the clock and on scheduled releases: one number for each minute of a day.

The hours, the slots of the hour and the decay after a release were read from minute bars of BTC/USDT from 2022 to June 2025
(docs/concepts/simulated-market.md). The releases are those of `us_releases.toml`, the file that the features read, so a
model can know them. They end with that file.

What does not belong here: anything random (`volatility`).
"""

from __future__ import annotations

import tomllib
from datetime import datetime, timedelta
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np

import btc_core
from btc_core.clock import NS_PER_MIN, from_ns
from exchange_simulator.units import MIN_PER_DAY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

CALENDAR = Path(btc_core.__path__[0]) / "features" / "us_releases.toml"
_NEW_YORK = ZoneInfo("America/New_York")

SEASON, RELEASE, IS_RELEASE = 0, 1, 2
"""Columns of a day: log volatility by the clock, that of a release of usual size, and whether a release is in this minute."""

WEEKDAY_VARIANCE = (0.65, 0.65, 0.73, 0.79, 0.83, 0.76, 0.78, 0.84, 1.18, 1.6, 2.0, 1.85, 1.7, 1.55, 1.5, 1.5, 1.3, 1.25,
                    0.92, 0.95, 1.0, 0.95, 0.85, 0.72)  # fmt: skip
"""Variance by the hour in New York from Monday to Friday, without the bursts of `NEW_YORK_BURSTS` and `UTC_BURSTS`."""
WEEKEND_VARIANCE = (0.28, 0.28, 0.27, 0.29, 0.31, 0.31, 0.31, 0.33, 0.39, 0.47, 0.52, 0.54, 0.54, 0.54, 0.54, 0.53, 0.6,
                    0.7, 0.76, 0.65, 0.52, 0.44, 0.35, 0.3)  # fmt: skip
WEEKEND_FROM_MIN, WEEKEND_UNTIL_MIN = (4 * 24 + 20) * 60, (6 * 24 + 18) * 60
"""The weekend in minutes of the week in New York: from Friday 20:00 to Sunday 18:00, when futures open."""
SLOT_VARIANCE = (1.14, 1.05, 0.93, 1.06, 0.98, 0.88, 1.2, 1.03, 0.96, 1.04, 0.92, 0.83)
"""Variance by the five-minute slot of the hour: programs trade at the begin of the hour and its quarters."""
SLOT_SHAPE = (1.1, 1.06, 0.99, 0.95, 0.88)
"""Variance by the minute of such a slot."""
NEW_YORK_BURSTS = ((8 * 60 + 30, 0.25, 20.0), (9 * 60 + 30, 0.45, 30.0), (10 * 60, 0.25, 15.0), (14 * 60, 0.2, 20.0))
"""Minute of the day from Monday to Friday, rise of log volatility, and minutes in which it decays: data at 8:30 and 10:00,
the opening of the stock market at 9:30."""
UTC_BURSTS = ((0, 0.25, 20.0), (8 * 60, 0.12, 15.0), (16 * 60, 0.12, 15.0))
"""Minute of the day, rise and decay: the new day and the funding times of perpetual futures."""
RELEASE_FAST, RELEASE_FAST_MIN = 0.6, 5.0
RELEASE_SLOW, RELEASE_SLOW_MIN = 0.65, 110.0
RELEASE_BEFORE, RELEASE_BEFORE_MIN = 0.45, 8.0
"""Rise of log volatility at a release, which decays in two parts, and the smaller rise before it."""
RELEASE_REACH_MIN = 360
"""A release has no effect after so many minutes."""


def _interpolated(by_hour: tuple[float, ...]) -> Floats:
    """The logs of hourly values for each minute of a day. A value is that of the middle of its hour; midnight is no edge."""
    hours = np.arange(-1, 25)
    logs = np.log(np.take(by_hour, hours, mode="wrap"))
    return np.asarray(np.interp(np.arange(MIN_PER_DAY), hours * 60.0 + 30.0, logs))


def _decays(at_min: Floats, bursts: tuple[tuple[int, float, float], ...]) -> Floats:
    """The rise of log volatility by bursts that happen every day, for minutes of the day."""
    total = np.zeros(len(at_min))
    for begin, rise, decay_min in bursts:
        total += rise * np.exp(-((at_min - begin) % MIN_PER_DAY) / decay_min)
    return total


@lru_cache(32)
def _season(weekday: int, first_behind_min: int, last_behind_min: int, change_min: int) -> Floats:
    """Log volatility by the clock for each minute of a UTC day whose New York time is that far behind."""
    utc = np.arange(MIN_PER_DAY)
    behind = np.where(utc < change_min, first_behind_min, last_behind_min)
    of_week = (weekday * MIN_PER_DAY + utc - behind) % (7 * MIN_PER_DAY)
    local = of_week % MIN_PER_DAY
    weekend_share = np.interp(
        of_week,
        [WEEKEND_FROM_MIN - 60, WEEKEND_FROM_MIN + 60, WEEKEND_UNTIL_MIN - 60, WEEKEND_UNTIL_MIN + 60],
        [0.0, 1.0, 1.0, 0.0],
    )
    work, rest = _interpolated(WEEKDAY_VARIANCE)[local], _interpolated(WEEKEND_VARIANCE)[local]
    variance = work + weekend_share * (rest - work)
    variance += np.log(np.take(SLOT_VARIANCE, utc % 60 // 5) * np.take(SLOT_SHAPE, utc % 5))
    bursts = (1.0 - weekend_share) * _decays(local.astype(np.float64), NEW_YORK_BURSTS)
    return np.asarray(0.5 * variance + bursts + _decays(utc.astype(np.float64), UTC_BURSTS))


@cache
def _release_minutes(file: Path = CALENDAR) -> tuple[int, ...]:
    """All releases of the calendar as minutes since 1970, ascending."""
    minutes = set[int]()
    for calendar in tomllib.loads(file.read_text()).values():
        hour, minute = map(int, calendar["time"].split(":"))
        for day in calendar["dates"]:
            moment = datetime(day.year, day.month, day.day, tzinfo=_NEW_YORK) + timedelta(hours=hour, minutes=minute)
            minutes.add(int(moment.timestamp()) // 60)
    return tuple(sorted(minutes))


@cache
def _releases_by_day() -> dict[int, tuple[int, ...]]:
    """The releases that have an effect on a day (days since 1970)."""
    days: dict[int, list[int]] = {}
    for minute in _release_minutes():
        for day in {minute // MIN_PER_DAY, (minute + RELEASE_REACH_MIN) // MIN_PER_DAY}:
            days.setdefault(day, []).append(minute)
    return {day: tuple(minutes) for day, minutes in days.items()}


def _behind_min(at_min: int) -> int:
    """Minutes by which New York's clock is behind UTC at this minute since 1970."""
    offset = from_ns(at_min * NS_PER_MIN).astimezone(_NEW_YORK).utcoffset()
    return -int((offset or timedelta()).total_seconds()) // 60


def day_calendar(day: int) -> Floats:
    """The columns of a day since 1970, (1440, 3). It depends on the calendar alone, never on a seed."""
    first_min = day * MIN_PER_DAY
    first, last = _behind_min(first_min), _behind_min(first_min + MIN_PER_DAY - 1)
    change = next(
        (hour * 60 for hour in range(24) if first != last and _behind_min(first_min + hour * 60) == last), MIN_PER_DAY
    )
    columns = np.zeros((MIN_PER_DAY, 3))
    columns[:, SEASON] = _season((day + 3) % 7, first, last, change)
    for release in _releases_by_day().get(day, ()):
        since = np.arange(first_min, first_min + MIN_PER_DAY) - release
        after = RELEASE_FAST * np.exp(-since / RELEASE_FAST_MIN) + RELEASE_SLOW * np.exp(-since / RELEASE_SLOW_MIN)
        before = RELEASE_BEFORE * np.exp(np.minimum(since, 0) / RELEASE_BEFORE_MIN)
        effect = np.where(since < 0, before, np.where(since < RELEASE_REACH_MIN, after, 0.0))
        columns[:, RELEASE] = np.maximum(columns[:, RELEASE], effect)
        columns[since == 0, IS_RELEASE] = 1.0
    return columns
