"""Rows that a real QuestDB refuses for good become dead letters, and the others are written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa
import pytest

from btc_core.clock import now_ns
from btc_core.errors import QuestDBError, RowsRefused
from btc_core.market.messages import DeadLetter
from btc_core.names import DEADLETTERS_TOPIC, EVENTS_TOPIC
from btc_core.stores.kafka import read_topic
from btc_core.stores.questdb import QuestDB, wait_until_applied
from btc_core.tables.form import Column, Table
from streaming.publisher import Publisher
from streaming.table_writer import MAX_REFUSED_ROWS, REASON, TableWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.settings import Settings

pytestmark = pytest.mark.service

ROWS = 1_000
TOO_LARGE = 2**40
"""More than an INT column can hold; the client sends it and the server refuses it."""
BEFORE_1970 = -1
"""A time that the client refuses to send."""


@pytest.fixture(scope="module")
def settings(servers: Callable[..., Settings]) -> Settings:
    return servers("questdb", "kafka")


@pytest.fixture
def table(settings: Settings) -> Table:
    columns = (
        Column("ts_event", "TIMESTAMP_NS", "UTC", "time"),
        Column("number", "INT", "", "a number"),
        Column("kafka_partition", "INT", "", "partition"),
        Column("kafka_offset", "LONG", "", "offset"),
    )
    made = Table(f"refusing_{now_ns()}", "bronze", "a table for a test", columns, ("ts_event", "number"))
    with QuestDB(settings.questdb) as db:
        db.execute(made.ddl(settings.questdb))
    return made


def rows(bad: dict[int, int], count: int = ROWS) -> pa.Table:
    """Rows with a number each; `bad` are the rows with another time or number."""
    start_ns = now_ns()
    times = [BEFORE_1970 if bad.get(index) == BEFORE_1970 else start_ns + index for index in range(count)]
    numbers = [TOO_LARGE if bad.get(index) == TOO_LARGE else index for index in range(count)]
    return pa.table(
        {
            "ts_event": pa.array(times, pa.timestamp("ns")),
            "number": pa.array(numbers, pa.int64()),
            "kafka_partition": pa.array([3] * count, pa.int32()),
            "kafka_offset": pa.array(range(count), pa.int64()),
        }
    )


def numbers_in(settings: Settings, table: Table) -> list[int]:
    with QuestDB(settings.questdb) as db:
        wait_until_applied(db, table.name)
        return [row[0] for row in db.execute(f"SELECT number FROM {table.name} ORDER BY number")]


def letters(settings: Settings, source: str) -> list[DeadLetter]:
    found = [msgspec.json.decode(value, type=DeadLetter) for value, *_ in read_topic(settings.kafka, DEADLETTERS_TOPIC)]
    return [letter for letter in found if letter.source == source]


def test_refused_rows_become_dead_letters_with_their_reason_and_the_others_are_written(
    settings: Settings, table: Table
) -> None:
    source = f"writer-{now_ns()}"
    publisher = Publisher(settings.kafka, source)
    bad = {7: TOO_LARGE, 8: BEFORE_1970, 999: TOO_LARGE}
    TableWriter(settings.questdb, publisher).write(table, rows(bad))
    publisher.flush()
    assert numbers_in(settings, table) == [number for number in range(ROWS) if number not in bad]
    found = {letter.offset: letter for letter in letters(settings, source)}
    assert sorted(found) == sorted(bad)
    assert {(letter.reason, letter.topic, letter.partition) for letter in found.values()} == {(REASON, EVENTS_TOPIC, 3)}
    assert "column: number" in found[7].message
    assert "negative" in found[8].message
    assert msgspec.json.decode(found[7].raw)["number"] == TOO_LARGE


def test_a_batch_that_is_refused_as_a_whole_stays_unwritten_and_makes_no_dead_letter(
    settings: Settings, table: Table
) -> None:
    source = f"writer-{now_ns()}"
    publisher = Publisher(settings.kafka, source)
    count = MAX_REFUSED_ROWS + 1
    with pytest.raises(RowsRefused, match=table.name):
        TableWriter(settings.questdb, publisher).write(table, rows(dict.fromkeys(range(count), TOO_LARGE), count))
    publisher.flush()
    assert letters(settings, source) == []


def test_a_server_that_does_not_answer_refuses_no_row(settings: Settings, table: Table) -> None:
    gone = settings.questdb.model_copy(update={"http_url": "http://127.0.0.1:1"})
    with pytest.raises(QuestDBError) as failed:
        TableWriter(gone, Publisher(settings.kafka, "gone")).write(table, rows({}, 1))
    assert not isinstance(failed.value, RowsRefused)
