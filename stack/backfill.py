"""Working off days of assets: by the Dagster daemon where one runs, else in one process of its own.

What does not belong here: what an asset does with a day (`btc_assets`).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import msgspec

from btc_core.clock import now_ns
from btc_core.dagster_client import backfill_status, daemon_runs, launch_backfill
from btc_core.days import day_of, days_between
from btc_core.errors import InvalidInput, ServiceError
from stack.layout import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from stack.layout import Layout

SEALED = ("sealed_bronze", "sealed_silver", "gold_1min_sealed", "gold_5min_sealed", "sealed_bars", "day_backup")
"""What sealing a day means, in its order; the job `seal_day` has the same."""
KNOWN = ("bronze_history", *SEALED)
"""Every asset with days, each before what is made from it."""
POLL_S = 1.0


class Plan(msgspec.Struct, frozen=True):
    """What a backfill will start."""

    assets: tuple[str, ...]
    days: tuple[str, ...]
    by_daemon: bool
    first_day_now: str
    """Where Dagster's days begin before this is carried out."""

    @property
    def runs(self) -> int:
        """The daemon makes one run of all days; a process of its own one a day, so that it can go on after each."""
        return 1 if self.by_daemon else len(self.days)

    def words(self) -> str:
        """For a person."""
        how = "through the daemon" if self.by_daemon else "in one process, no daemon is up"
        older = f"; Dagster's days begin at {self.first_day_now} and then at {self.days[0]}"
        return (
            f"{len(self.days)} days, {self.days[0]} to {self.days[-1]}, {how}: {self.runs} run{'s' * (self.runs > 1)} "
            f"of {', '.join(self.assets)}; {len(self.days) * len(self.assets)} partitions, no further children"
            f"{older if self.days[0] < self.first_day_now else ''}"
        )


def plan(layout: Layout, first: str, last: str, assets: tuple[str, ...]) -> Plan:
    """Days and assets in their order; raises `InvalidInput` naming what cannot be."""
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
    return Plan(chosen, tuple(days), daemon_runs(settings), settings.seal.first_day)


def carry_out(layout: Layout, chosen: Plan, advance: Callable[[int], None]) -> None:
    """Do what the plan says; `advance(partitions done since the last call)`. Raises `ServiceError` when it fails."""
    if chosen.by_daemon:
        _by_daemon(layout, chosen, advance)
    else:
        _in_one_process(layout, chosen, advance)


def _by_daemon(layout: Layout, chosen: Plan, advance: Callable[[int], None]) -> None:
    settings = layout.settings()
    backfill_id = launch_backfill(settings, chosen.assets, chosen.days)
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


def _in_one_process(layout: Layout, chosen: Plan, advance: Callable[[int], None]) -> None:
    env = {**os.environ, **layout.environment()}
    command = [sys.executable, "-W", "ignore", "-m", "btc_assets", *chosen.days, "--assets", *chosen.assets]
    log = layout.log("backfill")
    layout.make_dirs()
    with (
        log.open("a") as errors,
        subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        for line in process.stdout or ():
            if line.startswith("done "):
                advance(len(chosen.assets))
    if process.returncode:
        last = log.read_text().splitlines()[-1:]
        msg = f"the backfill stopped: {' '.join(last)}; {log} has the rest, the same command goes on"
        raise ServiceError(msg)
