"""Short runs of `make chaos`: random faults from a fixed seed, and each server stopped for a while."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.faults.__main__ import system
from tests.faults.chaos import SERVERS, Chaos, FaultReport, Plan
from tests.faults.verdict import Verdict, judge

pytestmark = pytest.mark.timeout(900)


def result_of(plan: Plan) -> tuple[FaultReport, Verdict]:
    directory = Path(tempfile.mkdtemp(prefix="btc-chaos-"))
    stack = None
    try:
        stack = system(directory)
        report = Chaos(stack, plan).run()
        return report, judge(stack.settings)
    finally:
        if stack is not None:
            stack.down()
            shutil.rmtree(stack.layout.run_dir, ignore_errors=True)
        shutil.rmtree(directory, ignore_errors=True)


def test_no_data_is_missing_duplicate_or_different_after_random_faults() -> None:
    report, verdict = result_of(Plan(seed=4, seconds=60.0, every_s=2.0))
    assert report.total >= 20, report
    assert sum(report.kills.values()) >= 6, report
    assert report.freezes, report
    assert verdict.sound, verdict


def test_no_data_is_missing_duplicate_or_different_after_servers_were_stopped() -> None:
    report, verdict = result_of(Plan(outages=SERVERS, outage_s=15.0))
    assert report.outages == SERVERS
    assert verdict.sound, verdict
    assert verdict.gaps_seen == 0, "ingest never lost the exchange"
