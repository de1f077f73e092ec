"""Properties of any stream: rows and tables do not depend on restarts, on batches, or on messages that come twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btc_core.features.engine import FeatureEngine, Rows
from btc_core.market.messages import AbsentTrades, Envelope, decode_envelope, encode_envelope
from streaming.bronze_rows import BronzeReader
from streaming.handler import Record
from tests.service.workers import quote_frame, trade_frame

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.unit

SYMBOL = "BTC/USD"
BEGIN_NS = 1_700_000_000_000_000_000


@st.composite
def streams(draw: st.DrawFn) -> list[Envelope]:
    """Quotes and trades a fraction of a second apart; some trades are missing, some come late."""
    steps = draw(st.lists(st.tuples(st.sampled_from("qqtl"), st.integers(1, 3_000)), min_size=4, max_size=60))
    now_ns, trade_id, late, frames = BEGIN_NS, 1, list[bytes](), list[bytes]()
    for kind, pause_ms in steps:
        now_ns += pause_ms * 1_000_000
        price = 60_000.0 + pause_ms / 10
        if kind == "q":
            frames.append(quote_frame(SYMBOL, now_ns, price))
            continue
        frame = trade_frame(SYMBOL, now_ns, price, trade_id)
        trade_id += 1
        (late if kind == "l" else frames).append(frame)
        if late and pause_ms % 3 == 0:
            frames.append(late.pop(0))
    return [
        Envelope(now_ns, 1, number, "ticker" if b'"ticker"' in frame else "trade", "ws", frame)
        for number, frame in enumerate(frames)
    ]


def records(envelopes: Sequence[Envelope]) -> list[Record]:
    return [Record(0, offset, encode_envelope(envelope)) for offset, envelope in enumerate(envelopes)]


def rows_of(batches: list[Rows]) -> dict[tuple[int, int], bytes]:
    return {
        (row.offset, row.item): batch.matrix()[number].tobytes()
        for batch in batches
        for number, row in enumerate(batch.ids)
    }


def tables(reader: BronzeReader) -> dict[str, dict[tuple[Any, ...], dict[str, Any]]]:
    """What QuestDB would hold: the last row of each key."""
    return {
        table.name: {tuple(row[name] for name in table.keys): row for row in rows.to_pylist()}
        for table, rows, _ in reader.rows.tables(chunk_rows=10_000)
    }


@given(stream=streams(), restarts=st.lists(st.integers(0, 60), max_size=4), batch=st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_any_restarts_give_the_rows_and_tables_of_one_run(
    stream: list[Envelope], restarts: list[int], batch: int
) -> None:
    whole, reader = FeatureEngine(), BronzeReader()
    for record in records(stream):
        whole.push(decode_envelope(record.value), 0, record.offset)
        reader.read(record)
    expected_rows, expected_tables = rows_of(whole.flush()), tables(reader)

    found_rows: dict[tuple[int, int], bytes] = {}
    found_tables: dict[str, dict[tuple[Any, ...], dict[str, Any]]] = {}
    begins = sorted({0, *(at for at in restarts if at < len(stream))})
    for begin, end in zip(begins, [*begins[1:], len(stream)], strict=True):
        engine, reader = FeatureEngine(), BronzeReader()
        committed = max(0, begin - 2)  # the killed run had handled two messages more than it committed
        for record in records(stream)[:committed]:
            engine.push(decode_envelope(record.value), 0, record.offset)
            reader.warm(record)
        engine.flush(emit=False)
        for record in records(stream)[committed:end]:
            engine.push(decode_envelope(record.value), 0, record.offset)
            reader.read(record)
            if record.offset % batch == 0:
                found_rows |= rows_of(engine.flush())
        found_rows |= rows_of(engine.flush())
        for table, rows in tables(reader).items():
            found_tables.setdefault(table, {}).update(rows)
    assert found_rows == expected_rows
    assert found_tables == expected_tables


@given(stream=streams(), repeats=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=12))
@settings(max_examples=60, deadline=None)
def test_repeated_trades_change_neither_a_table_nor_a_feature(
    stream: list[Envelope], repeats: list[tuple[int, int]]
) -> None:
    trades = [number for number, envelope in enumerate(stream) if envelope.channel == "trade"]
    placed: dict[int, list[Envelope]] = {}
    for which, later in repeats:
        if trades:
            number = trades[which % len(trades)]
            placed.setdefault(min(number + later, len(stream) - 1), []).append(stream[number])
    doubled = [each for number, envelope in enumerate(stream) for each in (envelope, *placed.get(number, []))]

    def result(envelopes: list[Envelope]) -> tuple[list[bytes], list[dict[str, Any]], list[Any]]:
        engine, reader = FeatureEngine(), BronzeReader()
        for record in records(envelopes):
            engine.push(decode_envelope(record.value), 0, record.offset)
            reader.read(record)
        features = [batch.values[number].tobytes() for batch in engine.flush() for number in range(len(batch.ids))]
        place = {"kafka_partition", "kafka_offset", "frame_item"}
        rows = [
            {name: value for name, value in row.items() if name not in place}
            for _, table in sorted(tables(reader).items())
            for row in table.values()
        ]
        return features, rows, reader.notices

    assert result(doubled) == result(stream)


@given(lost=st.sets(st.integers(2, 29), max_size=12), repaired=st.sets(st.integers(2, 29)), order=st.randoms())
@settings(max_examples=60, deadline=None)
def test_every_missing_id_ends_as_repaired_or_absent_and_no_gap_stays_open(
    lost: set[int], repaired: set[int], order: Any
) -> None:
    live = [i for i in range(1, 31) if i not in lost]
    envelopes = [
        Envelope(BEGIN_NS + i, 1, i, "trade", "ws", trade_frame(SYMBOL, BEGIN_NS + i, 60_000.0, i)) for i in live
    ]
    answers = [
        Envelope(BEGIN_NS + 99, 0, 0, "trade", "rest", trade_frame(SYMBOL, BEGIN_NS + i, 60_000.0, i))
        if i in repaired
        else Envelope(BEGIN_NS + 99, 0, 0, "absent", "rest", msgspec.json.encode(AbsentTrades(SYMBOL, i, i)))
        for i in lost
    ]
    order.shuffle(answers)
    reader = BronzeReader()
    for record in records([*envelopes, *answers]):
        reader.read(record)
    marks = tables(reader).get("gap_marks", {}).values()
    assert {row["state"] for row in marks} <= {"repaired", "absent"}
    assert sum(row["absent"] for row in marks) == len(lost - repaired)
    origins = {row["trade_id"]: row["origin"] for row in tables(reader)["bronze_trades"].values()}
    assert origins == dict.fromkeys(live, "ws") | dict.fromkeys(lost & repaired, "rest")


@pytest.mark.parametrize("bad", [b'"qty":0.0', b'"qty":1e30', b'"side":"hold"'])
def test_a_trade_that_rest_repeats_in_a_refused_form_closes_its_gap(bad: bytes) -> None:
    """Its gap stayed open for ever, although nothing was left that could fill it."""
    at = [BEGIN_NS + number for number in range(9)]
    good = [trade_frame(SYMBOL, at[number], 60_000.0, number) for number in range(9)]
    spoiled = good[5].replace(b'"qty":0.25' if b"qty" in bad else b'"side":"buy"', bad)
    assert spoiled != good[5]
    live = [Envelope(at[8], 1, n, "trade", "ws", spoiled if n == 5 else good[n]) for n in (3, 4, 5, 6)]
    by_rest = Envelope(at[8], 0, 0, "trade", "rest", spoiled)
    reader = BronzeReader()
    for record in records(live):
        reader.read(record)
    (gap,) = tables(reader)["gap_marks"].values()
    assert (gap["state"], gap["missing"]) == ("open", 1), "REST may have the trade in a form that can be stored"
    for record in records([by_rest]):
        reader.read(record)
    (gap,) = tables(reader)["gap_marks"].values()
    assert (gap["state"], gap["first_id"], gap["missing"]) == ("absent", 5, 0)
    assert [notice.state for notice in reader.notices] == ["open", "absent"]
    assert len(reader.refused) == 2, "the dead letters hold it"
    warm = BronzeReader()
    for record in records([*live, by_rest]):
        warm.warm(record)
    assert warm.save(0) == reader.save(0)


def test_features_are_compared_bit_by_bit_so_a_changed_quote_is_seen() -> None:
    frames = [quote_frame(SYMBOL, BEGIN_NS + n * 10**9, 60_000.0 + n) for n in range(3)]
    other = [*frames[:2], quote_frame(SYMBOL, BEGIN_NS + 2 * 10**9, 60_002.1)]
    results = []
    for each in (frames, other):
        engine = FeatureEngine()
        for number, frame in enumerate(each):
            engine.push(Envelope(BEGIN_NS, 1, number, "ticker", "ws", frame), 0, number)
        results.append(np.concatenate([batch.matrix() for batch in engine.flush()]).tobytes())
    assert results[0] != results[1]
