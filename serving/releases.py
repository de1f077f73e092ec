"""The body of `GET /v1/releases`: the US economic releases of a time.

What does not belong here: the calendar (`btc_core.features.releases`).
"""

from __future__ import annotations

from datetime import date
from functools import cache

from btc_core.clock import NS_PER_MIN
from btc_core.features.releases import KINDS, ReleaseCalendar, load_calendars
from btc_core.utc_day import day_of
from serving.answers import iso
from serving.market_answers import Release, ReleaseCalendarState, Releases


@cache
def _calendars() -> dict[str, ReleaseCalendar]:
    """The calendars of the package, read once."""
    return load_calendars()


def releases_between(from_ns: int, to_ns: int, now_ns: int) -> Releases:
    """The releases from `from_ns` until before `to_ns`."""
    calendars = _calendars()
    found = sorted(
        (minute * NS_PER_MIN, kind)
        for kind in KINDS
        for minute in calendars[kind].minutes().tolist()
        if from_ns <= minute * NS_PER_MIN < to_ns
    )
    today = date.fromisoformat(day_of(now_ns))
    states = (ReleaseCalendarState(kind, each.name, each.until.isoformat(), each.has_ended(today))
              for kind, each in ((kind, calendars[kind]) for kind in KINDS))  # fmt: skip
    return Releases(
        window_from=iso(from_ns),
        window_to=iso(to_ns),
        releases=tuple(Release(kind, calendars[kind].name, iso(at_ns)) for at_ns, kind in found),
        calendars=tuple(states),
    )
