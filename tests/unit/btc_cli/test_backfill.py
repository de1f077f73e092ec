"""Which days and assets of a backfill are made at the same time, and what becomes of those beside one that fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from btc_cli import backfill
from btc_core.days.rows import days_between
from btc_core.errors import ServiceError
from stack.layout import Layout

if TYPE_CHECKING:
    from pathlib import Path

DAYS = tuple(days_between("2026-07-01", "2026-07-05"))
WORKS_OFF = """
import sys
days = sys.argv[1:sys.argv.index("--assets")]
for day in days:
    if day == "2026-07-02":
        sys.exit("2026-07-02: no bronze")
    sys.stdout.write(f"done {day}\\n")
    sys.stdout.flush()
"""


def made(processes: int = 1, *, by_daemon: bool = False) -> backfill.Plan:
    return backfill.Plan(backfill.KNOWN, DAYS, by_daemon, DAYS[0], processes)


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A stack whose assets are made by a script that cannot make the second of July."""
    package = tmp_path / "code" / "btc_assets"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(WORKS_OFF)
    monkeypatch.setattr(backfill, "ROOT", tmp_path / "code")
    layout = Layout(tmp_path / "stack")
    layout.create("sim")
    return layout


def test_one_process_or_one_run_of_the_daemon_makes_everything_in_the_order_of_the_days() -> None:
    assert made().groups == (backfill.KNOWN,)
    assert made().runs == len(DAYS)
    one = made(by_daemon=True)
    assert one.groups == (backfill.KNOWN,)
    assert one.runs == 1


def test_days_at_the_same_time_have_all_their_bronze_first() -> None:
    plan = made(processes=2)
    assert plan.groups == (("bronze_history",), ("sealed_bronze",), backfill.SEALED[1:])
    assert plan.runs == 3 * len(DAYS)


def test_every_day_goes_to_one_process_and_one_that_stops_leaves_the_others_their_days(layout: Layout) -> None:
    advanced: list[int] = []
    with pytest.raises(ServiceError, match="2026-07-02: no bronze"):
        backfill._in_processes(layout, backfill.PROVEN, [DAYS[0::2], DAYS[1::2]], advanced.append)
    assert advanced == [1] * len(DAYS[0::2])
    backfill._in_processes(layout, backfill.SEALED, [DAYS[0:1], DAYS[2:]], advanced.append)
    assert sum(advanced) == len(DAYS[0::2]) + len(backfill.SEALED) * (len(DAYS) - 1)
