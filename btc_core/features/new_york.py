"""The local time of New York, compiled with numba.

Data releases and the stock market of the US move this market at the same local time all year.
What does not belong here: any other calendar.
"""

from __future__ import annotations

from btc_core.compiled import njit

_DAY_S = 86_400


@njit
def _days_to_first_march(year: int) -> int:
    """Return the days from the Unix epoch to 1 March of a year. Counted from March, a year ends with its leap day."""
    era = year // 400
    return era * 146_097 + (year - era * 400) * 365 + (year - era * 400) // 4 - (year - era * 400) // 100 - 719_468


@njit
def new_york_behind_s(now_s: int) -> int:
    """Return the seconds by which New York's clock is behind UTC at `now_s`, by the rule in force since 2007.

    Daylight saving time lasts from 07:00 UTC on the second Sunday of March to 06:00 UTC on the first Sunday of November.
    """
    day = now_s // _DAY_S
    year = 1970 + day * 400 // 146_097
    march = _days_to_first_march(year)
    november = march + 245
    begin = march + (3 - march) % 7 + 7  # day 3 after the epoch is a Sunday
    end = november + (3 - november) % 7
    is_daylight_saving = begin * _DAY_S + 7 * 3_600 <= now_s < end * _DAY_S + 6 * 3_600
    return 4 * 3_600 if is_daylight_saving else 5 * 3_600
