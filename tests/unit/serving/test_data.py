"""`/v1/data` without servers: what it refuses, its limits, and that a slow client loses its connection."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, NS_PER_S
from btc_core.days.history import History, StoredDay, _parts_of_day
from btc_core.days.series import BAR_NAMES, SERIES, join_bars
from btc_core.days.table_formats import encoded
from btc_core.errors import ServiceError
from btc_core.tables.arrow import arrow_schema
from btc_core.tables.catalogue import MINUTE_BARS
from btc_core.utc_day import day_of
from serving.server import CHANNEL_TIMEOUT_S, _close_unread
from tests.serving_world import NOW_NS, World, build

if TYPE_CHECKING:
    from collections.abc import Iterator

    from werkzeug.test import TestResponse

TODAY = day_of(NOW_NS)


@pytest.fixture
def world() -> World:
    return build()


def code(response: TestResponse) -> tuple[int, str]:
    return response.status_code, response.get_json(force=True)["code"]


def test_an_unknown_table_is_a_404_that_lists_the_tables(world: World) -> None:
    response = world.client.get("/v1/data/candles?from=2026-10-01")
    assert code(response) == (404, "unknown_table")
    assert response.get_json(force=True)["tables"] == list(SERIES)
    assert "bars, features, minute_features" in response.get_json(force=True)["detail"]


def test_the_api_document_says_what_each_series_has(world: World) -> None:
    document = world.client.get("/openapi.json").get_json()
    (table,) = (each for each in document["paths"]["/v1/data/{table}"]["get"]["parameters"] if each["in"] == "path")
    assert table["schema"]["enum"] == list(SERIES)
    for series in SERIES.values():
        assert f"- `{series.name}`: {series.meaning}" in table["description"]
    assert "the quality that it had when it was made" in table["description"]
    assert {"quality", "quality_reasons"} <= set(SERIES["forecasts"].schema.names)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "from"),
        ("from=yesterday", "from must be a time"),
        ("from=2026-13-01", "2026-13-01"),
        ("from=2026-10-02&to=2026-10-01", "must be before"),
        ("from=2026-10-01&to=2026-10-01", "must be before"),
        ("from=2026-10-01&format=xlsx", "format"),
        ("from=2026-10-01&columns=ts,prize", "prize"),
        ("from=2026-10-01&until=2026-10-02", "until"),
    ],
)
def test_a_bad_parameter_is_a_422_that_says_what_is_wrong(world: World, query: str, said: str) -> None:
    response = world.client.get(f"/v1/data/bars?{query}")
    assert code(response) == (422, "bad_parameter")
    assert said in response.get_json(force=True)["detail"]


def test_a_market_that_is_not_followed_is_a_404(world: World) -> None:
    assert code(world.client.get("/v1/data/bars?from=2026-10-01&symbol=X/USD")) == (404, "unknown_symbol")


def test_the_document_describes_the_path_the_formats_and_what_is_required(world: World) -> None:
    operation = world.client.get("/openapi.json").get_json()["paths"]["/v1/data/{table}"]["get"]
    parameters = {each["name"]: each for each in operation["parameters"]}
    assert parameters["table"]["in"] == "path"
    assert parameters["table"]["schema"]["enum"] == list(SERIES)
    assert [name for name, each in parameters.items() if each["required"]] == ["table", "from"]
    assert set(operation["responses"]["200"]["content"]) == {
        "application/vnd.apache.arrow.stream",
        "application/vnd.apache.parquet",
        "text/csv; charset=utf-8",
    }


def fake_days(monkeypatch: pytest.MonkeyPatch, days: list[StoredDay]) -> None:
    monkeypatch.setattr(History, "days", lambda *_: days)


def fake_rows(monkeypatch: pytest.MonkeyPatch, *tables: pa.Table | Exception) -> None:
    def read(*_: Any) -> Iterator[pa.Table]:
        for each in tables:
            if isinstance(each, Exception):
                raise each
            yield each

    monkeypatch.setitem(SERIES, "bars", msgspec.structs.replace(SERIES["bars"], read=read))


def bars(*minutes: int, close: float = 1.0, source: str = "file") -> pa.Table:
    count = len(minutes)
    values = [
        [m * NS_PER_MIN for m in minutes],
        ["BTC/USD"] * count,
        *[[close] * count] * 5,
        [1] * count,
        [source] * count,
    ]
    schema = pa.schema([arrow_schema(MINUTE_BARS).field(name) for name in BAR_NAMES])
    return pa.table([pa.array(each, field.type) for each, field in zip(values, schema, strict=True)], schema=schema)


def test_more_reads_at_once_than_the_limit_are_refused_and_a_read_frees_its_place(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_days(monkeypatch, [StoredDay(TODAY, 2)])
    fake_rows(monkeypatch, bars(1, 2))
    url = f"/v1/data/bars?from={TODAY}"
    for _ in range(5):
        with world.client.get(url) as answer:
            assert answer.status_code == 200
            assert len(pa.ipc.open_stream(answer.data).read_all()) == 2
    running = [world.client.get(url, buffered=False) for _ in range(2)]
    refused = world.client.get(url)
    assert code(refused) == (503, "too_many_exports")
    assert refused.headers["Retry-After"] == "5"
    running[0].close()
    with world.client.get(url) as answer:
        assert answer.status_code == 200


def test_too_many_rows_are_refused_with_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    world = build(export_max_rows=1_000)
    fake_days(monkeypatch, [StoredDay(TODAY, 1_001)])
    response = world.client.get(f"/v1/data/bars?from={TODAY}")
    assert code(response) == (422, "too_many_rows")
    assert (response.get_json(force=True)["rows"], response.get_json(force=True)["max_rows"]) == (1_001, 1_000)


def test_a_read_that_fails_at_once_is_an_error_and_frees_its_place(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_days(monkeypatch, [StoredDay(TODAY, 2)])
    fake_rows(monkeypatch, ServiceError("QuestDB does not answer"))
    for _ in range(4):
        assert code(world.client.get(f"/v1/data/bars?from={TODAY}")) == (503, "service_unavailable")


def test_a_read_beyond_its_time_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    world = build(export_max_s=10.0)
    fake_days(monkeypatch, [StoredDay(TODAY, 2)])

    def read(*_: Any) -> Iterator[pa.Table]:
        yield bars(1)
        world.clock.now += 11 * NS_PER_S
        yield bars(2)
        yield bars(3)

    monkeypatch.setitem(SERIES, "bars", msgspec.structs.replace(SERIES["bars"], read=read))
    answer = world.client.get(f"/v1/data/bars?from={TODAY}")
    with pytest.raises(ServiceError, match="took more than 10 s"):
        _ = answer.data


def test_bars_of_the_stream_only_fill_minutes_that_are_missing() -> None:
    joined = join_bars([bars(1, 2), bars(5)], bars(2, 3, 5, 6, close=9.0).drop_columns("source"))
    assert [moment.value // NS_PER_MIN for moment in joined["ts"].to_pandas()] == [1, 2, 3, 5, 6]
    assert joined["close"].to_pylist() == [1.0, 1.0, 9.0, 1.0, 9.0]
    assert joined["source"].to_pylist() == ["file", "file", "stream", "file", "stream"]


def test_a_day_is_cut_between_minutes_and_no_row_is_in_two_parts() -> None:
    counts = {minute * NS_PER_MIN: 40 for minute in range(10)}
    parts = _parts_of_day(counts, 30 * NS_PER_S, NS_PER_DAY, 100)
    assert [part.rows for part in parts] == [80] * 5
    assert (parts[0].begin_ns, parts[-1].end_ns) == (30 * NS_PER_S, NS_PER_DAY)
    assert [part.end_ns for part in parts[:-1]] == [part.begin_ns for part in parts[1:]]
    assert all(part.begin_ns % NS_PER_MIN == 0 for part in parts[1:])


def test_a_parquet_file_is_whole_although_it_is_sent_in_pieces() -> None:
    chunks = [bars(*range(start, start + 50_000)) for start in (0, 50_000, 100_000)]
    pieces = list(encoded(chunks, chunks[0].schema, "parquet"))
    assert len(pieces) > 4
    file = pq.ParquetFile(io.BytesIO(b"".join(pieces)))
    assert file.num_row_groups == 3
    assert file.read().equals(pa.concat_tables(chunks))


def test_a_client_that_does_not_read_its_answer_loses_its_connection(world: World) -> None:
    closed: list[str] = []

    def channel(name: str, waiting: int, quiet_s: float) -> SimpleNamespace:
        last_s = NOW_NS / NS_PER_S - quiet_s
        return SimpleNamespace(
            total_outbufs_len=waiting, last_activity=last_s, handle_close=lambda: closed.append(name)
        )

    channels = [channel("stuck", 1, CHANNEL_TIMEOUT_S + 1), channel("slow", 1, 1), channel("idle", 0, 99)]
    _close_unread(SimpleNamespace(active_channels=dict(enumerate(channels))), world.clock)
    assert closed == ["stuck"]
