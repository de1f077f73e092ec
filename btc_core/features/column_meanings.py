"""What each column of minute bars means, and its unit: one rule for each family of columns.

What does not belong here: computing the columns (`minute_columns`), and the features of the stream (`catalogue`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from btc_core.features.minute_columns import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable

LN = "ln"
"""The unit of natural logs: of variances (ln of ln²), of ratios, and of returns."""
SHARE = "1"
"""The unit of shares and other numbers from 0 to 1."""

_SPANS = {
    1: "minute", 5: "5 minutes", 15: "15 minutes", 30: "30 minutes", 60: "hour", 240: "4 hours", 1_440: "day",
    4_320: "3 days", 10_080: "week",
}  # fmt: skip
_RELEASES = {
    "fomc": "decision of the Federal Reserve", "cpi": "release of US consumer prices",
    "employment": "release of the US employment report",
}  # fmt: skip
_GROUPS = {
    "fomc": "decision of the Federal Reserve",
    "morning": "release of US consumer prices or of the employment report",
}
_WAVES = {"sin": "sine", "cos": "cosine"}
_CLOCKS = {"utc": "in UTC", "new_york": "in New York"}
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


class ColumnMeaning(msgspec.Struct, frozen=True):
    """The unit of a column and its meaning in words."""

    unit: str
    meaning: str


def _last(minutes: str) -> str:
    """A window that ends now, in words."""
    return f"the last {_SPANS[int(minutes)]}"


def _ago(lag: str) -> str:
    """A single minute in words, by how many minutes ended after it."""
    return {"0": "the newest minute", "1": "the minute before the newest one"}.get(lag, f"the minute {lag} minutes ago")


_RULES: tuple[tuple[str, str, Callable[..., str]], ...] = (
    (r"log_gk_(\d+)m", LN, lambda w: f"log of the variance over {_last(w)}, which is estimated from the open, high, low and close of each minute (Garman and Klass 1980)"),
    (r"log_parkinson_lag_(\d+)", LN, lambda k: f"log of the variance of {_ago(k)}, which is estimated from its high and low (Parkinson 1980)"),
    (r"log_medrv_(\d+)m", LN, lambda w: f"log of the variance over {_last(w)} without jumps, which is estimated from medians of three returns (Andersen, Dobrev and Schaumburg 2012)"),
    (r"log_gk_ewma_(\d+)m", LN, lambda h: f"log of the variance of the last 4 hours in which newer minutes count more (half-life {h} min)"),
    (r"log_span_(\d+)m", LN, lambda w: f"log of the squared distance between the highest and the lowest price of {_last(w)}"),
    (r"log_largest_range_(\d+)m", LN, lambda w: f"log of the largest squared distance between high and low of one minute in {_last(w)}"),
    (r"log_parkinson_(\d+)m", LN, lambda w: f"log of the variance over {_last(w)}, which is estimated from the high and low of each minute (Parkinson 1980)"),
    (r"return_lag_(\d+)", LN, lambda k: f"log return of the price in {_ago(k)}"),
    (r"return_1440m", LN, lambda: "log return of the price over the last day"),
    (r"downside_share_(\d+)m", SHARE, lambda w: f"share of the variance over {_last(w)} that comes from minutes in which the price fell"),
    (r"rv_over_parkinson_(\d+)m", LN, lambda w: f"log of the variance over {_last(w)} between the closes of minutes relative to that within minutes"),
    (r"quarticity_(\d+)m", LN, lambda w: f"log of how much a few large moves dominate the variance of {_last(w)}; 0 for normal returns"),
    (r"range_volatility_60m", LN, lambda: "how much the distances between high and low of single minutes differ in the last hour (standard deviation of their logs)"),
    (r"zero_share_(\d+)m", SHARE, lambda w: f"share of the minutes of {_last(w)} in which the price did not change"),
    (r"since_large_range", "ln(1+min)", lambda: "log of one plus the minutes since the last minute with an unusually large distance between high and low, which counts up to a day"),
    (r"volume_1440m", LN, lambda: "log of the volume of the last day relative to that of a day of the last week"),
    (r"volume_(\d+)m", LN, lambda w: f"log of the volume per minute of {_last(w)} relative to that of the last day"),
    (r"volume_lag_(\d+)", LN, lambda k: f"log of the volume of {_ago(k)} relative to that of a minute of the last day"),
    (r"variance_per_volume_(\d+)m", LN, lambda w: f"log of the variance per traded volume of {_last(w)} relative to that of the last day"),
    (r"profile_(\d+)d", LN, lambda d: f"log of the variance that is usual in the next five minutes at this time of day in New York relative to that of the day (half-life {d} days)"),
    (r"profile_first_minute", LN, lambda: "log of the variance that is usual in the next minute at this time of day relative to that of a minute of the next five"),
    (r"profile_surprise", LN, lambda: "log of the variance of the last 5 minutes relative to what is usual at this time of day"),
    (r"release_soon_(\d+)m", SHARE, lambda h: f"how soon the next US economic release comes: 1 if it comes in 5 minutes, and half for each {h} minutes more"),
    (r"release_(\w+)", SHARE, lambda kind: f"share of the next five minutes that follows a {_RELEASES[kind]}"),
    (r"since_(fomc|morning)_(\d+)m", SHARE, lambda group, h: f"how recent the last {_GROUPS[group]} is: 1 at its time, and half after each {h} minutes"),
    (r"(utc|new_york)_(sin|cos)_(\d)", SHARE, lambda zone, wave, k: f"{_WAVES[wave]} of the time of day {_CLOCKS[zone]}, with a period of {24 / int(k):g} h"),
    (r"weekday_(\d)", SHARE, lambda day: f"1 on a {_DAYS[int(day)]} (UTC), otherwise 0"),
    (r"slot_(\d+)", SHARE, lambda slot: f"share of the next five minutes that lies in the minutes {5 * int(slot)} to {5 * int(slot) + 5} of the hour"),
)  # fmt: skip
"""For each family: a pattern of its names, its unit, and the words that the groups of the pattern fill."""


def _meaning_of(name: str) -> ColumnMeaning:
    for pattern, unit, words in _RULES:
        found = re.fullmatch(pattern, name)
        if found is not None:
            return ColumnMeaning(unit, words(*found.groups()))
    msg = f"the column {name} has no meaning: add a rule for it to _RULES of btc_core/features/column_meanings.py"
    raise KeyError(msg)


COLUMN_MEANINGS: dict[str, ColumnMeaning] = {name: _meaning_of(name) for name in COLUMNS}
"""The unit and the meaning of each column, in the order of `COLUMNS`."""
