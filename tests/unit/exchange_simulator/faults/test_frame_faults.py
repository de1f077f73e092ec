"""What faults do to frames: they affect exactly the trades, updates and quotes that they name."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_core.errors import BadFrame
from btc_core.market import frames
from exchange_simulator.faults import catalogue, frame_faults
from exchange_simulator.market.events import Quote, Trade
from exchange_simulator.pairs import BTC_USD
from exchange_simulator.websocket import wire

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.unit

SYMBOL = BTC_USD.symbol


def _trade_frames(sizes: Sequence[int]) -> list[wire.Frame]:
    """Trades numbered from 1, as many in each frame as `sizes` says."""
    ids = itertools.count(1)
    return [
        wire.trade(BTC_USD, "update", [Trade(0, next(ids), 600_001, 1_234, True, False) for _ in range(size)])
        for size in sizes
    ]


def _ids_after(fault: frame_faults.UpdateFault, sizes: Sequence[int]) -> tuple[list[list[int]], bool]:
    """The trade ids in each frame that a client reads, and whether the fault is done after the last frame."""
    interceptor = frame_faults.interceptor(fault, SYMBOL)
    sent = [changed for frame in _trade_frames(sizes) for changed in interceptor(frame)]
    done = interceptor.done
    sent += interceptor.flush()
    read = [[row["trade_id"] for row in json.loads(frame.text)["data"]] for frame in sent]
    assert read == [list(frame.trade_ids) for frame in sent]
    assert all(read)
    return read, done


SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=12)
COUNTS = st.integers(2, 30)


@given(SIZES, COUNTS)
def test_trade_faults_touch_the_next_trades_and_no_others_however_they_are_framed(sizes: list[int], count: int) -> None:
    total = sum(sizes)
    first, rest = list(range(1, min(count, total) + 1)), list(range(count + 1, total + 1))

    remaining, done = _ids_after(catalogue.SkipTrades(count=count), sizes)
    assert list(itertools.chain(*remaining)) == rest
    assert done == (total >= count)
    duplicated, _ = _ids_after(catalogue.DuplicateTrades(count=count), sizes)
    assert sorted(itertools.chain(*duplicated)) == sorted(first + first + rest)
    reordered, _ = _ids_after(catalogue.ReorderTrades(count=count), sizes)
    assert list(itertools.chain(*reordered)) == first[::-1] + rest
    merged, _ = _ids_after(catalogue.MergeTrades(count=count), sizes)
    assert merged[0] == first
    assert list(itertools.chain(*merged)) == first + rest


def test_a_corrected_trade_is_sent_as_it_is_and_then_with_another_price() -> None:
    interceptor = frame_faults.interceptor(catalogue.CorrectTrades(count=1), SYMBOL)
    sent = [changed for frame in _trade_frames([2, 1]) for changed in interceptor(frame)]
    rows = [json.loads(frame.text)["data"] for frame in sent]
    assert [[(row["trade_id"], row["price"]) for row in each] for each in rows] == [
        [(1, 60_000.1)], [(1, 60_001.1)], [(2, 60_000.1)], [(3, 60_000.1)]
    ]  # fmt: skip
    assert {row["timestamp"] for each in rows for row in each} == {rows[0][0]["timestamp"]}
    assert interceptor.done


def test_a_corrected_trade_can_have_another_quantity_or_time() -> None:
    for field, changed in (("qty", 1.00001234), ("timestamp", "1969-12-31T23:59:00.000000Z")):
        fault = catalogue.parse("correct_trades", {"count": 1, "field": "time" if field == "timestamp" else field})
        interceptor = frame_faults.interceptor(fault, SYMBOL)  # type: ignore[arg-type]
        first, second = (json.loads(frame.text)["data"][0] for frame in interceptor(_trade_frames([1])[0]))
        assert second == first | {field: changed}
        assert first[field] != changed
        assert interceptor.trade_ids == [1]


def test_a_future_quote_differs_in_its_time_alone() -> None:
    ticker = wire.ticker(BTC_USD, "snapshot", Quote(0, 600_000, 1, 600_001, 1), 1, wire.DayStatistics(1, 1, 1, 1, 1.0))
    frame = frame_faults.extra_frame(catalogue.FutureQuote(seconds=90.0), ticker)
    before, after = json.loads(ticker.text), json.loads(frame.text)
    assert after["type"] == "update"
    assert after["data"][0] == before["data"][0] | {"timestamp": "1970-01-01T00:01:30.000000Z"}


def test_a_trade_fault_leaves_other_symbols_and_channels_alone() -> None:
    interceptor = frame_faults.interceptor(catalogue.SkipTrades(count=1), "ETH/USD")
    (trades,) = _trade_frames([2])
    ticker = wire.ticker(BTC_USD, "update", Quote(0, 1, 1, 2, 1), 1, wire.DayStatistics(1, 1, 1, 1, 1.0))
    assert [interceptor(trades), interceptor(ticker)] == [[trades], [ticker]]
    assert not interceptor.done


def test_only_the_given_number_of_checksums_is_wrong_and_the_levels_are_right() -> None:
    sides = {600_000: 5}, {600_001: 7}
    frame = wire.book(BTC_USD, "update", sides, wire.checksum(*sides), 0)
    interceptor = frame_faults.interceptor(catalogue.BadChecksum(count=2), SYMBOL)
    sent = [json.loads(interceptor(frame)[0].text)["data"][0] for _ in range(3)]
    right = json.loads(frame.text)["data"][0]
    assert [data["checksum"] == right["checksum"] for data in sent] == [False, False, True]
    assert all(data | {"checksum": 0} == right | {"checksum": 0} for data in sent)
    assert interceptor.done


def test_each_extra_frame_has_the_defect_of_its_fault() -> None:
    for fault, reason in ((catalogue.Malformed(), "malformed_json"), (catalogue.Unknown(), "unknown_channel")):
        with pytest.raises(BadFrame) as raised:
            frames.decode(frame_faults.extra_frame(fault, None).text)
        assert raised.value.reason == reason
    large = frame_faults.extra_frame(catalogue.Oversized(size_bytes=70_000), None)
    assert len(large.text) == 70_000
    assert len(json.loads(large.text)["data"][0]) < 70_000
    ticker = wire.ticker(BTC_USD, "snapshot", Quote(0, 600_000, 1, 600_001, 1), 1, wire.DayStatistics(1, 1, 1, 1, 1.0))
    bids = {}
    for price in ("null", "nan", "negative", "crossed"):
        frame = frame_faults.extra_frame(catalogue.parse("bad_quote", {"price": price}), ticker)  # type: ignore[arg-type]
        body = json.loads(frame.text)
        assert body["type"] == "update"
        bids[price] = body["data"][0]["bid"]
    assert bids["null"] is None
    assert np.isnan(bids["nan"])
    assert bids["negative"] < 0
    assert bids["crossed"] > 60_000.1


def test_odd_pairs_odd_trades_long_keys_and_foreign_books_have_their_defect_and_are_json() -> None:
    pairs = wire.instrument((BTC_USD,))
    for precision in ("null", "absent", "negative", "huge"):
        odd = frame_faults.extra_frame(catalogue.parse("odd_pair", {"precision": precision}), pairs)  # type: ignore[arg-type]
        frame = frames.decode(odd.text)
        assert isinstance(frame, frames.InstrumentFrame)
        assert [pair.symbol for pair in frame.data.pairs] == [BTC_USD.symbol]
        assert [entry.symbol for entry in frame.bad] == ["ODD/USD"]
    (source,) = _trade_frames([4])
    shown = frame_faults.extra_frame(catalogue.OddTrades(), source)
    rows = json.loads(shown.text)["data"]
    assert ["ord_type" in row for row in rows] == [False, True, True, True]
    assert [row["price"] is None for row in rows] == [True, False, False, False]
    long_key = frame_faults.extra_frame(catalogue.LongKey(), None)
    assert len(long_key.text) == 800_000
    assert len(next(iter(json.loads(long_key.text)))) > 799_000
    foreign = json.loads(frame_faults.extra_frame(catalogue.ForeignBook(), None).text)
    assert (foreign["channel"], foreign["data"][0]["symbol"]) == ("book", "XBT/USD")
