"""Eight symbols shared by two features workers of one group: no data is lost when one worker is killed for good."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from functools import partial
from pathlib import Path

import httpx
import pytest

from stack.ports import free_ports
from stack.runtime import Stack
from tests import waiting
from tests.faults.chaos import caught_up, query
from tests.faults.component_faults import COMPONENTS
from tests.faults.verdict import judge, replay_of_log

pytestmark = pytest.mark.timeout(900)

SYMBOLS = tuple(f"{base}/USD" for base in ("BTC", "ETH", "SOL", "XRP", "LTC", "ADA", "BCH", "LINK"))
wait_for = partial(waiting.wait_for, patience_s=180.0)


def rows_since(stack: Stack, seconds: float) -> set[str]:
    """Symbols with a feature row of a frame that was received in the last `seconds` seconds."""
    recent = f"SELECT DISTINCT symbol FROM silver_features WHERE ts_recv > dateadd('s', -{int(seconds)}, now())"
    return {row[0] for row in query(stack.settings, recent)}


def consumed(stack: Stack, name: str) -> float:
    """Messages that a worker has handled, by its own metric."""
    (status,) = stack.status((name,))
    text = httpx.get(status.url, timeout=10).text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("btc_messages_consumed_total{"))


def test_two_workers_share_the_symbols_and_one_takes_over_all_when_the_other_is_killed() -> None:
    directory = Path(tempfile.mkdtemp(prefix="btc-many-"))
    stack = Stack(directory)
    try:
        stack.create("sim", free_ports(), ("--rate", "2", "--ledger-mb", "0"), SYMBOLS)
        stack.layout.set_features_workers(2)
        stack.up(only=(*COMPONENTS, "features_2"))
        wait_for(lambda: rows_since(stack, 60) == set(SYMBOLS), "rows of every symbol")
        wait_for(
            lambda: min(consumed(stack, name) for name in ("features", "features_2")) > 0,
            "both workers handle messages",
        )
        (lost,) = stack.status(("features_2",))
        os.kill(lost.pid, signal.SIGKILL)
        stack.stop_component("features_2")  # so that the supervisor does not restart it
        killed_s = time.time()
        wait_for(
            lambda: rows_since(stack, time.time() - killed_s) == set(SYMBOLS),
            "new rows of every symbol from the remaining worker",
        )
        stack.stop_component("ingest")
        wait_for(lambda: caught_up(stack.settings), "every message is handled")
        replay = replay_of_log(stack.settings)
        for symbol in SYMBOLS:
            verdict = judge(stack.settings, symbol, replay)
            assert verdict.sound, (symbol, verdict)
    finally:
        stack.down()
        shutil.rmtree(stack.layout.run_dir, ignore_errors=True)
        shutil.rmtree(directory, ignore_errors=True)
