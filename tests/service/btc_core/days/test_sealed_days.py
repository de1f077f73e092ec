"""A day from the log through the real workers to its seal and its proof, with late trades, a restart and damage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from btc_core.clock import NS_PER_DAY, NS_PER_S, now_ns
from btc_core.days.bronze_proof import prove_bronze
from btc_core.days.seals import seal_of, sealing_blocker
from btc_core.days.silver_proof import prove
from btc_core.days.stored_days import count_rows, read_day
from btc_core.market.messages import Envelope
from btc_core.stores.kafka import ensure_topics
from btc_core.stores.questdb import QuestDB, write_rows
from btc_core.tables.arrow import digest
from btc_core.tables.catalogue import TABLES
from btc_core.utc_day import day_of
from streaming import bronze, features
from tests.service.past_day import DAY, MIDNIGHT_NS, day_of_symbol, lose_day, work_off
from tests.service.workers import publish, trade_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from btc_core.settings import Settings

SILVER, TRADES, TICKS = TABLES["silver_features"], TABLES["bronze_trades"], TABLES["bronze_ticks"]


@pytest.fixture(scope="module")
def stream(own_servers: Callable[..., Settings]) -> Settings:
    settings = own_servers("questdb", "kafka", "valkey")
    ensure_topics(settings)
    return settings


@pytest.fixture
def db(stream: Settings) -> Iterator[QuestDB]:
    with QuestDB(stream.questdb) as client:
        yield client


def test_a_streamed_day_is_proven_and_damage_is_found_and_healed(stream: Settings, db: QuestDB) -> None:
    symbol = day_of_symbol(stream, "PROOF", late={})
    first = prove_bronze(db, stream.kafka, DAY)
    assert first.log_has_day
    assert first.bars >= 60
    assert (first.rows_missing, first.rows_different) == (0, 0)
    proof = prove(db, symbol, DAY)
    assert proof.rows == 600 + 600, "quotes and trades after midnight"
    assert proof.stream_equals_replay, proof.examples
    assert (proof.rows_missing, proof.rows_different, proof.late_trades) == (0, 0, 0)

    whole = read_day(db, SILVER, DAY)
    rows = whole.filter(np.asarray(whole["symbol"]) == symbol)
    hurt = rows.slice(100, 3)
    place = hurt.schema.names.index("ma_5")
    write_rows(db, SILVER, hurt.set_column(place, "ma_5", [np.asarray(hurt["ma_5"]) + 1.0]))
    damaged = prove(db, symbol, DAY)
    assert (damaged.rows_different, damaged.rows_unexplained) == (3, 3)
    assert damaged.max_abs_diff == {"ma_5": pytest.approx(1.0)}
    assert {example["column"] for example in damaged.examples} == {"ma_5"}
    assert prove(db, symbol, DAY).stream_equals_replay, "the proof wrote the right rows"
    assert read_day(db, SILVER, DAY).equals(whole)

    lose_day(db, SILVER, DAY)
    emptied = prove(db, symbol, DAY)
    assert emptied.rows_missing == emptied.rows == 1_200
    assert prove(db, symbol, DAY).rows_missing == 0


def test_late_trades_join_at_their_place_and_explain_what_differs(stream: Settings, db: QuestDB) -> None:
    symbol = day_of_symbol(stream, "LATE", late={700: 40, 800: 3})
    assert prove_bronze(db, stream.kafka, DAY).rows_missing == 0
    proof = prove(db, symbol, DAY)
    assert proof.late_trades == 4
    assert proof.rows == 1_200
    assert proof.rows_missing == 4, "the stream gives late trades no row"
    assert proof.rows_different > 0, "volumes after them change"
    assert proof.stream_equals_replay, proof.examples
    again = prove(db, symbol, DAY)
    assert (again.rows_missing, again.rows_different, again.rows_unexplained) == (0, 0, 0)


def test_bronze_rows_that_are_lost_are_written_again_from_the_log(stream: Settings, db: QuestDB) -> None:
    before = {table.name: digest(read_day(db, table, DAY)) for table in (TICKS, TRADES)}
    rows = count_rows(db, TICKS, DAY) + count_rows(db, TRADES, DAY)
    for table in (TICKS, TRADES):
        lose_day(db, table, DAY)
    lost = prove_bronze(db, stream.kafka, DAY)
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


def _one(row: dict[str, object]) -> object:
    import pyarrow as pa

    from btc_core.tables.arrow import arrow_schema

    schema = arrow_schema(TABLES["gap_marks"])
    return pa.table({field.name: pa.array([row[field.name]], field.type) for field in schema})
