"""The feature row of a forecast from frames: frames of the order book that are too old to matter are left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from btc_core.clock import NS_PER_S
from btc_core.days.fold_states import BOOKS_NS, folded, from_offset, state_of
from btc_core.days.forecast_check import Check
from btc_core.days.forecast_evidence import Evidence, Proof
from btc_core.days.forecast_hours import Place
from btc_core.days.forecast_leaves import leaf_of, row_hashes
from btc_core.days.forecast_replay import EMITTED_NS, FEW_BOOKS_NS, LogCheck, WantedRow, replayed_rows
from btc_core.days.log_hours import LogRange
from btc_core.days.merkle import leaf_hash, root_of
from btc_core.exchanges.recorded_blocks import blocks_of
from btc_core.exchanges.recorded_lines import RecordedMessage, envelope_line
from btc_core.features.catalogue import FEATURE_VERSION
from btc_core.features.engine import FeatureEngine, run
from btc_core.names import HORIZONS_MIN
from btc_core.tables.arrow import arrow_schema
from btc_core.tables.catalogue import BID_PREDICTION, SILVER_FEATURES, VOLATILITY_PREDICTION
from btc_core.tables.proof_tables import FORECAST_MINUTES, FORECAST_STATES
from tests.book_frames import BookTape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from btc_core.exchanges.recorded_blocks import Block
    from btc_core.market.messages import Envelope
    from btc_core.tables.form import Table

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
    found = replayed_rows(blocks_of(messages, 500), WantedRow("BTC/USD", Place(0, place, 0), received_ns, ""))
    assert found is not None
    assert found.ids[-1] == rows.ids[-1]
    np.testing.assert_array_equal(found.values[-1], rows.matrix()[-1])


def blocks(envelopes: list[Envelope], size: int = 700) -> Iterator[Block]:
    return blocks_of((RecordedMessage(each, 0, at) for at, each in enumerate(envelopes)), size)


def wanted(envelopes: list[Envelope]) -> WantedRow:
    """The last quote of a tape."""
    place = max(at for at, each in enumerate(envelopes) if each.channel == "ticker")
    return WantedRow("BTC/USD", Place(0, place, 0), envelopes[place].ts_recv_ns, "")


def test_ninety_minutes_of_a_busy_order_book_give_the_row_that_all_of_it_gives() -> None:
    envelopes = BookTape(7).run(25_000, pace_s=1.0).envelopes
    row = wanted(envelopes)
    few, every = (replayed_rows(blocks(envelopes), row, 0, ns) for ns in (FEW_BOOKS_NS, BOOKS_NS))
    assert few is not None
    assert every is not None
    assert row.received_ns - envelopes[0].ts_recv_ns > 4 * FEW_BOOKS_NS
    np.testing.assert_array_equal(few.values[-1], every.values[-1])


def quiet_tape() -> list[Envelope]:
    """A market whose only snapshot is three hours old."""
    tape = BookTape(9)
    tape.snapshot()
    for number in range(1_080):
        tape.now_ns += 10 * NS_PER_S
        (tape.update, tape.quote, tape.trade)[number % 3]()
    return tape.envelopes


def record(table: Table, values: dict[str, Any]) -> pa.Table:
    """A row of a table without other values."""
    schema = arrow_schema(table)
    return pa.table({field.name: pa.array([values.get(field.name)], field.type) for field in schema}, schema)


def evidence_of(row: WantedRow, leaf_row: pa.Table | None, read: Callable[[], Iterator[Block]]) -> Evidence:
    """The evidence of a forecast of an open hour, with the leaf of a feature row."""
    place = {"kafka_partition": 0, "kafka_offset": row.place.offset, "frame_item": 0, "symbol": row.symbol}
    values = {**place, "feature_version": FEATURE_VERSION, "made_at": row.received_ns, "ts_recv": row.received_ns}
    values |= {"ts_event": row.received_ns, "bid": 1.0, f"bid_{HORIZONS_MIN[-1]}m_usd": 1.0}
    bid = record(BID_PREDICTION, values)
    volatility = record(VOLATILITY_PREDICTION, values | {f"sigma_{HORIZONS_MIN[-1]}m_bps": 1.0})
    bundles = (bytes(32), bytes(32))
    leaf = ""
    if leaf_row is not None:
        tables = (BID_PREDICTION, bid), (VOLATILITY_PREDICTION, volatility), (SILVER_FEATURES, leaf_row)
        first, second, third = (row_hashes(table, rows)[0] for table, rows in tables)
        leaf = leaf_hash(leaf_of(first, second, third, bundles)).hex()
    return Evidence(
        symbol=row.symbol,
        bid=bid,
        volatility=volatility,
        horizons_min=HORIZONS_MIN,
        state=record(FORECAST_STATES, {f"{name}_bundle": bytes(32).hex() for name in ("bid", "volatility")}),
        minutes=arrow_schema(FORECAST_MINUTES).empty_table(),
        bundles={},
        proof=Proof(),
        stored_leaf=leaf,
        leader="",
        simulated=True,
        source="a tape",
        blocks=read,
    )


def test_a_row_that_ninety_minutes_of_the_book_do_not_give_is_judged_with_all_of_it() -> None:
    envelopes = quiet_tape()
    row = wanted(envelopes)
    few, every = (replayed_rows(blocks(envelopes), row, 0, ns) for ns in (FEW_BOOKS_NS, BOOKS_NS))
    assert few is not None
    assert every is not None
    assert not np.array_equal(few.values[-1], every.values[-1], equal_nan=True)
    times = 0

    def read() -> Iterator[Block]:
        nonlocal times
        times += 1
        return blocks(envelopes)

    for leaf_row, replays in ((few.silver(), 1), (every.silver(), 2), (None, 2)):
        times = 0
        steps = list(Check(evidence_of(row, leaf_row, read)).steps())
        assert [step.name for step in steps] == ["record", "root", "frames", "row", "models"]
        assert times == replays


def test_a_replay_from_a_state_gives_the_row_that_a_replay_of_everything_gives() -> None:
    envelopes = BookTape(5).run(4_000, pace_s=2.0).envelopes
    row = wanted(envelopes)
    whole = replayed_rows(blocks(envelopes), row)
    assert whole is not None
    latest = max(at for at, each in enumerate(envelopes) if each.ts_recv_ns < row.received_ns - EMITTED_NS)
    for first in (0, latest // 3, latest):
        engine = FeatureEngine()
        for _ in folded(engine, blocks(envelopes[:first])):
            pass
        state, body = state_of(engine, "log", 0, first, "")
        assert state.is_that_of(body)
        assert state.continues("log", 0, "")
        assert not any(state.continues(*other) for other in (("log", 1, ""), ("other", 0, ""), ("log", 0, "BTC/USD")))
        read: list[int] = []

        def since(first: int = first, read: list[int] = read) -> Iterator[Block]:
            for block in from_offset(blocks(envelopes), first):
                read.extend(block.lines["offset"].tolist())
                yield block

        found = replayed_rows(since(), row, start=body)
        assert read[0] == first
        assert found is not None
        assert found.ids[-1] == whole.ids[-1]
        np.testing.assert_array_equal(found.values[-1], whole.values[-1])


def test_the_roots_of_the_log_are_compared_across_blocks_for_ranges_that_are_read_from_their_begin() -> None:
    envelopes = BookTape(2).run(900).envelopes
    leaves = [leaf_hash(envelope_line(each, 0, at)) for at, each in enumerate(envelopes)]
    ends = (150, 420, 421, 800)
    roots = [root_of(leaves[first:end]).hex() for first, end in zip((0, *ends), ends, strict=False)]
    ranges = [LogRange("", 0, first, end, root) for first, end, root in zip((0, *ends), ends, roots, strict=False)]
    for begin, expected in ((0, 4), (100, 3), (420, 2)):
        log = LogCheck(ranges)
        read = [each.where(each.lines["offset"] >= begin) for each in blocks(envelopes, 130)]
        assert sum(len(each.lines) for each in log.passing(read)) == len(envelopes) - begin
        assert [fits for _, fits in log.compared()] == [True] * expected
        assert log.messages == ends[-1] - ranges[4 - expected].first
        assert log.end == ends[-1]
    log = LogCheck([msgspec.structs.replace(ranges[0], root=roots[1]), *ranges[1:]])
    list(log.passing(blocks(envelopes)))
    assert [fits for _, fits in log.compared()] == [False, True, True, True]
