"""What `/v1/doctor` finds: whether the servers answer, whose data they hold, and what is wrong with what is stored.

These are the checks of `btc doctor` that write nothing and need no access to the machine. A look asks every server, so its result
is kept for a while, and only one request looks at a time. What does not belong here: the processes and the alerts
(`operations`).
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import TYPE_CHECKING

from pydantic import BaseModel, SecretStr

from btc_core import offsite, system_backup
from btc_core.clock import from_ns
from btc_core.days.stored_checks import archive_problem, backup_problem, calendar_problem, view_problem
from btc_core.errors import BtcError, NotReady
from btc_core.features.releases import load_calendars
from btc_core.names import TOPICS
from btc_core.stores import origin
from btc_core.stores.kafka_topics import missing_topics
from serving.answers import iso
from serving.operation_answers import Diagnosis, Finding
from serving.server_watch import ServerWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from btc_core.clock import Clock
    from btc_core.settings import Settings

    Checks = Mapping[str, Callable[[], str]]
    """Each returns what is wrong, in words, and an empty string if nothing is."""

KEPT_S = 30.0
"""How long a result is given again without asking the servers."""
TIMEOUT_S = 5.0
MARKED = {"kafka": origin.LOG, "questdb": origin.TABLES, "store": origin.OBJECTS}
"""The servers whose data is marked with its origin. A check of Redis would write the mark."""
MIN_SECRET = 4
"""Shorter settings are no secrets but would be found in many words."""


class Doctor:
    """The newest diagnosis. `checks` are by subject; the default are those of the servers of the settings."""

    def __init__(self, settings: Settings, clock: Clock, checks: Checks | None = None) -> None:
        self._settings = settings
        self._clock = clock
        self._given = checks
        self._looking = threading.Lock()
        self._newest: tuple[float, Diagnosis] | None = None

    def __call__(self) -> Diagnosis:
        """A diagnosis that is at most `KEPT_S` old, or an older one while another request looks; raises `NotReady` without any."""
        newest = self._newest
        if newest is not None and self._clock.monotonic_s() - newest[0] < KEPT_S:
            return newest[1]
        if not self._looking.acquire(blocking=False):
            if newest is None:
                raise NotReady("the servers are being asked for the first time; ask again in a few seconds")
            return newest[1]
        try:
            found = self._look()
            self._newest = self._clock.monotonic_s(), found
        finally:
            self._looking.release()
        return found

    @cached_property
    def _checks(self) -> Checks:
        if self._given is not None:
            return self._given
        settings = self._settings
        watch = ServerWatch(settings, self._clock)
        checks: dict[str, Callable[[], str]] = {name: partial(watch.problem_of, name) for name in watch.names}
        checks["topics of kafka"] = partial(_topic_problem, settings)
        checks |= {f"data of {name}": partial(_mark_problem, settings, mark) for name, mark in MARKED.items()}
        checks["views"] = partial(view_problem, settings)
        checks["archives of the log"] = partial(archive_problem, settings)
        checks["backup of the databases"] = partial(backup_problem, settings, system_backup.problem)
        if settings.backup.copy_to:
            checks["copy at a second place"] = partial(backup_problem, settings, partial(offsite.problem, settings))
        checks["release calendar"] = self._calendar_problem
        return checks

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(len(self._checks), "doctor")

    def _calendar_problem(self) -> str:
        return calendar_problem(load_calendars().values(), from_ns(self._clock.now_ns()).date())

    def _look(self) -> Diagnosis:
        began_s, secrets = self._clock.monotonic_s(), secrets_of(self._settings)
        problems = self._pool.map(_words_of, self._checks.values())
        findings = tuple(
            Finding(subject, without_secrets(problem, secrets) or None)
            for subject, problem in zip(self._checks, problems, strict=True)
        )
        return Diagnosis(
            healthy=not any(each.problem for each in findings),
            findings=findings,
            checked_at=iso(self._clock.now_ns()),
            took_s=round(self._clock.monotonic_s() - began_s, 3),
            kept_s=KEPT_S,
            simulated=self._settings.simulated,
        )


def secrets_of(settings: BaseModel) -> set[str]:
    """The values of all secret settings."""
    found: set[str] = set()
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            found.add(value.get_secret_value())
        elif isinstance(value, BaseModel):
            found |= secrets_of(value)
    return {secret for secret in found if len(secret) >= MIN_SECRET}


def without_secrets(text: str, secrets: set[str]) -> str:
    """A text in which every secret is replaced: the message of a client may repeat what it was given."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _topic_problem(settings: Settings) -> str:
    missing = missing_topics(settings.kafka, TOPICS, TIMEOUT_S)
    return (
        f"the topics {', '.join(missing)} do not exist, or the user may not see them; `btc up` creates them"
        if missing
        else ""
    )


def _mark_problem(settings: Settings, mark: str) -> str:
    return "; ".join(origin.check(settings, mark))


def _words_of(check: Callable[[], str]) -> str:
    try:
        return check()
    except BtcError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - each client has a tree of errors of its own, and a finding must say what it was
        return f"{type(error).__name__}: {error}"
