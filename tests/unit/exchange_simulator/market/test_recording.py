"""The tape of a recording."""

from __future__ import annotations

import pytest

from exchange_simulator.market.events import Trade
from exchange_simulator.market.recording import RecordedTape

pytestmark = pytest.mark.unit


def test_the_tape_of_a_recording_holds_only_what_was_replayed() -> None:
    tape = RecordedTape()
    assert len(tape.minute_bars(0, 10).start_min) == 0
    minute = 60 * 10**9
    replayed = [Trade(minute * 3 + n * 20 * 10**9, n + 1, 100 + n, 10, buy=True, market=False) for n in range(5)]
    tape.append(replayed)
    assert tape.trades_since(replayed[1].ts_ns, 2, 10**18) == replayed[2:4]
    assert tape.last_trades(2, replayed[3].ts_ns) == replayed[2:4]
    bars = tape.minute_bars(0, 5)
    assert bars.start_min.tolist() == [3, 4]
    assert bars.columns.tolist() == [[100, 102, 100, 102, 30, 3], [103, 104, 103, 104, 20, 2]]
