"""Short runs of `make chaos`: from a fixed seed everything dies and the exchange lies; and each server is away a while."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.faults.__main__ import system
from tests.faults.chaos import SERVERS, Chaos, Damage, Plan
from tests.faults.verdict import Verdict, judge

pytestmark = pytest.mark.timeout(900)


def outcome(plan: Plan) -> tuple[Damage, Verdict]:
    directory = Path(tempfile.mkdtemp(prefix="btc-chaos-"))
    stack = None
    try:
        stack = system(directory)
        damage = Chaos(stack, plan).run()
        return damage, judge(stack.settings)
    finally:
        if stack is not None:
            stack.down()
            shutil.rmtree(stack.layout.run_dir, ignore_errors=True)
        shutil.rmtree(directory, ignore_errors=True)


def test_nothing_is_lost_doubled_or_different_after_chaos() -> None:
    damage, verdict = outcome(Plan(seed=4, seconds=60.0, every_s=2.0))
    assert damage.total >= 20, damage
    assert sum(damage.kills.values()) >= 6, damage
    assert verdict.sound, verdict


def test_nothing_is_lost_doubled_or_different_when_servers_were_away() -> None:
    damage, verdict = outcome(Plan(outages=SERVERS, away_s=15.0))
    assert damage.outages == SERVERS
    assert verdict.sound, verdict
    assert verdict.gaps_seen == 0, "the exchange was followed all the time"
