"""After `btc_core.days.precompile`, reading, hashing and folding the log compiles nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

VERIFICATION = """
import gc, json
from numba.core.registry import CPUDispatcher
from btc_core.days.forecast_hours import Place
from btc_core.days.forecast_replay import LogCheck, WantedRow, replayed_rows
from btc_core.days.forecast_roots import LogRange
from btc_core.exchanges.envelope_blocks import blocks_of_values
from btc_core.exchanges.recorded_blocks import block_of
from btc_core.exchanges.tick_lines import with_ticks
from btc_core.market.messages import encode_envelope
from tests.book_frames import BookTape

envelopes = BookTape(4).run(2_000).envelopes
place = max(at for at, each in enumerate(envelopes) if each.channel == "ticker")
wanted = WantedRow("BTC/USD", Place(0, place, 0), envelopes[place].ts_recv_ns, "")
batches = [([encode_envelope(each) for each in envelopes], list(range(len(envelopes))))]
from_log = list(blocks_of_values(batches, 0))
from_archive = [block_of(block.recording()) for block in from_log]
for blocks in (from_log, from_archive):
    log = LogCheck([LogRange("", 0, 0, place, "")])
    assert replayed_rows(with_ticks(log.passing(blocks)), wanted) is not None
    assert len(log.compared()) == 1
functions = [each for each in gc.get_objects() if isinstance(each, CPUDispatcher) and each.__module__.startswith("btc_core")]
found = {"loaded": [], "compiled": []}
for each in functions:
    found["loaded"] += [each.__name__] * sum(each.stats.cache_hits.values())
    found["compiled"] += [each.__name__] * sum(each.stats.cache_misses.values())
print(json.dumps(found))
"""
"""Replays a tape as a verification does, and prints which functions numba loaded and which it compiled."""


def test_after_it_a_verification_compiles_nothing(tmp_path: Path) -> None:
    """In a cache of its own, because other tests compile, too."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path)}
    env.pop("NUMBA_CACHE_DIR", None)
    subprocess.run([sys.executable, "-m", "btc_core.days.precompile"], check=True, env=env, cwd=ROOT)
    command = [sys.executable, "-c", VERIFICATION]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {"fold", "_read_lines", "_write_lines", "_index", "_hash_ranges", "book_measures"} <= set(found["loaded"])
    assert found["compiled"] == []
