"""What a verification calls to read, hash and fold the log has been compiled by `btc_core.days.precompile`."""

from __future__ import annotations

import pytest

from tests.compiled_functions import called

pytestmark = pytest.mark.unit

VERIFICATION = """
from btc_core.days.forecast_hours import Place
from btc_core.days.forecast_replay import LogCheck, WantedRow, replayed_rows
from btc_core.days.log_hours import LogRange
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


def test_a_verification_calls_nothing_that_was_not_compiled_ahead() -> None:
    ahead = called(PRECOMPILE)  # first, so that it compiles what no cache has
    needed = called(VERIFICATION)
    names = {each.partition("(")[0] for each in needed}
    assert {"fold", "_read_lines", "_write_lines", "_index", "_hash_ranges", "book_measures"} <= names
    assert needed <= ahead
