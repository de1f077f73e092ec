"""Odd trade ids through the bronze reader and the feature engine: nothing is lost, and both decide alike."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings

from btc_core import metrics
from btc_core.clock import NS_PER_S, from_ns
from btc_core.features import engine
from btc_core.features.engine import FeatureEngine
from btc_core.market.events import TRADE, TradeEvent
from btc_core.market.messages import AbsentTrades, Envelope, encode_envelope
from streaming import bronze
from streaming.bronze_rows import BronzeReader
from streaming.handler import Record
from tests.odd_trades import BEGIN_NS, FAR_ID, FIRST_ID, odd_streams, run_of, trade
from tests.service.workers import quote_frame

pytestmark = pytest.mark.unit

SYMBOL = "BTC/USD"


def frame(each: TradeEvent) -> bytes:
    data = {
        "symbol": each.symbol, "side": each.side, "price": each.price, "qty": each.qty, "ord_type": each.ord_type,
        "trade_id": each.trade_id, "timestamp": from_ns(each.ts_event_ns),
    }  # fmt: skip
    return msgspec.json.encode({"channel": "trade", "type": "update", "data": [data]})


class Stream:
    """The log of one market, read by the bronze reader and by the feature engine at once."""

    def __init__(self) -> None:
        self.reader, self.engine = BronzeReader(), FeatureEngine()
        self.folded: list[int] = []
        self.offset = 0

    def send(self, channel: str, raw: bytes, recv_ns: int) -> None:
        envelope = Envelope(recv_ns, 1, self.offset, channel, "ws", raw)
        self.reader.read(Record(0, self.offset, encode_envelope(envelope)))
        self.engine.push(envelope, 0, self.offset)
        for batch in self.engine.flush():
            self.folded += [row.offset for row in batch.ids if row.kind == TRADE]
            self.newest = batch
        self.offset += 1

    def trades(self, *trades: TradeEvent) -> None:
        for each in trades:
            self.send("trade", frame(each), each.ts_event_ns + 50_000_000)

    def rows(self, name: str) -> list[dict[str, Any]]:
        """What QuestDB would hold: the last row of each key."""
        found: dict[tuple[Any, ...], dict[str, Any]] = {}
        for table, rows, _ in self.reader.rows.tables(chunk_rows=100_000):
            if table.name == name:
                found.update({tuple(row[key] for key in table.keys): row for row in rows.to_pylist()})
        return list(found.values())


def test_a_thousand_trades_after_an_absurd_id_are_stored_and_folded() -> None:
    stream = Stream()
    stream.trades(*run_of(FIRST_ID, 100, 0), trade(FAR_ID, 100))
    assert stream.reader.notices == [], "nobody is asked for the ids before an absurd one"
    stream.trades(*run_of(FIRST_ID + 100, 1_000, 101))
    rows = stream.rows("bronze_trades")
    assert len(rows) == len(stream.folded) == 1_101
    assert {row["trade_id"]: row["mark"] for row in rows if row["mark"]} == {FAR_ID: "outlier"}
    stream.send("ticker", quote_frame(SYMBOL, BEGIN_NS + 1_101 * NS_PER_S, 60_000.0), BEGIN_NS + 1_101 * NS_PER_S)
    assert stream.newest.values["since_trade_s"][-1] == pytest.approx(1.0)


def test_ids_that_restart_at_one_are_stored_and_folded_and_mark_their_epoch() -> None:
    before = metrics.ODD_TRADES.labels(SYMBOL, "epoch")._value.get()
    stream = Stream()
    stream.trades(*run_of(FIRST_ID, 10, 0), *run_of(1, 1_000, 20))
    rows = stream.rows("bronze_trades")
    assert len(rows) == len(stream.folded) == 1_010
    assert {row["trade_id"]: row["mark"] for row in rows if row["mark"]} == {1: "epoch"}
    notices = [(notice.first_id, notice.state) for notice in stream.reader.notices]
    assert notices == [(FIRST_ID + 10, "open")], "REST is asked for the last trades before the restart"
    assert metrics.ODD_TRADES.labels(SYMBOL, "epoch")._value.get() == before + 1


def test_a_trade_that_was_called_absent_is_stored_and_its_gap_mark_corrected() -> None:
    stream = Stream()
    stream.trades(trade(1, 0), trade(2, 1), trade(5, 2))
    absent = msgspec.json.encode(AbsentTrades(SYMBOL, 3, 4))
    stream.send("absent", absent, BEGIN_NS + 20 * NS_PER_S)
    assert [(row["absent"], row["state"]) for row in stream.rows("gap_marks")] == [(2, "absent")]
    stream.trades(trade(3, 1.5))
    assert [(row["absent"], row["state"]) for row in stream.rows("gap_marks")] == [(1, "absent")]
    stream.trades(trade(4, 1.6), trade(6, 30))
    assert [(row["absent"], row["state"]) for row in stream.rows("gap_marks")] == [(0, "repaired")]
    rows = stream.rows("bronze_trades")
    assert [(row["trade_id"], row["mark"]) for row in rows] == [
        (1, ""), (2, ""), (5, ""), (3, "late"), (4, "late"), (6, "")
    ]  # fmt: skip


@pytest.mark.parametrize(("first", "last"), [(4, 3), (0, 4), (-5, 4)])
def test_a_range_that_holds_no_ids_settles_nothing(first: int, last: int) -> None:
    stream = Stream()
    stream.trades(trade(1, 0), trade(2, 1), trade(5, 2))
    stream.send("absent", msgspec.json.encode(AbsentTrades(SYMBOL, first, last)), BEGIN_NS + 20 * NS_PER_S)
    assert [refused.reason for refused in stream.reader.refused] == ["bad_envelope"]
    assert [(row["missing"], row["state"]) for row in stream.rows("gap_marks")] == [(2, "open")]


def test_a_corrected_trade_is_kept_beside_the_first_version() -> None:
    stream = Stream()
    stream.trades(trade(1, 0), trade(2, 1), trade(2, 1, price=50.0), trade(2, 1, price=50.0), trade(3, 2))
    assert [(row["trade_id"], row["price"]) for row in stream.rows("bronze_trades")] == [
        (1, 60_000.0), (2, 60_000.0), (3, 60_000.0)
    ]  # fmt: skip
    assert [(row["trade_id"], row["price"]) for row in stream.rows("bronze_trade_corrections")] == [(2, 50.0)]
    assert len(stream.folded) == 3, "only the first version is part of the features"


@given(trades=odd_streams())
@settings(max_examples=60, deadline=None)
def test_every_identity_has_one_row_and_the_features_fold_what_bronze_calls_in_order(
    trades: list[TradeEvent],
) -> None:
    stream = Stream()
    stream.trades(*trades)
    stored = stream.rows("bronze_trades")
    rows = stored + stream.rows("bronze_trade_corrections")
    found = [(row["trade_id"], row["price"], row["qty"], row["ts_event"]) for row in rows]
    assert len(found) == len(set(found))
    assert len(found) == len({(each.trade_id, each.ts_event_ns, each.price, each.qty) for each in trades})
    assert sorted(stream.folded) == sorted(row["kafka_offset"] for row in stored if row["mark"] != "late")


@given(trades=odd_streams())
@settings(max_examples=30, deadline=None)
def test_a_reader_and_an_engine_that_continue_from_a_checkpoint_decide_as_before(trades: list[TradeEvent]) -> None:
    whole, restarted = Stream(), Stream()
    whole.trades(*trades)
    half = len(trades) // 2
    restarted.trades(*trades[:half])
    state, rows = restarted.reader.save(0), restarted.reader.rows
    restarted.reader = BronzeReader()
    restarted.reader.load(state)
    restarted.reader.rows = rows
    saved = restarted.engine.save(0)
    restarted.engine = FeatureEngine()
    restarted.engine.load(saved)
    restarted.trades(*trades[half:])
    for name in ("bronze_trades", "bronze_trade_corrections", "gap_marks"):
        assert restarted.rows(name) == whole.rows(name)
    assert restarted.folded == whole.folded


@given(trades=odd_streams(), others=odd_streams())
@settings(max_examples=30, deadline=None)
def test_two_symbols_with_the_same_ids_have_the_rows_that_each_has_alone(
    trades: list[TradeEvent], others: list[TradeEvent]
) -> None:
    both, alone, other_alone = Stream(), Stream(), Stream()
    others = [msgspec.structs.replace(each, symbol="ETH/USD") for each in others]
    alone.trades(*trades)
    other_alone.trades(*others)
    for number in range(max(len(trades), len(others))):
        both.trades(*trades[number : number + 1], *others[number : number + 1])
    names = ("bronze_trades", "bronze_trade_corrections", "gap_marks")
    without_place = [
        [[{**row, "kafka_offset": 0} for row in stream.rows(name)] for name in names]
        for stream in (both, alone, other_alone)
    ]
    for together, one, other in zip(*without_place, strict=True):
        assert [row for row in together if row["symbol"] == SYMBOL] == one
        assert [row for row in together if row["symbol"] == "ETH/USD"] == other
    assert len(both.folded) == len(alone.folded) + len(other_alone.folded)


@pytest.mark.parametrize("trade_id", [0, -1, -FIRST_ID, -(2**63), 2**63])
def test_an_id_that_is_not_a_positive_int64_is_a_dead_letter_and_changes_nothing_else(trade_id: int) -> None:
    stream, whole = Stream(), Stream()
    whole.trades(*run_of(1, 4, 0), *run_of(5, 2, 5))
    stream.trades(*run_of(1, 4, 0), trade(trade_id, 4), *run_of(5, 2, 5))
    assert [each.reason for each in stream.reader.refused] == ["bad_trade_id"]
    assert [row["trade_id"] for row in stream.rows("bronze_trades")] == [1, 2, 3, 4, 5, 6]
    assert stream.rows("gap_marks") == whole.rows("gap_marks") == []
    assert len(stream.folded) == 6


def test_checkpoints_of_the_old_trade_ids_have_another_version() -> None:
    assert bronze.STATE_VERSION != "1"
    assert engine.STATE_VERSION.count("-") == 2, "the version of the trade ids is part of it"
