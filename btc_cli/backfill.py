"""Working off days of assets: by the Dagster daemon where one runs, else in processes of its own.

What does not belong here: what an asset does with a day (`btc_assets`).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import msgspec

from btc_core.clock import now_ns
from btc_core.days.rows import day_of, days_between
from btc_core.errors import InvalidInput, ServiceError
from btc_core.stores.dagster import backfill_status, daemon_runs, launch_backfill
from stack.layout import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from stack.layout import Layout

SEALED = ("sealed_bronze", "sealed_silver", "gold_1min_sealed", "gold_5min_sealed", "sealed_bars", "day_backup")
"""What sealing a day means, in its order; the job `seal_day` has the same."""
FETCHED, PROVEN = ("bronze_history",), SEALED[:1]
KNOWN = (*FETCHED, *SEALED)
"""Every asset with days, each before what is made from it."""
POLL_S = 1.0


class Plan(msgspec.Struct, frozen=True):
    """What a backfill will start."""

    assets: tuple[str, ...]
    days: tuple[str, ...]
    by_daemon: bool
    first_day_now: str
    """Where Dagster's days begin before this is carried out."""
    processes: int = 1
    """Of its own, without the daemon."""

    @property
    def runs(self) -> int:
        """The daemon makes one run of all days; a process of its own makes one a day, so that it can go on after each."""
        return len(self.groups) * (1 if self.by_daemon else len(self.days))

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Assets that are made one group after the other where days are made at the same time.

        A day's replay begins in the day before, so all bronze comes first.
        """
        if self.processes == 1:
            return (self.assets,)
        found = (tuple(name for name in self.assets if name in group) for group in (FETCHED, PROVEN, SEALED[1:]))
        return tuple(group for group in found if group)

    def words(self) -> str:
        """For a person."""
        own = f"in {self.processes} processes" if self.processes > 1 else "in one process, no daemon is up"
        how = "through the daemon" if self.by_daemon else own
        older = f"; Dagster's days begin at {self.first_day_now} and then at {self.days[0]}"
        return (
            f"{len(self.days)} days, {self.days[0]} to {self.days[-1]}, {how}: {self.runs} run{'s' * (self.runs > 1)} "
            f"of {', '.join(self.assets)}; {len(self.days) * len(self.assets)} partitions, no further children"
            f"{older if self.days[0] < self.first_day_now else ''}"
        )


def plan(layout: Layout, first: str, last: str, assets: tuple[str, ...], processes: int = 1) -> Plan:
    """Days and assets in their order; raises `InvalidInput` naming what cannot be.

    With more `processes` than one the daemon has no part in it: its runs of days come one after another.
    """
    settings = layout.settings()
    unknown = [name for name in assets if name not in KNOWN]
    if unknown:
        msg = f"--assets: there is no asset {', '.join(unknown)} with days; there are {', '.join(KNOWN)}"
        raise InvalidInput(msg)
    days = days_between(first, last)
    if days[-1] >= day_of(now_ns()):
        msg = f"--to: {days[-1]} is not over; the newest complete day is before {day_of(now_ns())}"
        raise InvalidInput(msg)
    chosen = tuple(name for name in KNOWN if name in (assets or SEALED))
    by_daemon = processes == 1 and daemon_runs(settings)
    return Plan(chosen, tuple(days), by_daemon, settings.seal.first_day, min(processes, len(days)))


def carry_out(layout: Layout, chosen: Plan, advance: Callable[[int], None]) -> None:
    """Do what the plan says; `advance(partitions done since the last call)`. Raises `ServiceError` when it fails."""
    for assets in chosen.groups:
        if chosen.by_daemon:
            _by_daemon(layout, assets, chosen.days, advance)
        else:
            # REST takes one request a second, whoever asks.
            processes = 1 if assets == FETCHED else chosen.processes
            shares = [chosen.days[start::processes] for start in range(processes)]
            _in_processes(layout, assets, shares, advance)


def _by_daemon(layout: Layout, assets: tuple[str, ...], days: tuple[str, ...], advance: Callable[[int], None]) -> None:
    settings = layout.settings()
    backfill_id = launch_backfill(settings, assets, days)
    url = f"{settings.dagster.url}/runs/b/{backfill_id}"
    seen = 0
    while True:
        now = backfill_status(settings, backfill_id)
        advance(now.done + now.failed - seen)
        seen = now.done + now.failed
        if now.status in ("COMPLETED_SUCCESS", "COMPLETED"):
            return
        if now.status not in ("REQUESTED", "CANCELING", "FAILING", "COMPLETING"):
            msg = f"the backfill ended as {now.status}, {now.failed} partitions failed; {url} says why"
            raise ServiceError(msg)
        time.sleep(POLL_S)


def _in_processes(
    layout: Layout, assets: tuple[str, ...], shares: list[tuple[str, ...]], advance: Callable[[int], None]
) -> None:
    """One process a share of the days; when one stops, the others finish theirs."""
    env = {**os.environ, **layout.environment()}
    command = [sys.executable, "-W", "ignore", "-m", "btc_assets"]
    log = layout.log("backfill")
    layout.make_dirs()
    told, teller = os.pipe()  # lines of several processes in one: each is shorter than what is written whole
    with ExitStack() as opened:
        errors = opened.enter_context(log.open("a"))
        running = [
            opened.enter_context(
                subprocess.Popen(
                    [*command, *days, "--assets", *assets], cwd=ROOT, env=env, stdout=teller, stderr=errors
                )
            )
            for days in shares
        ]
        os.close(teller)
        with os.fdopen(told) as lines:
            for line in lines:
                if line.startswith("done "):
                    advance(len(assets))
    if any(process.returncode for process in running):
        last = log.read_text().splitlines()[-1:]
        msg = f"the backfill stopped: {' '.join(last)}; {log} has the rest, the same command goes on"
        raise ServiceError(msg)
