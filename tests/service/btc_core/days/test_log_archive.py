"""The archive of the log on real servers: whole, proven, replayed, and what damage, outages and retention do to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from btc_cli.doctor import check_components
from btc_core.clock import NS_PER_DAY, NS_PER_S, now_ns
from btc_core.days import log_archive
from btc_core.days.archive_proof import days_without_archive, prove_archive
from btc_core.days.archive_replay import StoredRows, archives_around, replay_archived_day
from btc_core.days.bronze_proof import prove_bronze
from btc_core.days.log_archive import LogArchive, archive_day, manifest_key, read_archive, read_manifest
from btc_core.days.silver_proof import prove
from btc_core.days.stored_days import read_day
from btc_core.errors import InvalidInput, StoreError
from btc_core.features.file_replay import replay_file
from btc_core.market.messages import Envelope
from btc_core.names import EVENTS_TOPIC
from btc_core.stores.kafka import read_all
from btc_core.stores.kafka_connection import connection
from btc_core.stores.questdb import QuestDB, write_rows
from btc_core.stores.s3 import ObjectStore
from btc_core.tables.arrow import digest
from btc_core.tables.catalogue import TABLES
from btc_core.utc_day import day_ns, day_of
from streaming import bronze, features
from tests.service.past_day import DAY, MIDNIGHT_NS, day_of_symbol, keep_nothing, lose_day, work_off
from tests.service.workers import publish, quote_frame, trade_frame

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from btc_core.exchanges.recorded_lines import RecordedMessage
    from btc_core.settings import Settings
    from stack.runtime import Stack

EVENING = day_of(day_ns(DAY) - 1)
OTHER_DAY = day_of(now_ns() - NS_PER_DAY)
"""A later day with few messages, for tests that do without the workers."""
BOOK = b'{"channel":"book","type":"update","data":[]}'


@pytest.fixture
def store(stream: Settings) -> Iterator[ObjectStore]:
    with ObjectStore(stream.store) as client:
        yield client


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_archive, "PART_TEXT_BYTES", 20_000)


def archived(store: ObjectStore, archive: LogArchive) -> list[RecordedMessage]:
    return [message for each in archive.partitions for message in read_archive(store, archive, each.partition)]


def in_the_log(stream: Settings, day: str) -> list[tuple[Envelope, int, int]]:
    begin_ns = day_ns(day)
    return [message for message in read_all(stream.kafka) if begin_ns <= message[0].ts_recv_ns < begin_ns + NS_PER_DAY]


def publish_books(stream: Settings, day: str, messages: int, after_s: int = 0) -> None:
    """Book frames and a line break in one of them, which only an archive keeps."""
    begin_ns = day_ns(day) + after_s * NS_PER_S
    envelopes = [
        Envelope(begin_ns + step, 1, step, "book", "ws", BOOK + b"\n" * (step == 0), book_ok=True)
        for step in range(messages)
    ]
    publish(stream, "BOOKS/USD", envelopes)


def finding_of_doctor(stack: Stack) -> str:
    """What `btc doctor` says about the archives."""
    (problem,) = (each.problem for each in check_components(stack) if each.subject == "archives of the log")
    return problem


@pytest.mark.usefixtures("small_parts")
def test_a_day_is_archived_whole_once_and_its_rows_are_those_of_the_stream(
    stream: Settings, db: QuestDB, store: ObjectStore, own_stack: Stack, tmp_path: Path
) -> None:
    symbol = day_of_symbol(stream, "ARCHIVE", late={})
    publish_books(stream, DAY, 10)
    assert days_without_archive(stream, db, store, now_ns()) == [EVENING, DAY]
    assert finding_of_doctor(own_stack).startswith(f"{EVENING}, {DAY} have none")
    made = archive_day(store, stream.kafka, DAY)
    archive_day(store, stream.kafka, EVENING)
    assert days_without_archive(stream, db, store, now_ns()) == []
    assert finding_of_doctor(own_stack) == ""
    assert made.written
    archive = read_manifest(store, DAY)
    assert archive is not None
    assert archive == made.archive
    assert len(archive.parts) > 5
    assert all(part.text_bytes < 30_000 for part in archive.parts)
    expected = in_the_log(stream, DAY)
    found = archived(store, archive)
    assert [(m.envelope.ts_recv_ns, m.envelope.origin, m.partition, m.offset) for m in found] == [
        (envelope.ts_recv_ns, envelope.origin, partition, offset) for envelope, partition, offset in expected
    ]
    assert [m.envelope.raw.strip() for m in found] == [envelope.raw.strip() for envelope, *_ in expected]
    assert archive.messages == len(expected) == sum(archive.channels.values())
    assert archive.channels["book"] == 10

    again = archive_day(store, stream.kafka, DAY)
    assert (again.written, again.archive) == (False, archive), "a whole archive is left as it is"
    proof = prove_archive(db, store, archive)
    assert (proof.quotes, proof.trades) == (proof.bronze_quotes, proof.bronze_trades) == (600, 600)
    assert proof.is_complete

    chosen = archives_around(store, DAY)
    assert [each.day for each in chosen.archives] == [EVENING, DAY]
    stored = StoredRows(db, DAY)
    for batch in replay_archived_day(store, chosen):
        assert batch.symbol == symbol
        stored.take(batch)
    compared = stored.result()
    assert (compared.rows, compared.equal, compared.not_stored, compared.not_replayed) == (1_200, 1_200, 0, 0)

    part = tmp_path / "part.jsonl.zst"
    part.write_bytes(store.get(archive.parts[0].key) or b"")
    assert replay_file(part).bad == [], "btc replay reads a part"


def test_a_day_of_a_market_on_another_exchange_is_proven_archived_and_replayed(
    stream: Settings, db: QuestDB, store: ObjectStore
) -> None:
    symbol = day_of_symbol(stream, "OTHER", late={}, other_exchange="kraken")
    assert symbol.endswith("/USD@kraken")
    bronze_proof = prove_bronze(db, stream.kafka, DAY, keep_nothing)
    assert (bronze_proof.rows_missing, bronze_proof.rows_different) == (0, 0)
    proof = prove(db, symbol, DAY, keep_nothing)
    assert proof.stream_equals_replay, proof.examples
    assert (proof.rows, proof.rows_missing, proof.rows_different) == (1_200, 0, 0)
    for day in (EVENING, DAY):
        archive_day(store, stream.kafka, day)
    archive = read_manifest(store, DAY)
    assert archive is not None
    assert prove_archive(db, store, archive).is_complete
    stored = StoredRows(db, DAY)
    for batch in replay_archived_day(store, archives_around(store, DAY)):
        stored.take(batch)
    compared = stored.result()
    assert compared.rows == compared.equal >= 1_200
    assert (compared.not_stored, compared.not_replayed) == (0, 0)


def test_repeated_and_late_trades_and_trades_at_midnight_are_no_difference(
    stream: Settings, db: QuestDB, store: ObjectStore
) -> None:
    symbol = day_of_symbol(stream, "LATE", late={700: 40, 800: 3})
    last_ns = MIDNIGHT_NS + 301 * NS_PER_S
    evening = MIDNIGHT_NS - 20 * NS_PER_S
    repeated = [
        Envelope(last_ns, 2, 0, "trade", "ws", trade_frame(symbol, last_ns, 60_000.0, 1_201)),
        Envelope(last_ns + 1, 2, 1, "trade", "ws", trade_frame(symbol, last_ns, 60_000.0, 1_201)),
        # received before midnight, logged after messages that were received after it
        Envelope(evening, 2, 2, "ticker", "ws", quote_frame(symbol, evening, 60_000.0)),
    ]
    publish(stream, symbol, repeated)
    work_off(stream, bronze.build, features.build)
    for day in (EVENING, DAY):
        made = archive_day(store, stream.kafka, day)
        assert made.written, "the log has more messages of the day than its archive"
        assert made.archive is not None
        assert len(archived(store, made.archive)) == made.archive.messages == len(in_the_log(stream, day))
        proof = prove_archive(db, store, made.archive)
        assert proof.is_complete
        assert proof.quotes == proof.bronze_quotes
        assert proof.trades - proof.repeated_trades == proof.bronze_trades
        assert proof.repeated_trades == (day == DAY)
        named = {manifest_key(day), *(part.key for part in made.archive.parts)}
        assert set(store.keys(f"{EVENTS_TOPIC}/{day}/")) == named, "parts of the older archive are deleted"


def test_an_archive_without_a_bronze_row_and_bronze_rows_without_a_message_are_found(
    db: QuestDB, store: ObjectStore
) -> None:
    archive = log_archive.required_archive(store, DAY)
    trades = TABLES["bronze_trades"]
    rows = read_day(db, trades, DAY)
    row = rows.slice(0, 1)
    for name, value in (("trade_id", 7_000_000), ("kafka_offset", 7_000_000)):
        place = row.schema.names.index(name)
        row = row.set_column(place, name, [pa.array([value], row.schema.field(name).type)])
    write_rows(db, trades, row)
    proof = prove_archive(db, store, archive)
    assert (proof.missing_in_archive, proof.missing_in_bronze) == (1, 0)
    lose_day(db, trades, DAY)
    lost = prove_archive(db, store, archive)
    assert (lost.missing_in_archive, lost.missing_in_bronze) == (0, lost.trades)
    write_rows(db, trades, rows)
    assert prove_archive(db, store, archive).is_complete


@pytest.mark.usefixtures("small_parts")
def test_a_store_that_goes_away_in_the_middle_leaves_no_archive_and_the_next_run_makes_it(
    stream: Settings, store: ObjectStore, own_stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_books(stream, OTHER_DAY, 1_000)
    real_put, writes = ObjectStore.put, []

    def put(self: ObjectStore, key: str, body: bytes) -> None:
        writes.append(key)
        if len(writes) == 3:
            own_stack.stop_component("store")
        real_put(self, key, body)

    monkeypatch.setattr(ObjectStore, "put", put)
    with pytest.raises(StoreError, match="does not answer"):
        archive_day(store, stream.kafka, OTHER_DAY)
    monkeypatch.setattr(ObjectStore, "put", real_put)
    own_stack.up(only=("store",))
    leftover = f"{EVENTS_TOPIC}/{OTHER_DAY}/0-000000000000-fedcba9876543210.jsonl.zst"
    store.put(leftover, b"half a part")
    assert len(store.keys(f"{EVENTS_TOPIC}/{OTHER_DAY}/")) == 3
    with pytest.raises(InvalidInput, match=rf"{OTHER_DAY} has no archive .* from {EVENING} to {DAY}"):
        archives_around(store, OTHER_DAY)
    made = archive_day(store, stream.kafka, OTHER_DAY)
    assert made.archive is not None
    assert made.archive.messages == 1_000
    assert leftover not in store.keys(f"{EVENTS_TOPIC}/{OTHER_DAY}/")
    assert {m.envelope.raw.strip() for m in archived(store, made.archive)} == {BOOK}


def test_a_damaged_archive_is_found_and_written_again_but_never_with_fewer_messages(
    stream: Settings, store: ObjectStore
) -> None:
    archive = log_archive.required_archive(store, OTHER_DAY)
    store.put(archive.parts[1].key, b"not what was written")
    with pytest.raises(StoreError, match="is damaged"):
        archived(store, archive)
    assert archive_day(store, stream.kafka, OTHER_DAY).written
    repaired = log_archive.required_archive(store, OTHER_DAY)
    assert (len(archived(store, repaired)), repaired.text_sha256) == (1_000, archive.text_sha256)

    larger = msgspec.structs.replace(repaired, messages=1_001)
    store.put(manifest_key(OTHER_DAY), msgspec.json.encode(larger))
    store.put(larger.parts[0].key, b"not what was written")
    with pytest.raises(StoreError, match=r"is damaged; the log has 1000 messages .* and its archive 1001"):
        archive_day(store, stream.kafka, OTHER_DAY)
    assert log_archive.required_archive(store, OTHER_DAY) == larger
    store.put(manifest_key(OTHER_DAY), msgspec.json.encode(repaired))
    assert archive_day(store, stream.kafka, OTHER_DAY).archive == repaired


def test_an_archive_of_another_log_stays(stream: Settings, store: ObjectStore) -> None:
    archive = log_archive.required_archive(store, OTHER_DAY)
    foreign = msgspec.structs.replace(archive, log_id="an/other")
    store.put(manifest_key(OTHER_DAY), msgspec.json.encode(foreign))
    publish_books(stream, OTHER_DAY, 5, after_s=60)
    assert archive_day(store, stream.kafka, OTHER_DAY).archive == foreign
    store.put(manifest_key(OTHER_DAY), msgspec.json.encode(archive))
    made = archive_day(store, stream.kafka, OTHER_DAY)
    assert made.archive is not None
    assert (made.written, made.archive.messages) == (True, 1_005)


def test_archives_expire_with_their_own_setting(store: ObjectStore) -> None:
    old = f"{EVENTS_TOPIC}/2020-01-01/manifest.json"
    store.put(old, b"{}")
    assert log_archive.expire(store, 30, now_ns()) == [old]
    assert log_archive.archived_days(store) == sorted((OTHER_DAY, EVENING, DAY))


def test_a_day_whose_beginning_the_log_has_dropped_keeps_its_archive_and_gets_no_new_one(
    stream: Settings, store: ObjectStore
) -> None:
    """Retention deletes whole segments; deleting records moves the beginning of a partition in the same way."""
    before = log_archive.required_archive(store, DAY)
    admin = AdminClient(connection(stream.kafka, "test"))
    cut = [
        TopicPartition(EVENTS_TOPIC, each.partition, each.first_offset + 5)
        for each in before.partitions
        if each.messages
    ]
    for future in admin.delete_records(cut).values():
        future.result(30.0)
    kept = archive_day(store, stream.kafka, DAY)
    assert (kept.written, kept.archive) == (False, before)


def test_bronze_that_is_lost_with_its_copies_is_written_again_from_the_archive(
    stream: Settings, db: QuestDB, store: ObjectStore
) -> None:
    tables = [TABLES[name] for name in ("bronze_ticks", "bronze_trades")]
    before = {table.name: digest(read_day(db, table, DAY)) for table in tables}
    assert not prove_bronze(db, stream.kafka, DAY, keep_nothing).log_has_day
    for table in tables:
        lose_day(db, table, DAY)
    proof = prove_bronze(db, stream.kafka, DAY, keep_nothing, store=store)
    assert proof.log_has_day
    assert proof.rows_missing == proof.rows > 2_400
    assert {table.name: digest(read_day(db, table, DAY)) for table in tables} == before


def test_a_damaged_archive_of_a_day_that_the_log_has_dropped_is_an_error(stream: Settings, store: ObjectStore) -> None:
    before = log_archive.required_archive(store, DAY)
    store.delete(before.parts[0].key)
    with pytest.raises(StoreError, match="is missing, and the log no longer holds the whole day"):
        archive_day(store, stream.kafka, DAY)
    store.delete(manifest_key(DAY))
    left = store.keys(f"{EVENTS_TOPIC}/{DAY}/")
    none = archive_day(store, stream.kafka, DAY)
    assert (none.archive, none.reason) == (None, "the log no longer holds the whole day")
    assert store.keys(f"{EVENTS_TOPIC}/{DAY}/") == left, "nothing is deleted"
