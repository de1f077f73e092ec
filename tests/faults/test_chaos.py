"""Short runs of `make chaos` on one system: each server stopped for a while, then random faults from a fixed seed."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from exchange_simulator.faults.catalogue import CATALOGUE
from tests.faults.__main__ import LEADER, system
from tests.faults.chaos import Chaos, FaultReport
from tests.faults.component_faults import COMPONENTS, FALLIBLE, KILLED, SERVERS
from tests.faults.component_faults import labels as component_labels
from tests.faults.outcomes import Outcome, outcomes
from tests.faults.plan import Plan
from tests.faults.verdict import Verdict, judge_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stack.runtime import Stack

pytestmark = pytest.mark.timeout(1_800)


class Result(NamedTuple):
    report: FaultReport
    verdicts: dict[str, Verdict]
    came_of: dict[str, Outcome]


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """The system that one run after the other damages."""
    directory = Path(tempfile.mkdtemp(prefix="btc-chaos-"))
    stack = None
    try:
        stack = system(directory)
        yield stack
    finally:
        if stack is not None:
            stack.down()
            shutil.rmtree(stack.layout.run_dir, ignore_errors=True)
        shutil.rmtree(directory, ignore_errors=True)


def result_of(stack: Stack, plan: Plan) -> Result:
    stack.up(only=COMPONENTS)  # the run before has stopped ingest
    report = Chaos(stack, plan).run()
    return Result(report, judge_all(stack.settings), outcomes(stack.settings))


def test_no_data_of_any_market_is_missing_duplicate_or_different_after_servers_were_stopped(stack: Stack) -> None:
    report, verdicts, _ = result_of(stack, Plan(outages=SERVERS, outage_s=10.0))
    assert report.outages == SERVERS
    assert not report.not_reached
    for symbol, verdict in verdicts.items():
        assert verdict.sound, (
            symbol,
            verdict,
        )  # a starved machine may lose the exchange, too: that gap is closed like any other


def test_no_data_of_any_market_is_missing_duplicate_or_different_after_random_faults(stack: Stack) -> None:
    report, verdicts, came_of = result_of(stack, Plan(seed=38, seconds=60.0, every_s=2.0))
    assert not report.not_reached
    kinds = set(report.injected)
    assert report.total >= 20, report
    assert report.total > report.total_skipped, report
    assert report.together, report
    assert sum(report.injected.get(f"{name} {KILLED}", 0) for name in FALLIBLE) >= 6, report
    assert len(kinds & set(component_labels())) >= 10, report
    assert len(kinds & set(CATALOGUE)) >= 10, report
    assert set(report.recoveries_s) == kinds & set(component_labels()), "every recovery is watched"
    assert set(verdicts) == {"BTC/USD", "ETH/USD", LEADER}
    for symbol, verdict in verdicts.items():
        assert verdict.sound, (symbol, verdict)
    assert not any(outcome.counts["LOST"] for outcome in came_of.values()), came_of
