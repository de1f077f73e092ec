"""The bodies of the answers about what is usual in a market and what is ahead of it.

What does not belong here: the other bodies (`answers`).
"""

from __future__ import annotations

import msgspec


class UsualVolatility(msgspec.Struct, frozen=True):
    """The realized volatility over the longest horizon that past days had in one hour of the day."""

    symbol: str
    hour_utc: int
    """The hour of the day, 0 to 23."""
    days: int
    """Number of past days that have bars of this hour."""
    low_bps: float | None
    """A tenth of the spans had less."""
    median_bps: float | None
    high_bps: float | None
    """A tenth of the spans had more."""
    computed_at: str
    reason: str | None
    """Why there are no values; null if there are."""


class Release(msgspec.Struct, frozen=True):
    """One release of US economic data."""

    kind: str
    name: str
    at: str


class ReleaseCalendarState(msgspec.Struct, frozen=True):
    """How far a calendar reaches."""

    kind: str
    name: str
    until: str
    """The last day for which the calendar is complete. A model takes later times for times without releases."""
    ended: bool
    """Whether that day is over."""


class Releases(msgspec.Struct, frozen=True):
    """The releases of a time in order, and how far the calendars reach."""

    window_from: str = msgspec.field(name="from")
    window_to: str = msgspec.field(name="to")
    releases: tuple[Release, ...]
    calendars: tuple[ReleaseCalendarState, ...]
