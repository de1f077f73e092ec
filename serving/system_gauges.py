"""The metrics about seals, backups, drills, demotions and Dagster's daemon, which the API reads from their stores every few minutes.

What does not belong here: when a figure is bad (`alert_rules`), and the days that the page for operators lists (`operations`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from btc_core import offsite, system_backup
from btc_core.clock import NS_PER_DAY, NS_PER_S
from btc_core.days import lake
from btc_core.metrics import (
    BACKUP_AT,
    COPY_AT,
    DAEMON_UP,
    DAYS_LACKING,
    DEMOTED_AT,
    DRILL_AT,
    DRILL_FAILED,
    SEALED_UNTIL,
)
from btc_core.registry.promotion import demoted_at_s
from btc_core.stores import origin
from btc_core.stores.dagster import daemon_runs
from btc_core.utc_day import day_ns, day_of
from serving.metrics import EXCLUSIVE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from btc_core.settings import Settings
    from btc_core.stores.s3 import ObjectStore
    from serving.deps import Deps
    from serving.operation_answers import BackupName, DayState

DUE_NS = NS_PER_DAY // 2
"""A day must be sealed and copied within twelve hours of its end: its gaps are waited for six hours, and a failed run is repeated."""
DAEMON_TIMEOUT_S = 5.0
SEALS = "gold_1min_sealed"


def update_days(days: Iterable[DayState], newest_sealed_ns: int | None, now_ns: int) -> None:
    """Set how many of the past days lack a seal or a copy, and until when days are sealed.

    `newest_sealed_ns` is the newest sealed minute of all, None if no day was ever sealed.
    """
    due = [each for each in days if now_ns - (day_ns(each.day) + NS_PER_DAY) > DUE_NS]
    unsealed = [each for each in due if each.minutes and not each.sealed_minutes]
    uncopied = [each for each in due if each.sealed_minutes and each.copied is False]
    DAYS_LACKING.labels("seal").set(len(unsealed))
    DAYS_LACKING.labels("copy").set(len(uncopied))
    if newest_sealed_ns is not None:
        SEALED_UNTIL.labels(SEALS).set((day_ns(day_of(newest_sealed_ns)) + NS_PER_DAY) / NS_PER_S)


def update_backups(settings: Settings, store: ObjectStore) -> frozenset[BackupName]:
    """Set when the newest backup and the newest copy at a second place were made, and copies were last restored as a test.

    Returns which of these were ever made. The age of the others counts from the first use of the store. Raises `StoreError`.
    """
    backup, drill = system_backup.newest(store), lake.last_drill(store)
    copy = offsite.last_copy(settings, store) if settings.backup.copy_to else None
    found: dict[BackupName, int | None] = {
        "databases": None if backup is None else backup.made_at_ns,
        "second_copy": None if copy is None else copy.made_at_ns,
        "restore_drill": None if drill is None else drill.at_ns,
    }
    first_ns = store.modified_ns(origin.OBJECT_KEY) if None in found.values() else None
    gauges = {"databases": BACKUP_AT.labels("system"), "restore_drill": DRILL_AT.labels("days")}
    if settings.backup.copy_to:
        gauges["second_copy"] = COPY_AT.labels("second")
    for name, at_ns in found.items():
        since_ns = first_ns if at_ns is None else at_ns
        if name in gauges and since_ns is not None:
            gauges[name].set(since_ns / NS_PER_S)
    DRILL_FAILED.labels("days").set(0 if drill is None else drill.failed)
    return frozenset(name for name, at_ns in found.items() if at_ns is not None)


def update_daemon(settings: Settings, *, may_be_starting: bool) -> bool:
    """Set whether Dagster's daemon works, and return it; one that `may_be_starting` is not said to be away."""
    works = daemon_runs(settings, DAEMON_TIMEOUT_S)
    if works or not may_be_starting:
        DAEMON_UP.labels("dagster").set(works)
    return works


def update_demotions(deps: Deps) -> None:
    """Set when each serving model took the place of one that was demoted; raises `StoreError`."""
    found = {
        # A baseline that this process fitted itself is in no registry, and its version is no number.
        (key.symbol, model.manifest.name): demoted_at_s(deps.settings, key, model.version)
        for key, model in deps.models.current.models.items()
        if model.version.isdigit()
    }
    with EXCLUSIVE:
        DEMOTED_AT.clear()
        for labels, at_s in found.items():
            if at_s is not None:
                DEMOTED_AT.labels(*labels).set(at_s)
