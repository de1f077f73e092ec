"""What a verification calls to read, hash and fold the log has been compiled by `btc_core.days.precompile`."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.paths import ROOT

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
"""
"""Replays a tape as a verification does, from the log and from an archive."""

PRECOMPILE = """
from btc_core.days.precompile import precompile_proofs
precompile_proofs()
"""

CALLED = """
import gc, json
from numba.core.registry import CPUDispatcher
functions = [each for each in gc.get_objects() if isinstance(each, CPUDispatcher) and each.__module__.startswith("btc_core")]
print(json.dumps([f"{each.__name__}{signature}" for each in functions for signature in each.signatures]))
"""
"""Prints the functions that were compiled or loaded, with the types of their arguments."""


def called(code: str) -> set[str]:
    """The compiled functions that a program calls, with the types of their arguments."""
    command = [sys.executable, "-c", code + CALLED]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_a_verification_calls_nothing_that_was_not_compiled_ahead() -> None:
    ahead = called(PRECOMPILE)  # first, so that it compiles what no cache has
    needed = called(VERIFICATION)
    names = {each.partition("(")[0] for each in needed}
    assert {"fold", "_read_lines", "_write_lines", "_index", "_hash_ranges", "book_measures"} <= names
    assert needed <= ahead
