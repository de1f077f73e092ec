"""A day of two markets with order books, one of which leads the other, from the log through the workers to its proof."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from btc_core.clock import NS_PER_S
from btc_core.days.bronze_proof import prove_bronze
from btc_core.days.day_books import books_around
from btc_core.days.silver_proof import prove
from btc_core.days.stored_days import read_day
from btc_core.features.catalogue import DEPTH_FEATURES, LEADER_FEATURES
from btc_core.stores.questdb import write_rows
from btc_core.stores.s3 import ObjectStore
from btc_core.tables.catalogue import TABLES
from streaming import bronze, features
from tests.book_frames import BookTape
from tests.service.past_day import DAY, MIDNIGHT_NS, keep_nothing, work_off
from tests.service.workers import publish, unique

if TYPE_CHECKING:
    import pyarrow as pa

    from btc_core.market.messages import Envelope
    from btc_core.settings import Settings
    from btc_core.stores.questdb import QuestDB

SILVER = TABLES["silver_features"]


def streamed(settings: Settings, leader: str, follower: str) -> Settings:
    """Send the messages of both markets through the workers, which restart in the middle; returns their settings."""
    exchange = settings.exchange.model_copy(update={"symbols": (leader, follower)})
    settings = settings.model_copy(update={"leader": leader, "exchange": exchange})
    envelopes: list[Envelope] = []
    for seed, symbol in enumerate((leader, follower)):
        tape = BookTape(seed, symbol)
        tape.now_ns = MIDNIGHT_NS - 200 * NS_PER_S
        tape.run(800, pace_s=0.4)
        tape.update(wrong_checksum=True)
        envelopes += tape.run(900, pace_s=0.4).envelopes
    envelopes.sort(key=lambda envelope: envelope.ts_recv_ns)
    for part in (envelopes[:1_500], envelopes[1_500:]):
        publish(settings, settings.log_key(follower), part)
        work_off(settings, bronze.build, features.build)
    return settings


def silver_of(db: QuestDB, symbol: str) -> pa.Table:
    rows = read_day(db, SILVER, DAY)
    return rows.filter(np.asarray(rows["symbol"]) == symbol)


def known_share(rows: pa.Table, name: str) -> float:
    return float(np.isfinite(rows[name].to_numpy().astype(float)).mean())


def test_a_day_with_order_books_and_a_leader_equals_its_replay(stream: Settings, db: QuestDB) -> None:
    leader, follower = unique("LEAD"), unique("FOLLOW")
    settings = streamed(stream, leader, follower)
    prove_bronze(db, settings.kafka, DAY, keep_nothing)
    with ObjectStore(settings.store) as store:
        books = books_around(db, settings.kafka, store, DAY)
    assert books is not None
    for symbol in (leader, follower):
        proof = prove(db, symbol, DAY, keep_nothing, books=books[symbol], leader=leader)
        assert proof.rows > 300
        assert proof.stream_equals_replay, proof.examples
        assert (proof.rows_missing, proof.rows_different) == (0, 0)
        assert proof.books_proven
        assert proof.leader_proven
    rows = silver_of(db, follower)
    assert known_share(rows, "book_imbalance") > 0.5
    assert known_share(rows, "book_resilience_bid") > 0.5
    assert known_share(rows, "lead_return_30s_bps") > 0.9
    assert known_share(silver_of(db, leader), "lead_return_30s_bps") == 0.0

    hurt = rows.slice(50, 3)
    for name in ("book_imbalance", "lead_return_5s_bps"):
        place = hurt.schema.names.index(name)
        hurt = hurt.set_column(place, name, [np.full(3, 7.0)])
    write_rows(db, SILVER, hurt)
    unproven = prove(db, follower, DAY, keep_nothing, leader="NONE/USD")
    assert (unproven.rows_different, unproven.books_proven, unproven.leader_proven) == (0, False, False)
    damaged = prove(db, follower, DAY, keep_nothing, books=books[follower], leader=leader)
    assert damaged.rows_different == 3
    assert set(damaged.max_abs_diff) == {"book_imbalance", "lead_return_5s_bps"}
    assert silver_of(db, follower).equals(rows), "the proof wrote the right rows"
    assert set(rows.schema.names) >= {*DEPTH_FEATURES, *LEADER_FEATURES}
