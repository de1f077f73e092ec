"""The bronze and features workers with real servers: nothing lost, nothing twice, and the rows equal those of a replay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from btc_core.clock import NS_PER_S, column_ns, now_ns
from btc_core.market.messages import DeadLetter, Envelope
from btc_core.names import DEADLETTERS_TOPIC, EVENTS_TOPIC
from btc_core.stores.kafka import read_topic
from btc_core.stores.questdb import QuestDB
from btc_core.stores.redis_connection import connect
from btc_core.stores.redis_rows import feature_key, read_features, update_channel
from streaming import bronze, features
from streaming.publisher import Publisher
from tests.real_alerts import Looks
from tests.service.workers import (
    Running,
    count,
    market,
    publish,
    quote_frame,
    replayed,
    same_bits,
    streamed,
    trade_frame,
    unique,
)
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.settings import Settings

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def stream(servers: Callable[..., Settings]) -> Settings:
    return servers("questdb", "kafka", "valkey")


def test_streamed_rows_equal_replayed_rows_to_the_last_bit(stream: Settings) -> None:
    symbol = unique("EQUAL")
    publish(stream, symbol, list(market(symbol, 60, seed=1)))
    with QuestDB(stream.questdb) as db, Running(features.build(stream)):
        wait_for(lambda: count(db, "silver_features", symbol) == 60 * 14, "silver rows")
        assert same_bits(streamed(db, symbol), replayed(stream, symbol))


def test_a_restarted_worker_writes_the_rows_of_one_that_never_stopped(stream: Settings) -> None:
    symbol = unique("RESTART")
    envelopes = list(market(symbol, 60, seed=2))
    half = len(envelopes) // 2
    with QuestDB(stream.questdb) as db:
        publish(stream, symbol, envelopes[:half])
        with Running(features.build(stream)):
            wait_for(lambda: count(db, "silver_features", symbol) > 0, "rows before the restart")
        publish(stream, symbol, envelopes[half:])
        with Running(features.build(stream)):
            wait_for(lambda: count(db, "silver_features", symbol) == 60 * 14, "all rows after the restart")
        assert same_bits(streamed(db, symbol), replayed(stream, symbol))


def test_every_trade_is_in_bronze_once_although_a_snapshot_repeats_it_and_a_gap_is_marked(stream: Settings) -> None:
    symbol = unique("ONCE")
    start_ns = now_ns() - 60 * NS_PER_S
    sent = [(1, 2, 3), (3, 2), (6, 7), (5,), (4,), (7, 8)]
    envelopes = [
        Envelope(now_ns(), 1, number, "trade", "ws", trade_frame(symbol, start_ns + ids[0] * NS_PER_S, 60_000.0, *ids))
        for number, ids in enumerate(sent)
    ]
    publish(stream, symbol, envelopes)
    with QuestDB(stream.questdb) as db, Running(bronze.build(stream)):
        wait_for(lambda: count(db, "bronze_trades", symbol) >= 8, "trades")
        ids = db.execute(
            f"SELECT trade_id, kafka_offset FROM bronze_trades WHERE symbol = '{symbol}' ORDER BY trade_id"
        )
        assert [row[0] for row in ids] == [1, 2, 3, 4, 5, 6, 7, 8]
        assert ids[1][1] == ids[0][1], "the row of a trade keeps the place in the log where it was first seen"
        marks = f"SELECT first_id, last_id, state FROM gap_marks WHERE symbol = '{symbol}'"
        wait_for(lambda: db.execute(marks) == [[4, 5, "repaired"]], "the gap marked and repaired")


@pytest.mark.causes("NothingStored", "TradeIdsOdd")
def test_trades_that_only_come_again_or_with_another_price_are_reported(stream: Settings) -> None:
    symbol, at_ns = unique("AGAIN"), now_ns() - 60 * NS_PER_S

    def send(price: float, *ids: int) -> None:
        publish(stream, symbol, [Envelope(now_ns(), 1, 1, "trade", "ws", trade_frame(symbol, at_ns, price, *ids))])

    with QuestDB(stream.questdb) as db, Running(bronze.build(stream)):
        send(60_000.0, *range(1, 31))
        wait_for(lambda: count(db, "bronze_trades", symbol) == 30, "trades")
        looks = Looks()
        send(60_000.0, *range(1, 31))
        wait_for(lambda: looks.find("NothingStored", f"all 30 trades of {symbol}"), "the repetitions")
        assert not looks.find("TradeIdsOdd", symbol)
        send(60_001.0, 30)
        wait_for(lambda: looks.find("TradeIdsOdd", symbol), "the corrected trade")


def test_bad_entries_become_dead_letters_with_their_reason_and_good_ones_are_kept(stream: Settings) -> None:
    symbol = unique("BAD")
    now = now_ns()
    good = quote_frame(symbol, now, 60_000.0)
    bad = {
        "bad_price": quote_frame(symbol, now, -1.0),
        "crossed_quote": good.replace(b'"ask":60000.1', b'"ask":59999.9'),
        "bad_field": good.replace(b'"bid":60000.0', b'"bid":null'),
        "malformed_json": good[:-5],
        "future_timestamp": quote_frame(symbol, now + 7_200 * NS_PER_S, 60_000.0),
    }
    envelopes = [Envelope(now, 1, number, "ticker", "ws", raw) for number, raw in enumerate([*bad.values(), good])]
    publish(stream, symbol, envelopes)
    publisher = Publisher(stream.kafka, "test")
    publisher.publish(EVENTS_TOPIC, symbol, b"not an envelope", now)
    publisher.flush()
    with QuestDB(stream.questdb) as db, Running(bronze.build(stream)):
        wait_for(lambda: count(db, "bronze_ticks", symbol) == 1, "the good quote")
        wait_for(lambda: set(reasons(stream, symbol)) >= {*bad, "bad_envelope"}, "dead letters")


def reasons(settings: Settings, symbol: str) -> list[str]:
    """Reasons of all dead letters about a symbol, or about the message that is not an envelope."""
    found = []
    for value, *_ in read_topic(settings.kafka, DEADLETTERS_TOPIC):
        letter = msgspec.json.decode(value, type=DeadLetter)
        if letter.topic != EVENTS_TOPIC:  # written by ingest in another test, for frames that never reached the log
            continue
        assert letter.offset >= 0
        if symbol.encode() in letter.raw or b"not an envelope" in letter.raw:
            found.append(letter.reason)
    return found


def test_redis_holds_the_newest_row_with_its_ttl_and_announces_it(stream: Settings) -> None:
    symbol = unique("NEWEST")
    client = connect(stream.redis)
    listener = client.pubsub()
    listener.subscribe(update_channel(feature_key(symbol)))
    publish(stream, symbol, list(market(symbol, 5, seed=3)))
    with QuestDB(stream.questdb) as db, Running(features.build(stream)):
        wait_for(lambda: count(db, "silver_features", symbol) == 5 * 14, "silver rows")
    row = read_features(client, symbol)
    assert row is not None
    with QuestDB(stream.questdb) as db:
        newest = db.execute(
            f"SELECT bid, kafka_offset FROM silver_features WHERE symbol = '{symbol}' ORDER BY kafka_offset DESC LIMIT 1"
        )
    assert newest == [[row.bid, row.offset]]
    assert 0 < int(client.ttl(feature_key(symbol))) <= stream.redis.ttl_s
    announced = [message["data"] for message in iter(lambda: listener.get_message(timeout=1.0), None)]
    assert str(row.ts_event_ns).encode() in announced


def test_gold_bars_are_aggregates_of_the_silver_rows(stream: Settings) -> None:
    symbol = unique("GOLD")
    publish(stream, symbol, list(market(symbol, 130, seed=4)))
    with QuestDB(stream.questdb) as db, Running(features.build(stream)):
        wait_for(lambda: count(db, "silver_features", symbol) == 130 * 14, "silver rows")
        wait_for(
            lambda: sum(row[0] + row[1] for row in bars(db, symbol, "trades, quotes")) == 130 * 14, "refreshed bars"
        )
        silver = db.query(
            f"SELECT ts_event, trade_price, trade_qty FROM silver_features WHERE symbol = '{symbol}' "
            "AND kind = 'trade' ORDER BY ts_event, kafka_offset, frame_item"
        )
        minutes = column_ns(silver["ts_event"]) // (60 * NS_PER_S)
        prices, sizes = silver["trade_price"].to_numpy(), silver["trade_qty"].to_numpy()
        for minute, bar in zip(
            np.unique(minutes), bars(db, symbol, "open, high, low, close, volume, vwap, trades"), strict=True
        ):
            price, size = prices[minutes == minute], sizes[minutes == minute]
            expected = [
                price[0],
                price.max(),
                price.min(),
                price[-1],
                size.sum(),
                price @ size / size.sum(),
                len(price),
            ]
            assert bar == pytest.approx(expected, rel=1e-12)


def bars(db: QuestDB, symbol: str, columns: str) -> list[list[float]]:
    return db.execute(f"SELECT {columns} FROM gold_1min WHERE symbol = '{symbol}' ORDER BY ts")
