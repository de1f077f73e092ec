"""A short run of `make chaos` from a fixed seed: every kind of server and worker dies, and the exchange lies."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.faults.__main__ import system
from tests.faults.chaos import Chaos, Plan
from tests.faults.verdict import judge

pytestmark = pytest.mark.timeout(900)


def test_nothing_is_lost_doubled_or_different_after_chaos() -> None:
    directory = Path(tempfile.mkdtemp(prefix="btc-chaos-"))
    stack = None
    try:
        stack = system(directory)
        damage = Chaos(stack, Plan(seed=4, seconds=75.0, every_s=2.5)).run()
        verdict = judge(stack.settings)
        assert damage.total >= 20, damage
        assert sum(damage.kills.values()) >= 6, damage
        assert verdict.sound, verdict
    finally:
        if stack is not None:
            stack.down()
            shutil.rmtree(stack.layout.run_dir, ignore_errors=True)
        shutil.rmtree(directory, ignore_errors=True)
