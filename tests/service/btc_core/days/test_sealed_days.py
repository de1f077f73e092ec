"""A day from the log through the real workers to its seal and its proof, with late trades, a restart and damage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from btc_cli import seals as seals_command
from btc_core.clock import NS_PER_DAY, NS_PER_S, now_ns
from btc_core.days.bronze_proof import prove_bronze
from btc_core.days.replaced import keeper, replaced_rows, undo
from btc_core.days.seals import seal_of, sealing_blocker
from btc_core.days.silver_proof import prove
from btc_core.days.stored_days import count_rows, read_day
from btc_core.errors import InvalidInput
from btc_core.market.messages import Envelope
from btc_core.stores.questdb import QuestDB, write_rows
from btc_core.stores.s3 import ObjectStore
from btc_core.tables.arrow import digest
from btc_core.tables.catalogue import TABLES
from btc_core.utc_day import day_of
from streaming import bronze, features
from tests.service.past_day import DAY, MIDNIGHT_NS, day_of_symbol, keep_nothing, lose_day, with_odd_ids, work_off
from tests.service.workers import publish, trade_frame

if TYPE_CHECKING:
    import pyarrow as pa

    from btc_core.settings import Settings
    from stack.runtime import Stack

SILVER, TRADES, TICKS = TABLES["silver_features"], TABLES["bronze_trades"], TABLES["bronze_ticks"]


def test_a_streamed_day_is_proven_and_damage_is_found_and_healed(stream: Settings, db: QuestDB) -> None:
    symbol = day_of_symbol(stream, "PROOF", late={})
    first = prove_bronze(db, stream.kafka, DAY, keep_nothing)
    assert first.log_has_day
    assert first.bars >= 60
    assert (first.rows_missing, first.rows_different, first.nothing_compared) == (0, 0, "")
    years_before = day_of(MIDNIGHT_NS - 900 * NS_PER_DAY)
    before = prove_bronze(db, stream.kafka, years_before, keep_nothing)
    assert not before.log_has_day, "the log begins at its first message, which came later"
    assert (
        before.nothing_compared
        == f"{years_before}: the log has no message of the day, and it has no archive, so nothing was compared"
    )
    proof = prove(db, symbol, DAY, keep_nothing)
    assert proof.rows == 600 + 600, "quotes and trades after midnight"
    assert proof.stream_equals_replay, proof.examples
    assert (proof.rows_missing, proof.rows_different, proof.late_trades) == (0, 0, 0)
    assert proof.rows_streamed == proof.rows

    whole = read_day(db, SILVER, DAY)
    rows = whole.filter(np.asarray(whole["symbol"]) == symbol)
    hurt = rows.slice(100, 3)
    place = hurt.schema.names.index("ma_5")
    write_rows(db, SILVER, hurt.set_column(place, "ma_5", [np.asarray(hurt["ma_5"]) + 1.0]))
    damaged = prove(db, symbol, DAY, keep_nothing)
    assert (damaged.rows_different, damaged.rows_unexplained) == (3, 3)
    assert damaged.max_abs_diff == {"ma_5": pytest.approx(1.0)}
    assert {example["column"] for example in damaged.examples} == {"ma_5"}
    assert prove(db, symbol, DAY, keep_nothing).stream_equals_replay, "the proof wrote the right rows"
    assert read_day(db, SILVER, DAY).equals(whole)

    lose_day(db, SILVER, DAY)
    emptied = prove(db, symbol, DAY, keep_nothing)
    assert emptied.rows_missing == emptied.rows == 1_200
    assert prove(db, symbol, DAY, keep_nothing).rows_missing == 0


def test_late_trades_join_at_their_place_and_explain_what_differs(stream: Settings, db: QuestDB) -> None:
    symbol = day_of_symbol(stream, "LATE", late={700: 40, 800: 3})
    assert prove_bronze(db, stream.kafka, DAY, keep_nothing).rows_missing == 0
    proof = prove(db, symbol, DAY, keep_nothing)
    assert proof.late_trades == 4
    assert proof.rows == 1_200
    assert proof.rows_missing == 4, "the stream gives late trades no row"
    assert proof.rows_different > 0, "volumes after them change"
    assert proof.stream_equals_replay, proof.examples
    again = prove(db, symbol, DAY, keep_nothing)
    assert (again.rows_missing, again.rows_different, again.rows_unexplained) == (0, 0, 0)


def test_bronze_rows_that_are_lost_are_written_again_from_the_log(stream: Settings, db: QuestDB) -> None:
    before = {table.name: digest(read_day(db, table, DAY)) for table in (TICKS, TRADES)}
    rows = count_rows(db, TICKS, DAY) + count_rows(db, TRADES, DAY)
    for table in (TICKS, TRADES):
        lose_day(db, table, DAY)
    lost = prove_bronze(db, stream.kafka, DAY, keep_nothing)
    assert lost.rows_missing == lost.rows == rows
    assert {table.name: digest(read_day(db, table, DAY)) for table in (TICKS, TRADES)} == before


def test_a_day_is_sealed_only_when_it_is_over_worked_off_and_whole(stream: Settings, db: QuestDB) -> None:
    day_of_symbol(stream, "SEAL", late={})
    now = now_ns()
    assert "grace" in sealing_blocker(stream, db, day_of(now), now)
    assert sealing_blocker(stream, db, DAY, now) == ""
    seal = seal_of(db, DAY)
    assert seal == seal_of(db, DAY)
    assert seal.rows["bronze_ticks"] == count_rows(db, TICKS, DAY)

    symbol = f"MORE{now_ns()}/USD"
    end_ns = MIDNIGHT_NS + NS_PER_DAY
    publish(
        stream, symbol, [Envelope(end_ns - 5, 1, 0, "trade", "ws", trade_frame(symbol, end_ns - NS_PER_S, 60_000.0, 1))]
    )
    assert "is needed" in sealing_blocker(stream, db, DAY, now)
    work_off(stream, bronze.build, features.build)
    assert seal_of(db, DAY).id != seal.id, "one more trade is another day"

    gaps = TABLES["gap_marks"]
    mark = {
        "ts_event": end_ns - 1,
        "ts_recv": end_ns,
        "symbol": symbol,
        "first_id": 2,
        "last_id": 3,
        "missing": 2,
        "absent": 0,
        "state": "open",
    }
    write_rows(db, gaps, _one(mark))
    assert "may still be repaired" in sealing_blocker(stream, db, DAY, end_ns + NS_PER_DAY // 6)
    assert sealing_blocker(stream, db, DAY, now) == "", "a gap does not hold the seal for ever"
    write_rows(db, gaps, _one(mark | {"state": "absent"}))
    assert seal_of(db, DAY).open_gaps == 0


def test_a_day_whose_ids_jump_and_restart_keeps_every_row_that_the_stream_wrote(stream: Settings, db: QuestDB) -> None:
    symbol = f"ODD{now_ns()}/USD"
    envelopes = with_odd_ids(symbol, DAY)
    for part in (envelopes[:900], envelopes[900:]):
        publish(stream, symbol, part)
        work_off(stream, bronze.build, features.build)
    bronze_proof = prove_bronze(db, stream.kafka, DAY, keep_nothing)
    assert (bronze_proof.rows_missing, bronze_proof.rows_different) == (0, 0)
    marks = db.execute(
        f"SELECT mark, count() FROM bronze_trades WHERE symbol = '{symbol}' AND mark != '' ORDER BY mark"
    )
    assert marks == [["epoch", 1], ["late", 1], ["outlier", 1]]
    assert db.execute(f"SELECT count() FROM bronze_trades WHERE symbol = '{symbol}'") == [[600]]
    assert db.execute(f"SELECT price FROM bronze_trade_corrections WHERE symbol = '{symbol}'") == [[1.0]]
    proof = prove(db, symbol, DAY, keep_nothing)
    assert proof.stream_equals_replay, proof.examples
    assert (proof.rows, proof.late_trades, proof.rows_missing) == (600, 1, 1)
    assert proof.rows_different <= 2 * (600 - 380), "only rows after the late trade change"
    assert prove(db, symbol, DAY, keep_nothing).rows_different == 0


def test_a_proof_that_would_change_most_of_a_day_leaves_it_as_it_is(
    stream: Settings, db: QuestDB, own_stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    symbol = day_of_symbol(stream, "REFUSE", late={})
    prove_bronze(db, stream.kafka, DAY, keep_nothing)  # it writes the minute bars that the replay needs
    right = silver_of(db, symbol)
    place = right.schema.names.index("ma_5")
    write_rows(db, SILVER, right.set_column(place, "ma_5", [np.asarray(right["ma_5"]) + 1.0]))
    wrong = digest(silver_of(db, symbol))
    seal = seal_of(db, DAY).id
    with ObjectStore(stream.store) as store:
        keep = keeper(store, DAY, seal)
        refused = prove(db, symbol, DAY, keep)
        assert (
            "the replay changes 1200 of 1200 stored feature rows (100%); at most 20% are plausible" in refused.refusal
        )
        assert digest(silver_of(db, symbol)) == wrong
        assert replaced_rows(store, DAY) == []

        insisted = prove(db, symbol, DAY, keep, insist=True)
        assert (insisted.refusal, insisted.rows_different) == ("", 1_200)
        assert digest(silver_of(db, symbol)) == digest(right)
        found = replaced_rows(store, DAY)
        assert {(each.table, each.seal) for each in found} == {("silver_features", seal)}
        assert sum(each.rows for each in found) == 1_200

        seals_command.seals(DAY, own_stack.layout.data_dir)
        shown = capsys.readouterr().out
        assert f"\n{seal}  " in shown
        assert "rows of silver_features replaced" in shown
        seals_command.undo_seal(DAY, seal, own_stack.layout.data_dir)
        assert f"1200 rows of {DAY} written back" in capsys.readouterr().out
        assert digest(silver_of(db, symbol)) == wrong, "the command wrote the old rows back"
        assert undo(db, store, DAY, seal) == 1_200
        assert digest(silver_of(db, symbol)) == wrong, "the old rows are back"
        with pytest.raises(InvalidInput, match="has replaced no row"):
            undo(db, store, DAY, "0" * 12)
        prove(db, symbol, DAY, keep, insist=True)


def silver_of(db: QuestDB, symbol: str) -> pa.Table:
    whole = read_day(db, SILVER, DAY)
    return whole.filter(np.asarray(whole["symbol"]) == symbol)


def test_bronze_rows_that_differ_from_another_log_are_not_replaced(stream: Settings, db: QuestDB) -> None:
    symbol = day_of_symbol(stream, "OTHERLOG", late={})
    whole = read_day(db, TICKS, DAY)
    right = whole.filter(np.asarray(whole["symbol"]) == symbol)
    place = right.schema.names.index("bid_qty")
    wrong = right.set_column(place, "bid_qty", [np.asarray(right["bid_qty"]) + 1.0])
    write_rows(db, TICKS, wrong)
    kept: list[int] = []
    refused = prove_bronze(db, stream.kafka, DAY, lambda _, rows: kept.append(len(rows)))
    assert "the log has other values for 600 of" in refused.refusal
    assert kept == []
    assert db.execute(f"SELECT min(bid_qty) FROM bronze_ticks WHERE symbol = '{symbol}' AND ts_event >= '{DAY}'") == [
        [2.5]
    ]
    insisted = prove_bronze(db, stream.kafka, DAY, lambda _, rows: kept.append(len(rows)), insist=True)
    assert (insisted.rows_different, sum(kept)) == (600, 600)
    assert prove_bronze(db, stream.kafka, DAY, keep_nothing).rows_different == 0


def _one(row: dict[str, object]) -> object:
    import pyarrow as pa

    from btc_core.tables.arrow import arrow_schema

    schema = arrow_schema(TABLES["gap_marks"])
    return pa.table({field.name: pa.array([row[field.name]], field.type) for field in schema})
