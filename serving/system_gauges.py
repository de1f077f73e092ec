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
from btc_core.utc_day import day_ns
from serving.metrics import EXCLUSIVE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from btc_core.settings import Settings
    from btc_core.stores.s3 import ObjectStore
    from serving.deps import Deps
    from serving.operation_answers import DayState

DUE_NS = NS_PER_DAY // 2
"""A day must be sealed and copied within twelve hours of its end: its gaps are waited for six hours, and a failed run is repeated."""
DAEMON_TIMEOUT_S = 5.0
SEALS = "gold_1min_sealed"


def update_days(days: Iterable[DayState], now_ns: int) -> None:
    """Set how many of the past days lack a seal or a copy, and until when days are sealed."""
    due = [each for each in days if now_ns - (day_ns(each.day) + NS_PER_DAY) > DUE_NS]
    unsealed = [each for each in due if each.minutes and not each.sealed_minutes]
    uncopied = [each for each in due if each.sealed_minutes and each.copied is False]
    DAYS_LACKING.labels("seal").set(len(unsealed))
    DAYS_LACKING.labels("copy").set(len(uncopied))
    sealed = [each.day for each in days if each.sealed_minutes]
    if sealed:
        SEALED_UNTIL.labels(SEALS).set((day_ns(max(sealed)) + NS_PER_DAY) / NS_PER_S)


def update_backups(settings: Settings, store: ObjectStore) -> None:
    """Set when the newest backup and the newest copy at a second place were made, and copies were last restored as a test.

    Raises `StoreError`.
    """
    made_ns = system_backup.last_made_ns(store)
    if made_ns is not None:
        BACKUP_AT.labels("system").set(made_ns / NS_PER_S)
    copied_ns = offsite.last_made_ns(settings, store) if settings.backup.copy_to else None
    if copied_ns is not None:
        COPY_AT.labels("second").set(copied_ns / NS_PER_S)
    drill = lake.last_drill(store)
    drilled_ns = store.modified_ns(origin.OBJECT_KEY) if drill is None else drill.at_ns
    if drilled_ns is not None:
        DRILL_AT.labels("days").set(drilled_ns / NS_PER_S)
    DRILL_FAILED.labels("days").set(0 if drill is None else drill.failed)


def update_daemon(settings: Settings) -> None:
    """Set whether Dagster's daemon works."""
    DAEMON_UP.labels("dagster").set(daemon_runs(settings, DAEMON_TIMEOUT_S))


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
