"""A day from the log through the real workers to its seal and its proof, with late trades, a restart and damage."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from btc_core.bronze_proof import prove_bronze
from btc_core.clock import NS_PER_DAY, NS_PER_MIN, NS_PER_S, from_ns, now_ns
from btc_core.days import count_rows, day_ns, day_of, digest, drop_day, read_day, write_rows
from btc_core.errors import ServiceError
from btc_core.log import Envelope, ensure_topics, passed
from btc_core.proof import prove
from btc_core.questdb_client import QuestDB
from btc_core.seals import GROUPS, seal_of, why_open
from btc_core.tables import TABLES
from streaming import bronze, features
from tests.service.workers import publish, quote_frame, trade_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from btc_core.settings import Settings
    from streaming.worker import Worker

PATIENCE_S = 60.0
SILVER, TRADES, TICKS = TABLES["silver_features"], TABLES["bronze_trades"], TABLES["bronze_ticks"]
DAY = day_of(now_ns() - 2 * NS_PER_DAY)
MIDNIGHT_NS = day_ns(DAY)


def ohlc(symbol: str, begin_ns: int, minutes: int) -> bytes:
    rng = np.random.default_rng(3)
    data = []
    for minute in range(minutes):
        close = 60_000.0 + float(rng.integers(-50, 50)) / 10
        data.append(
            {"symbol": symbol, "open": close, "high": close + 1.0, "low": close - 1.0, "close": close, "volume": 1.5,
             "interval_begin": from_ns(begin_ns + minute * NS_PER_MIN), "interval": 1}
        )  # fmt: skip
    return msgspec.json.encode({"channel": "ohlc", "type": "snapshot", "data": data})


def evening_and_morning(symbol: str, late: dict[int, int]) -> list[Envelope]:
    """Ten minutes around midnight: bars, then two quotes a second, a trade every second; `late` trades come steps later."""
    rng = np.random.default_rng(9)
    start_ns = MIDNIGHT_NS - 300 * NS_PER_S
    found = [Envelope(start_ns, 1, 0, "ohlc", "rest", ohlc(symbol, start_ns - 60 * NS_PER_MIN, 60))]
    bid = 60_000.0
    waiting: dict[int, bytes] = {}
    for step in range(1_200):
        ts_ns = start_ns + step * NS_PER_S // 2 + int(rng.integers(1, 400_000)) * 1_000
        bid = round(bid + float(rng.integers(-5, 6)) / 10, 1)
        found.append(Envelope(ts_ns + 5_000, 1, step, "ticker", "ws", quote_frame(symbol, ts_ns, bid)))
        if step % 2 == 0:
            raw = trade_frame(symbol, ts_ns, bid, step + 1, step + 2)
            if step in late:
                waiting[step + late[step]] = raw
            else:
                found.append(Envelope(ts_ns + 6_000, 1, step, "trade", "ws", raw))
        if step in waiting:
            found.append(Envelope(ts_ns + 7_000, 1, step, "trade", "rest", waiting.pop(step)))
    return found


def behind(settings: Settings) -> str:
    try:
        return passed(settings.kafka, GROUPS, now_ns())
    except ServiceError as error:  # a new broker has no coordinator of a new group yet
        return str(error)


def work_off(settings: Settings, *builders: Callable[[Settings], Worker]) -> None:
    """Run workers until they have committed the whole log."""
    workers = [build(settings) for build in builders]
    threads = [threading.Thread(target=worker.run) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        deadline_s = time.monotonic() + PATIENCE_S
        while why := behind(settings):
            assert time.monotonic() < deadline_s, why
            time.sleep(0.1)
    finally:
        for worker in workers:
            worker.stop()
        for thread in threads:
            thread.join(PATIENCE_S)


@pytest.fixture(scope="module")
def stream(servers: Callable[..., Settings]) -> Settings:
    settings = servers("questdb", "kafka", "valkey")
    ensure_topics(settings)
    return settings


@pytest.fixture
def db(stream: Settings) -> Iterator[QuestDB]:
    with QuestDB(stream.questdb) as client:
        yield client


def day_of_symbol(stream: Settings, name: str, late: dict[int, int]) -> str:
    """A market whose day went through both workers, the features worker restarted in the middle of it."""
    symbol = f"{name}{now_ns()}/USD"
    envelopes = evening_and_morning(symbol, late)
    publish(stream, symbol, envelopes[:900])
    work_off(stream, bronze.build, features.build)
    publish(stream, symbol, envelopes[900:])
    work_off(stream, bronze.build, features.build)
    return symbol


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

    drop_day(db, SILVER, DAY)
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
        drop_day(db, table, DAY)
    lost = prove_bronze(db, stream.kafka, DAY)
    assert lost.rows_missing == lost.rows == rows
    assert {table.name: digest(read_day(db, table, DAY)) for table in (TICKS, TRADES)} == before


def test_a_day_is_sealed_only_when_it_is_over_worked_off_and_whole(stream: Settings, db: QuestDB) -> None:
    day_of_symbol(stream, "SEAL", late={})
    now = now_ns()
    assert "grace" in why_open(stream, db, day_of(now), now)
    assert why_open(stream, db, DAY, now) == ""
    seal = seal_of(db, DAY)
    assert seal == seal_of(db, DAY)
    assert seal.rows["bronze_ticks"] == count_rows(db, TICKS, DAY)

    symbol = f"MORE{now_ns()}/USD"
    end_ns = MIDNIGHT_NS + NS_PER_DAY
    publish(
        stream, symbol, [Envelope(end_ns - 5, 1, 0, "trade", "ws", trade_frame(symbol, end_ns - NS_PER_S, 60_000.0, 1))]
    )
    assert "is needed" in why_open(stream, db, DAY, now)
    work_off(stream, bronze.build, features.build)
    assert seal_of(db, DAY).id != seal.id, "one more trade is another day"

    gaps = TABLES["gap_marks"]
    mark = {"ts_event": end_ns - 1, "symbol": symbol, "first_id": 2, "last_id": 3, "state": "open"}
    write_rows(db, gaps, _one(mark))
    assert "may still be repaired" in why_open(stream, db, DAY, end_ns + NS_PER_DAY // 6)
    assert why_open(stream, db, DAY, now) == "", "a gap does not hold the seal for ever"
    write_rows(db, gaps, _one(mark | {"state": "absent"}))
    assert seal_of(db, DAY).open_gaps == 0


def _one(row: dict[str, object]) -> object:
    import pyarrow as pa

    from btc_core.days import arrow_schema

    schema = arrow_schema(TABLES["gap_marks"])
    return pa.table({field.name: pa.array([row[field.name]], field.type) for field in schema})
