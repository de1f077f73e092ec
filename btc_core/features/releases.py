"""The times of US economic releases, from `us_releases.toml`.

What does not belong here: how a forecast uses them (`minute_columns`).
"""

from __future__ import annotations

import tomllib
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import numpy.typing as npt

Longs = npt.NDArray[np.int64]

CALENDAR = Path(__file__).parent / "us_releases.toml"
KINDS = ("fomc", "cpi", "employment")
"""The calendars that the columns read, in this order."""

_NEW_YORK = ZoneInfo("America/New_York")


class ReleaseCalendar(msgspec.Struct, frozen=True):
    """One kind of release: its dates in New York and the period for which they are complete."""

    name: str
    source: str
    time: str
    """Time of day in New York, HH:MM."""
    first: date = msgspec.field(name="from")
    until: date
    dates: tuple[date, ...]

    def has_ended(self, today: date) -> bool:
        """Whether releases of this day are no longer known."""
        return today > self.until

    def minutes(self) -> Longs:
        """The releases as minutes since the epoch, ascending; raises `ValueError` for a date outside the period."""
        outside = [day for day in self.dates if not self.first <= day <= self.until]
        if outside or list(self.dates) != sorted(set(self.dates)):
            msg = (
                f"{self.name}: the dates must ascend and lie between {self.first} and {self.until}; outside: {outside}"
            )
            raise ValueError(msg)
        hour, minute = map(int, self.time.split(":"))
        at = timedelta(hours=hour, minutes=minute)
        moments = [datetime(day.year, day.month, day.day, tzinfo=_NEW_YORK) + at for day in self.dates]
        return np.array([int(moment.timestamp()) // 60 for moment in moments], np.int64)


def load_calendars(file: Path = CALENDAR) -> dict[str, ReleaseCalendar]:
    """All calendars of a file by kind."""
    return msgspec.convert(tomllib.loads(file.read_text()), dict[str, ReleaseCalendar])


def release_minutes() -> tuple[Longs, Longs]:
    """All releases as minutes since the epoch, ascending, and the place of the kind of each in `KINDS`."""
    calendars = load_calendars()
    minutes = np.concatenate([calendars[kind].minutes() for kind in KINDS])
    kinds = np.concatenate([np.full(len(calendars[kind].dates), place) for place, kind in enumerate(KINDS)])
    order = np.argsort(minutes, kind="stable")
    return minutes[order], kinds[order].astype(np.int64)
