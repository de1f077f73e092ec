"""The bodies of the answers about what is usual in a market and what is ahead of it.

What does not belong here: the other bodies (`answers`).
"""

from __future__ import annotations

import msgspec

from serving.utc_time import UtcTime


class UsualVolatility(msgspec.Struct, frozen=True):
    """The realized volatility over the longest horizon that past days had in one hour of the day."""

    symbol: str
    """Market, such as BTC/USD."""
    hour_utc: int
    """The hour of the day, 0 to 23."""
    days: int
    """Number of past days that have bars of this hour."""
    low_bps: float | None
    """A tenth of the spans had less."""
    median_bps: float | None
    """Half of the spans had less."""
    high_bps: float | None
    """A tenth of the spans had more."""
    computed_at: UtcTime
    """When these values were computed."""
    reason: str | None
    """Why there are no values; null if there are."""


class Release(msgspec.Struct, frozen=True):
    """One release of US economic data."""

    kind: str
    """`fomc`, `cpi` or `employment`."""
    name: str
    """Name of the release, for people."""
    at: UtcTime
    """When it is published."""


class ReleaseCalendarState(msgspec.Struct, frozen=True):
    """How far a calendar reaches."""

    kind: str
    """`fomc`, `cpi` or `employment`."""
    name: str
    """Name of the release, for people."""
    until: str
    """The last day for which the calendar is complete. A model takes later times for times without releases."""
    ended: bool
    """Whether that day is over."""


class Releases(msgspec.Struct, frozen=True):
    """The releases of a time in order, and how far the calendars reach."""

    window_from: UtcTime = msgspec.field(name="from")
    """Begin of the time."""
    window_to: UtcTime = msgspec.field(name="to")
    """End of the time, which is not part of it."""
    releases: tuple[Release, ...]
    """The releases in this time."""
    calendars: tuple[ReleaseCalendarState, ...]
    """Each calendar that the models know."""
