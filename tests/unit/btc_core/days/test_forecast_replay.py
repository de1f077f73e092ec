"""The feature row of a forecast from frames: frames of the order book that are too old to matter are left out."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from btc_core.days.forecast_replay import BOOKS_NS, Place, WantedRow, replayed_rows
from btc_core.exchanges.recorded_lines import RecordedMessage
from btc_core.features.engine import FeatureEngine, run
from tests.book_frames import BookTape

pytestmark = pytest.mark.unit


def test_frames_of_the_book_from_before_its_memory_are_not_decoded_and_change_no_row() -> None:
    envelopes = BookTape(5).run(4_000, pace_s=20.0).envelopes
    place = max(at for at, each in enumerate(envelopes) if each.channel == "ticker")
    received_ns = envelopes[place].ts_recv_ns
    old = [each.channel == "book" and each.ts_recv_ns < received_ns - BOOKS_NS for each in envelopes]
    assert 500 < sum(old) < len(old)
    (rows,) = run(FeatureEngine(), [(each, 0, at) for at, each in enumerate(envelopes[: place + 1])], 10**6)
    unreadable = [
        msgspec.structs.replace(each, raw=b"{") if is_old else each for each, is_old in zip(envelopes, old, strict=True)
    ]
    messages = [RecordedMessage(each, 0, at) for at, each in enumerate(unreadable)]
    found = replayed_rows(messages, WantedRow("BTC/USD", Place(0, place, 0), received_ns, ""))
    assert found is not None
    assert found.ids[-1] == rows.ids[-1]
    np.testing.assert_array_equal(found.values[-1], rows.matrix()[-1])
