"""The client against a real HTTP server on loopback whose answers a test chooses."""

from __future__ import annotations

import asyncio
import http.server
import io
import json
import typing
from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from btc_client import ApiError, Client, ClientError, NoConnection, QualityReason, connection
from btc_client.answers import LiveForecast, LoadedModels, Markets
from btc_client.connection import pause_s, retry_after_s
from btc_client.dataset import Dataset
from btc_client.score_answers import ForecastProof, League, Roots, Skill
from serving import answers, league_answers, model_answers, proof_answers, skill_answers
from tests.http_server import listening
from tests.serving_world import GOOD_QUALITY, build, forecast_row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NS_PER_MIN = 60_000_000_000


class Answers:
    """What the server answers, in turn, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str], dict[str, str]]] = []
        self.turns: list[Callable[[http.server.BaseHTTPRequestHandler], None]] = []


def ok(body: bytes, media: str = "application/json", *, cut: bool = False) -> Callable[[Any], None]:
    """A whole answer; `cut` ends the connection in the middle of it."""

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", media)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[: len(body) // 2] if cut else body)

    return answer


def refused(status: int, code: str, **headers: str) -> Callable[[Any], None]:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        body = json.dumps({"code": code, "detail": f"about {code}", "request_id": "r1"}).encode()
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer


@pytest.fixture
def answers_of() -> Answers:
    return Answers()


@pytest.fixture
def client(answers_of: Answers, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(connection, "FIRST_PAUSE_S", 0.01)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            answers_of.asked.append((parts.path, query, dict(self.headers)))
            answers_of.turns.pop(0)(self)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with listening(Handler) as url, Client(url, token="secret", retries=3, timeout_s=5) as found:
        yield found


def stream_of(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=100)
    return sink.getvalue()


TABLE = pa.table({"ts": pa.array(range(1_000), pa.timestamp("ns", "UTC")), "close": [1.5] * 1_000})


def test_a_table_comes_as_arrow_or_pandas_and_the_request_has_the_range_and_the_token(
    client: Client, answers_of: Answers
) -> None:
    answers_of.turns = [ok(stream_of(TABLE)), ok(stream_of(TABLE))]
    assert client.bars("BTC/USD", "2026-10-01", date(2026, 10, 2), columns=["ts", "close"]).equals(TABLE)
    path, query, headers = answers_of.asked[0]
    assert path == "/v1/data/bars"
    wanted = {"symbol": "BTC/USD", "from": "2026-10-01", "to": "2026-10-02", "columns": "ts,close", "missing": "refuse"}
    assert query == wanted
    assert headers["Authorization"] == "Bearer secret"
    frame = client.features("BTC/USD", datetime(2026, 10, 1, tzinfo=UTC), frame="pandas")
    assert list(frame.columns) == ["ts", "close"]
    assert answers_of.asked[1][0] == "/v1/data/minute_features"
    assert answers_of.asked[1][1]["from"] == "2026-10-01T00:00:00+00:00"


def test_a_table_comes_as_a_frame_of_polars(client: Client, answers_of: Answers) -> None:
    polars = pytest.importorskip("polars", reason="polars is not installed")
    answers_of.turns = [ok(stream_of(TABLE)), ok(stream_of(TABLE.slice(0, 0)))]
    frame = client.bars("BTC/USD", "2026-10-01", frame="polars")
    assert isinstance(frame, polars.DataFrame)
    assert frame.schema == {"ts": polars.Datetime("ns", "UTC"), "close": polars.Float64}
    assert frame.to_arrow().cast(TABLE.schema).equals(TABLE)
    none = client.bars("BTC/USD", "2026-10-01", frame="polars")
    assert (none.height, none.schema) == (0, frame.schema)


def test_a_time_without_a_time_zone_is_refused_before_any_request(client: Client, answers_of: Answers) -> None:
    with pytest.raises(ClientError, match=r"start=.* has no time zone"):
        client.trades("BTC/USD", datetime(2026, 10, 1))  # noqa: DTZ001 - the mistake
    assert answers_of.asked == []


def test_429_and_503_are_tried_again_after_the_time_that_the_api_asks_for(
    client: Client, answers_of: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers_of.turns = [
        refused(429, "too_many_requests", Retry_After="77"),
        refused(503, "too_many_exports"),
        ok(stream_of(TABLE)),
    ]
    pauses_s: list[float] = []
    monkeypatch.setattr(connection, "time", SimpleNamespace(sleep=pauses_s.append))
    assert len(client.quotes("BTC/USD", "2026-10-01")) == 1_000
    assert pauses_s[0] == 77.0
    assert 0.5 * connection.FIRST_PAUSE_S <= pauses_s[1] / 2 <= connection.FIRST_PAUSE_S, "doubled, with jitter"
    assert len(answers_of.asked) == 3


def test_an_error_carries_the_code_and_the_detail_of_the_api_and_is_not_repeated(
    client: Client, answers_of: Answers
) -> None:
    answers_of.turns = [refused(404, "days_not_stored")]
    with pytest.raises(ApiError, match="404 days_not_stored: about days_not_stored") as raised:
        client.trades("BTC/USD", "2026-10-01")
    assert (raised.value.code, raised.value.detail, raised.value.request_id) == (
        "days_not_stored",
        "about days_not_stored",
        "r1",
    )
    assert len(answers_of.asked) == 1


def test_after_the_last_attempt_the_error_of_the_api_is_raised(client: Client, answers_of: Answers) -> None:
    answers_of.turns = [refused(503, "not_ready") for _ in range(4)]
    with pytest.raises(ApiError, match="not_ready"):
        client.latest()
    assert len(answers_of.asked) == 4


def test_an_answer_that_is_broken_off_is_read_again_and_never_returned_in_part(
    client: Client, answers_of: Answers
) -> None:
    body = stream_of(TABLE)
    answers_of.turns = [ok(body, cut=True), ok(body)]
    assert client.bars("BTC/USD", "2026-10-01").equals(TABLE)
    answers_of.turns = [ok(body, cut=True) for _ in range(4)]
    with pytest.raises(NoConnection, match="broke off its answer, 4 times"):
        client.bars("BTC/USD", "2026-10-01")


def test_the_quality_of_a_forecast_is_typed_and_an_older_api_has_none(client: Client, answers_of: Answers) -> None:
    world = build()
    judged = msgspec.structs.replace(GOOD_QUALITY, word="poor", reasons=("quote_old",), quote_age_s=95.0)
    world.newest.forecast_row = forecast_row(0.5, quality=judged)
    body = world.client.get("/v1/forecast").get_json()
    older = {name: value for name, value in body.items() if name != "quality"}
    answers_of.turns = [ok(json.dumps(each).encode()) for each in (body, older)]
    quality = client.latest().quality
    assert quality is not None
    assert (quality.word, quality.quote_age_s, quality.outcomes) == ("poor", 95.0, 300)
    assert quality.reasons == (QualityReason("quote_old", "The newest quote was 95 s old."),)
    assert client.latest().quality is None


def test_any_other_get_of_the_api_comes_as_its_json(client: Client, answers_of: Answers) -> None:
    answers_of.turns = [ok(b'{"rows": []}')]
    assert client.get("/v1/skill", symbol=None, hours=6) == {"rows": []}
    assert answers_of.asked[0][:2] == ("/v1/skill", {"hours": "6"})


def test_pages_follow_each_other_until_the_last_and_are_asked_for_one_by_one(
    client: Client, answers_of: Answers
) -> None:
    times = ["2026-10-01T01:00:00.000000Z", "2026-10-01T02:00:00.000000Z", None]
    answers_of.turns = [ok(json.dumps({"bars": [n], "next": after}).encode()) for n, after in enumerate(times)]
    pages = client.pages("/v1/bars", symbol="BTC/USD", since="2026-10-01T00:00:00Z", limit=60)
    assert next(pages)["bars"] == [0]
    assert len(answers_of.asked) == 1
    assert [page["bars"] for page in pages] == [[1], [2]]
    assert [query["since"] for _, query, _ in answers_of.asked] == ["2026-10-01T00:00:00Z", *times[:2]]
    assert {(path, query["symbol"], query["limit"]) for path, query, _ in answers_of.asked} == {
        ("/v1/bars", "BTC/USD", "60")
    }


def test_pages_of_an_answer_without_pages_or_that_stand_still_are_refused(client: Client, answers_of: Answers) -> None:
    answers_of.turns = [ok(b'{"rows": []}')]
    with pytest.raises(ClientError, match=r"/v1/skill does not answer in pages; use get\('/v1/skill'\)"):
        list(client.pages("/v1/skill"))
    answers_of.turns = [ok(b'{"bars": [], "next": "2026-10-01T00:00:00Z"}')]
    with pytest.raises(ClientError, match="names the page of 2026-10-01T00:00:00Z as the one after it"):
        list(client.pages("/v1/bars", since="2026-10-01T00:00:00Z"))


def test_the_league_and_live_skill_come_as_structs_of_what_the_api_answers(client: Client, answers_of: Answers) -> None:
    world = build()
    answers_of.turns = [ok(world.client.get(path).data) for path in ("/v1/league?days=1", "/v1/skill?hours=6")]
    league, skill = client.league("BTC/USD", days=1), client.live_skill(hours=6)
    assert [each[:2] for each in answers_of.asked] == [
        ("/v1/league", {"symbol": "BTC/USD", "days": "1"}), ("/v1/skill", {"hours": "6"})]  # fmt: skip
    assert (league.symbol, league.days, league.entries) == (
        "BTC/USD",
        1,
        sum(row.kind == "entry" for row in league.rows),
    )
    assert (skill.symbol, skill.hours) == ("BTC/USD", 6)
    assert [row.quantity for row in skill.rows] == [
        row["quantity"] for row in world.client.get("/v1/skill").json["rows"]
    ]


def test_roots_and_proofs_come_as_structs(client: Client, answers_of: Answers) -> None:
    root = proof_answers.Root("hour", "2026-10-01T00:00:00Z", "ab", 2, "{}", "2026-10-01T01:05:00Z")
    in_hour = proof_answers.HourProof(root, "cd", 1, ("ef",), ("01",))
    proof = proof_answers.ForecastProof(
        "BTC/USD",
        "2026-10-01T00:00:01Z",
        "2026-10-01T00:00:00Z",
        "0:7:0",
        "proven",
        None,
        in_hour,
        None,
        True,
    )
    roots = proof_answers.Roots("BTC/USD", root.begin, root.closed_at, (root,), True)
    answers_of.turns = [ok(msgspec.json.encode(each)) for each in (roots, roots, proof)]
    found = client.roots("BTC/USD", date(2026, 10, 1), datetime(2026, 10, 2, tzinfo=UTC))
    assert (found.window_from, found.roots[0].root, found.roots[0].period) == (root.begin, "ab", "hour")
    assert answers_of.asked[0][1] == {"symbol": "BTC/USD", "from": "2026-10-01", "to": "2026-10-02T00:00:00+00:00"}
    assert client.roots() == found
    assert answers_of.asked[1][1] == {}
    status = client.proof("BTC/USD", "2026-10-01T00:00:02Z")
    assert status.hour is not None
    assert (status.status, status.hour.leaf, status.hour.root) == ("proven", "cd", found.roots[0])
    assert answers_of.asked[2][:2] == ("/v1/proofs/forecast", {"symbol": "BTC/USD", "at": "2026-10-01T00:00:02Z"})


def test_the_book_of_a_moment_comes_as_a_row_for_each_level(client: Client, answers_of: Answers) -> None:
    levels = {
        "received_at": "2026-01-25T12:00:00Z",
        "bids": [[59_999.9, 0.5], [59_999.8, 2.0]],
        "asks": [[60_000.0, 1.5]],
    }
    answers_of.turns = [ok(json.dumps({"book": levels}).encode())]
    rows = client.book("BTC/USD", datetime(2026, 1, 25, 12, tzinfo=UTC), frame="arrow").to_pylist()
    asked = {"symbol": "BTC/USD", "at": "2026-01-25T12:00:00+00:00", "book": "true"}
    assert answers_of.asked[0][:2] == ("/v1/at", asked)
    assert [(row["side"], row["level"], row["price"], row["quantity"]) for row in rows] == [
        ("bid", 1, 59_999.9, 0.5), ("bid", 2, 59_999.8, 2.0), ("ask", 1, 60_000.0, 1.5)]  # fmt: skip


def test_a_server_that_does_not_listen_is_named_in_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_PAUSE_S", 0.01)
    with Client("http://127.0.0.1:9", retries=1) as client, pytest.raises(NoConnection, match=r"http://127\.0\.0\.1:9"):
        client.markets()


def test_a_file_is_written_only_when_it_is_whole(client: Client, answers_of: Answers, tmp_path: Path) -> None:
    sink = io.BytesIO()
    pq.write_table(TABLE, sink)
    answers_of.turns = [ok(sink.getvalue(), cut=True), ok(sink.getvalue())]
    path = client.save(tmp_path / "bars.parquet", "bars", "BTC/USD", "2026-10-01")
    assert pq.read_table(path).equals(TABLE)
    assert answers_of.asked[0][1]["format"] == "parquet"
    answers_of.turns = [refused(404, "days_not_stored")]
    with pytest.raises(ApiError):
        client.save(tmp_path / "none.csv", "bars", "BTC/USD", "2026-10-01")
    assert [each.name for each in tmp_path.iterdir()] == ["bars.parquet"]
    with pytest.raises(ClientError, match="suffix"):
        client.save(tmp_path / "bars.xls", "bars", "BTC/USD", "2026-10-01")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (LiveForecast, answers.LiveForecast),
        (LoadedModels, model_answers.LoadedModels),
        (Markets, answers.Markets),
        (League, league_answers.League),
        (Skill, skill_answers.Skill),
        (Roots, proof_answers.Roots),
        (ForecastProof, proof_answers.ForecastProof),
    ],
)
def test_the_structs_of_the_client_have_the_fields_that_the_api_answers_with(ours: Any, theirs: Any) -> None:
    assert fields_of(ours) == fields_of(theirs)


def fields_of(kind: Any) -> dict[str, Any]:
    """The names of the fields, with those of the structs inside, whatever these are called."""

    def inner(hint: Any) -> Any:
        for each in (hint, *typing.get_args(hint)):
            if isinstance(each, type) and issubclass(each, msgspec.Struct):
                return fields_of(each)
        return None

    return {name: inner(hint) for name, hint in typing.get_type_hints(kind).items()}


def event_stream(*ids: int) -> Callable[[Any], None]:
    """Updates with an event each, then the connection ends in the middle of another."""
    text = "retry: 10\n\n: alive\n\n" + "".join(
        f'id: {each}\nevent: health\ndata: {{"n":\ndata: {each}}}\n\n' for each in ids
    )

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "text/event-stream")
        request.end_headers()
        request.wfile.write(f'{text}event: health\ndata: {{"cut'.encode())

    return answer


def test_the_event_stream_connects_again_with_the_last_id_and_skips_an_event_that_was_cut_off(
    client: Client, answers_of: Answers
) -> None:
    answers_of.turns = [event_stream(1, 2), refused(503, "too_many_streams", Retry_After="0"), event_stream(3)]
    found = []
    for event in client.events("BTC/USD"):
        found.append(event)
        if len(found) == 3:
            break
    assert [(each.name, each.id, each.body) for each in found] == [("health", str(n), {"n": n}) for n in (1, 2, 3)]
    assert "Last-Event-ID" not in answers_of.asked[0][2]
    assert answers_of.asked[2][2]["Last-Event-ID"] == "2"
    assert answers_of.asked[0][1] == {"symbol": "BTC/USD"}


def test_the_asynchronous_stream_gives_the_same_events(client: Client, answers_of: Answers) -> None:
    answers_of.turns = [event_stream(1, 2), event_stream(3)]

    async def first_three() -> list[str]:
        found = []
        async for event in client.async_events():
            found.append(event.id)
            if len(found) == 3:
                break
        return found

    assert asyncio.run(first_three()) == ["1", "2", "3"]


def test_a_stream_that_never_has_an_event_ends_with_an_error(client: Client, answers_of: Answers) -> None:
    answers_of.turns = [event_stream() for _ in range(4)]
    with pytest.raises(NoConnection, match="4 times without an event"):
        next(client.events())
    answers_of.turns = [refused(404, "unknown_symbol")]
    with pytest.raises(ApiError, match="unknown_symbol"):
        next(client.events("X/USD"))


def test_pauses_double_up_to_a_limit_and_give_way_to_what_the_api_asks_for() -> None:
    assert all(0.25 <= pause_s(0, None) <= 0.5 for _ in range(20))
    assert all(15.0 <= pause_s(20, None) <= 30.0 for _ in range(20))
    assert pause_s(20, 2.0) == 2.0
    assert retry_after_s("7") == 7.0
    assert retry_after_s("Thu, 01 Jan 1970 00:00:00 GMT") == 0.0
    assert retry_after_s("soon") is None
    assert retry_after_s(None) is None


def test_no_split_trains_within_the_embargo_before_its_test_or_after_it() -> None:
    origins = [minute * 5 * NS_PER_MIN for minute in range(1_000)]
    table = pa.table({"origin": pa.array(origins, pa.timestamp("ns", "UTC")), "x": origins, "y": origins})
    dataset = Dataset(table, ("x",), ("y",), 5, (), "v", 10)
    splits = dataset.splits(4)
    assert [len(each.test) for each in splits] == [200] * 4
    assert sum(len(each.test) for each in splits) == 800, "each later row is tested once"
    for each in splits:
        gap_ns = each.test["x"][0].as_py() - each.train["x"][-1].as_py()
        assert 10 * NS_PER_MIN <= gap_ns < 16 * NS_PER_MIN
        assert each.train["x"][0].as_py() == 0
    with pytest.raises(ClientError, match="too few"):
        Dataset(table.slice(0, 3), ("x",), ("y",), 5, (), "v", 10).splits(3)


def test_a_data_set_asks_for_its_columns_and_knows_what_it_rests_on(client: Client, answers_of: Answers) -> None:
    about = {"inputs": "a,b", "labels": "rv_1m_grid_5m", "seals": "2026-10-01@abc", "feature_version": "v", "embargo_min": "10"}  # fmt: skip
    names = ["origin", "symbol", "a", "b", "rv_1m_grid_1m", "rv_1m_grid_5m", "bid_5m_bps"]
    full = pa.table({name: [1] for name in names}).replace_schema_metadata(about)
    system = b'{"default":"BTC/USD","horizons_min":[1,5],"markets":[],"simulated":true}'
    answers_of.turns = [
        ok(system), ok(stream_of(full)), ok(stream_of(full.select(["origin", "b", "bid_5m_bps"]))),
    ]  # fmt: skip
    dataset = client.dataset("BTC/USD", "2026-10-01")
    assert dataset.horizon_min == 5, "the longest horizon of the system"
    assert dataset.table.column_names == ["origin", "a", "b", "rv_1m_grid_5m", "bid_5m_bps"]
    assert (dataset.features, dataset.seals, dataset.embargo_min) == (("a", "b"), ("2026-10-01@abc",), 10)
    dataset = client.dataset("BTC/USD", "2026-10-01", horizon=5, features=["b"], labels=["bid"])
    assert answers_of.asked[2][1]["columns"] == "origin,b,bid_5m_bps"
    assert dataset.features == ("b",)
    with pytest.raises(ClientError, match="horizon=61"):
        client.dataset("BTC/USD", "2026-10-01", horizon=61)
    with pytest.raises(ClientError, match="choose from"):
        client.dataset("BTC/USD", "2026-10-01", horizon=5, labels=["price"])  # type: ignore[list-item]
