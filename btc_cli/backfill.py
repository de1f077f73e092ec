"""`btc backfill`: materializing past days of Dagster assets, by the Dagster daemon or in processes of its own.

What does not belong here: what an asset does with a day (`btc_assets`).
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from btc_cli import screen
from btc_cli.options import DataDir, FirstDay, LastDay, open_stack
from btc_core.clock import now_ns
from btc_core.errors import InvalidInput, ServiceError
from btc_core.names import INSIST_TAG
from btc_core.stores.dagster import BackfillStatus, backfill_status, daemon_runs, launch_backfill
from btc_core.utc_day import day_of, days_between
from btc_core.waiting import wait_until
from stack.layout import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from stack.layout import Layout

SEALING_ASSETS = (
    "sealed_bronze",
    "sealed_silver",
    "sealed_forecasts",
    "gold_1min_sealed",
    "gold_5min_sealed",
    "sealed_bars",
    "day_backup",
    "day_archive",
)
"""The assets that seal a day, in their order. They are the assets of the Dagster job `seal_day`."""
FETCHING_ASSETS, BRONZE_ASSETS = ("bronze_history",), SEALING_ASSETS[:1]
DAILY_ASSETS = (*FETCHING_ASSETS, *SEALING_ASSETS)
"""All assets that are partitioned by day, each before those that are made from it."""
POLL_S = 1.0
SUCCEEDED = ("COMPLETED_SUCCESS", "COMPLETED")
UNFINISHED = ("REQUESTED", "CANCELING", "FAILING", "COMPLETING")
"""Statuses of a Dagster backfill that another status will follow."""


def backfill(  # noqa: PLR0913 - every option of the command is an argument
    first: FirstDay,
    last: LastDay,
    assets: Annotated[
        list[str] | None,
        typer.Option(help="Asset to materialize; may be repeated. Default: all assets that seal a day."),
    ] = None,
    *,
    processes: Annotated[
        int,
        typer.Option(
            min=1, help="Work on this many days in parallel, without the daemon; each takes a core and 500 MB."
        ),
    ] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be started and start nothing.")] = False,
    insist: Annotated[
        bool,
        typer.Option("--insist", help="Write the changes of days whose check `changes_are_plausible` has failed."),
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Seal and verify past days again, or fetch the trades of days that were never streamed.

    Sealing is the default; `--assets bronze_history` fetches trades from the exchange's REST API.
    Days that are correct stay as they are, so the command may be repeated.
    """
    stack = open_stack(data_dir)
    chosen = msgspec.structs.replace(plan(stack.layout, first, last, tuple(assets or ()), processes), insists=insist)
    typer.echo(chosen.description())
    if dry_run:
        return
    stack.extend_days_back_to(chosen.days[0], screen.progress)
    with typer.progressbar(length=chosen.partitions, label="partitions") as bar:
        carry_out(stack.layout, chosen, bar.update)
    typer.echo("done; the Dagster UI shows the rows and checks of each day")


class Plan(msgspec.Struct, frozen=True):
    """What a backfill will start."""

    assets: tuple[str, ...]
    days: tuple[str, ...]
    by_daemon: bool
    known_from: str
    """The first day that Dagster has partitions for before the backfill."""
    processes: int = 1
    """Processes that share the days if the daemon does not run the backfill."""
    insists: bool = False
    """Whether changes are written that the proof of a day refuses."""

    @property
    def partitions(self) -> int:
        """Days times assets."""
        return len(self.days) * len(self.assets)

    @property
    def runs(self) -> int:
        """The number of Dagster runs: one by the daemon, otherwise one for each day, so that an interruption loses one day."""
        return len(self.groups) * (1 if self.by_daemon else len(self.days))

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """The assets in groups that are materialized one after the other, each for all days.

        Days in parallel need bronze first: the replay of a day begins with the bronze of the day before.
        """
        if self.processes == 1:
            return (self.assets,)
        stages = (FETCHING_ASSETS, BRONZE_ASSETS, SEALING_ASSETS[1:])
        groups = (tuple(name for name in self.assets if name in stage) for stage in stages)
        return tuple(group for group in groups if group)

    def description(self) -> str:
        """One line for the user."""
        if self.by_daemon:
            how = "by the Dagster daemon"
        elif self.processes > 1:
            how = f"in {self.processes} processes"
        else:
            how = "in one process, as the Dagster daemon is not running"
        line = (
            f"{len(self.days)} day{'s' * (len(self.days) > 1)}, {self.days[0]} to {self.days[-1]}, {how}: {self.partitions} partitions of "
            f"{', '.join(self.assets)} in {self.runs} run{'s' * (self.runs > 1)}"
        )
        if self.days[0] < self.known_from:
            line += f"; Dagster's partitions will begin on {self.days[0]} instead of {self.known_from}"
        return line


