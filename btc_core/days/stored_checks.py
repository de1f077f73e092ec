"""Checks of what is stored: views, archives, backups and calendars, each in words with what to do about it.

`btc doctor` and `/v1/doctor` show them. What does not belong here: whether the servers answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from btc_core.clock import now_ns
from btc_core.days.archive_proof import days_without_archive
from btc_core.errors import ServiceError
from btc_core.features.releases import CALENDAR
from btc_core.stores.questdb import QuestDB
from btc_core.stores.s3 import ObjectStore
from btc_core.tables.schema import invalid_views

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import date

    from btc_core.features.releases import ReleaseCalendar
    from btc_core.settings import Settings


def view_problem(settings: Settings) -> str:
    """Which views QuestDB no longer refreshes; raises `ServiceError`."""
    with QuestDB(settings.questdb) as db:
        invalid = "; ".join(f"{name} is no longer refreshed ({why})" for name, why in invalid_views(db).items())
    return invalid and f"{invalid}: `btc up` recomputes it"


def archive_problem(settings: Settings) -> str:
    """Which days the log will lose although they have no archive."""
    try:
        with QuestDB(settings.questdb) as db, ObjectStore(settings.store) as store:
            days = days_without_archive(settings, db, store, now_ns())
    except ServiceError as error:
        return f"they could not be checked: {error}"
    return (
        f"{', '.join(days)} {'has' if len(days) == 1 else 'have'} none, and the log keeps a day for "
        f"{settings.kafka.retention_hours} hours: run `btc backfill --from {days[0]} --to {days[-1]} --assets day_archive`"
        if days
        else ""
    )


def backup_problem(settings: Settings, problem: Callable[[ObjectStore, int], str]) -> str:
    """What `problem` says of the backups on the object store."""
    try:
        with ObjectStore(settings.store) as store:
            return problem(store, now_ns())
    except ServiceError as error:
        return f"it could not be checked: {error}"


def calendar_problem(calendars: Iterable[ReleaseCalendar], today: date) -> str:
    """Which calendars of economic releases have ended, and what follows; empty if none has."""
    ended = "; ".join(f"{each.name} ended on {each.until}" for each in calendars if each.has_ended(today))
    return ended and (
        f"{ended}: models do not see releases after that day. A newer version of the package has more dates, or add those "
        f"of the official schedule to {CALENDAR}"
    )
