"""Which days and assets a backfill materializes in parallel, and what happens to the others when one fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from btc_cli import backfill
from btc_core.errors import ServiceError
from btc_core.stores.dagster import BackfillStatus
from btc_core.utc_day import days_between
from stack.layout import Layout

if TYPE_CHECKING:
    from pathlib import Path

DAYS = tuple(days_between("2026-07-01", "2026-07-05"))
WORKER = """
import sys
days = sys.argv[1:sys.argv.index("--assets")]
for day in days:
    if day == "2026-07-02":
        sys.exit("2026-07-02: no bronze")
    sys.stdout.write(f"done {day}\\n")
    sys.stdout.flush()
"""


def plan_of(processes: int = 1, *, by_daemon: bool = False) -> backfill.Plan:
    return backfill.Plan(backfill.DAILY_ASSETS, DAYS, by_daemon, DAYS[0], processes)


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A stack in which a script stands in for the assets; it fails on the second of July."""
    package = tmp_path / "code" / "btc_assets"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(WORKER)
    monkeypatch.setattr(backfill, "ROOT", tmp_path / "code")
    layout = Layout(tmp_path / "stack")
    layout.create("sim")
    return layout


def test_one_process_or_one_run_of_the_daemon_materializes_all_assets_day_by_day() -> None:
    assert plan_of().groups == (backfill.DAILY_ASSETS,)
    assert plan_of().runs == len(DAYS)
    one = plan_of(by_daemon=True)
    assert one.groups == (backfill.DAILY_ASSETS,)
    assert one.runs == 1


def test_days_in_parallel_have_all_their_bronze_first() -> None:
    plan = plan_of(processes=2)
    assert plan.groups == (("bronze_history",), ("sealed_bronze",), backfill.SEALING_ASSETS[1:])
    assert plan.runs == 3 * len(DAYS)


def test_every_day_goes_to_one_process_and_the_others_finish_when_one_fails(layout: Layout) -> None:
    advanced: list[int] = []
    with pytest.raises(ServiceError, match="2026-07-02: no bronze"):
        backfill._run_in_processes(layout, backfill.BRONZE_ASSETS, [DAYS[0::2], DAYS[1::2]], advanced.append)
    assert advanced == [1] * len(DAYS[0::2])
    backfill._run_in_processes(layout, backfill.SEALING_ASSETS, [DAYS[0:1], DAYS[2:]], advanced.append)
    assert sum(advanced) == len(DAYS[0::2]) + len(backfill.SEALING_ASSETS) * (len(DAYS) - 1)


@pytest.mark.parametrize(("final", "problem"), [("COMPLETED_SUCCESS", ""), ("COMPLETED_FAILED", "1 partitions failed")])
def test_a_backfill_by_the_daemon_advances_with_it_and_fails_with_it(
    final: str, problem: str, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    statuses = iter([("REQUESTED", 0, 0), ("REQUESTED", 2, 0), ("COMPLETING", 3, 1), (final, 4, 1)])
    monkeypatch.setattr(backfill, "POLL_S", 0.0)
    monkeypatch.setattr(backfill, "launch_backfill", lambda *_: "backfill-1")

    def status(*_: object) -> BackfillStatus:
        name, done, failed = next(statuses)
        return BackfillStatus(name, 5, done, failed)

    monkeypatch.setattr(backfill, "backfill_status", status)
    advanced: list[int] = []
    one_run = plan_of(by_daemon=True)
    if problem:
        with pytest.raises(ServiceError, match=f"{problem}; see http://.*/runs/b/backfill-1"):
            backfill.carry_out(layout, one_run, advanced.append)
    else:
        backfill.carry_out(layout, one_run, advanced.append)
    assert advanced == [0, 2, 2, 1]


def test_a_plan_says_how_many_runs_it_starts_and_which_days_dagster_learns_of() -> None:
    text = backfill.Plan(("sealed_bronze",), DAYS, False, "2026-07-03").description()
    assert text == (
        "5 days, 2026-07-01 to 2026-07-05, in one process, as the Dagster daemon is not running: 5 partitions of "
        "sealed_bronze in 5 runs; Dagster's partitions will begin on 2026-07-01 instead of 2026-07-03"
    )