def plan(layout: Layout, first: str, last: str, assets: tuple[str, ...], processes: int = 1) -> Plan:
    """Decide how to materialize `assets` (all that seal a day if empty) from day `first` to day `last`.

    With more than one process the daemon is not used. Raises `InvalidInput` naming the option that is wrong.
    """
    settings = layout.settings()
    unknown = [name for name in assets if name not in DAILY_ASSETS]
    if unknown:
        msg = f"--assets: no asset {', '.join(unknown)} is partitioned by day; choose from {', '.join(DAILY_ASSETS)}"
        raise InvalidInput(msg)
    days = days_between(first, last)
    today = day_of(now_ns())
    if days[-1] >= today:
        msg = f"--to: {days[-1]} is not over yet; the last complete day is the one before {today}"
        raise InvalidInput(msg)
    chosen = tuple(name for name in DAILY_ASSETS if name in (assets or SEALING_ASSETS))
    by_daemon = processes == 1 and daemon_runs(settings)
    return Plan(chosen, tuple(days), by_daemon, settings.seal.first_day, min(processes, len(days)))


def carry_out(layout: Layout, chosen: Plan, advance: Callable[[int], None]) -> None:
    """Run a plan; `advance` gets the number of partitions done since its last call. Raises `ServiceError` on failure."""
    for assets in chosen.groups:
        if chosen.by_daemon:
            _run_by_daemon(layout, assets, chosen, advance)
        else:
            # The exchange's REST API takes one request a second, however many processes ask.
            processes = 1 if assets == FETCHING_ASSETS else chosen.processes
            shares = [chosen.days[start::processes] for start in range(processes)]
            _run_in_processes(layout, assets, shares, advance, insists=chosen.insists)


def _run_by_daemon(layout: Layout, assets: tuple[str, ...], chosen: Plan, advance: Callable[[int], None]) -> None:
    settings = layout.settings()
    tags = {INSIST_TAG: "yes"} if chosen.insists else {}
    backfill_id = launch_backfill(settings, assets, chosen.days, tags)
    finished = 0

    def final_status() -> BackfillStatus | None:
        nonlocal finished
        status = backfill_status(settings, backfill_id)
        advance(status.done + status.failed - finished)
        finished = status.done + status.failed
        return None if status.status in UNFINISHED else status

    status = wait_until(final_status, math.inf, POLL_S)
    if status is not None and status.status not in SUCCEEDED:
        url = f"{settings.dagster.url}/runs/b/{backfill_id}"
        msg = f"the backfill ended with {status.status}, {status.failed} partitions failed; see {url}"
        raise ServiceError(msg)


def _run_in_processes(
    layout: Layout,
    assets: tuple[str, ...],
    shares: list[tuple[str, ...]],
    advance: Callable[[int], None],
    *,
    insists: bool = False,
) -> None:
    """Materialize each share of the days in its own process; when one fails, the others finish their days."""
    env = {**os.environ, **layout.environment()}
    options = ["--insist"] if insists else []
    command = [sys.executable, "-W", "ignore", "-m", "btc_assets"]
    log = layout.log("backfill")
    layout.make_dirs()
    # All processes write to one pipe. Their lines do not mix, as each is shorter than what a pipe writes at once.
    read_end, write_end = os.pipe()
    with ExitStack() as opened:
        errors = opened.enter_context(log.open("a"))
        running = [
            opened.enter_context(
                subprocess.Popen(
                    [*command, *days, "--assets", *assets, *options],
                    cwd=ROOT,
                    env=env,
                    stdout=write_end,
                    stderr=errors,
                )
            )
            for days in shares
        ]
        os.close(write_end)
        with os.fdopen(read_end) as lines:
            for line in lines:
                if line.startswith("done "):
                    advance(len(assets))
    if any(process.returncode for process in running):
        reason = " ".join(log.read_text().splitlines()[-1:])
        msg = f"the backfill failed: {reason}; see {log}, then run the same command to continue"
        raise ServiceError(msg)
