"""The sensor reports a table only when the table itself has moved."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from btc_core.clock import NS_PER_MIN, NS_PER_S
from btc_core.errors import QuestDBError, ServiceError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import dagster as dg

    from btc_assets import live_assets
    from btc_assets.resources import Database

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:dagster"),
]
NOW = 1_800_000_000 * NS_PER_S


class FakeQuestDB:
    """Answers the two statements of the sensor from watermarks."""

    def __init__(self, watermarks: dict[str, int | None], *, away: bool = False) -> None:
        self.watermarks, self.away = watermarks, away

    def execute(self, sql: str) -> list[list[Any]]:
        if self.away:
            raise ServiceError("QuestDB does not answer")
        table = sql.split(" FROM ")[1].split(maxsplit=1)[0]
        if table not in self.watermarks:
            raise QuestDBError("table does not exist")
        return [[17]] if "count()" in sql else [[self.watermarks[table]]]


def test_an_advanced_watermark_is_an_event_with_rows_and_lag() -> None:
    db = FakeQuestDB({"bronze_ticks": NOW - 2 * NS_PER_S})
    reported = live_assets.table_event(db, "bronze_ticks", None, NOW)  # type: ignore[arg-type]
    assert reported is not None
    event, last_event = reported
    assert event.metadata["rows"].value == 17
    assert event.metadata["lag_s"].value == 2.0
    assert last_event == live_assets.LastEvent(NOW - 2 * NS_PER_S, NOW)


def test_a_table_that_stands_still_gives_no_event_however_often_it_is_read() -> None:
    db = FakeQuestDB({"bronze_ticks": NOW})
    last_event = live_assets.LastEvent(NOW, NOW)
    for minute in range(1, 20):
        assert live_assets.table_event(db, "bronze_ticks", last_event, NOW + minute * NS_PER_MIN) is None  # type: ignore[arg-type]


def test_a_moving_table_gives_at_most_one_event_a_minute() -> None:
    last_event, events = None, 0
    for second in range(0, 600, 30):
        now = NOW + second * NS_PER_S
        event = live_assets.table_event(FakeQuestDB({"bronze_ticks": now}), "bronze_ticks", last_event, now)  # type: ignore[arg-type]
        if event is not None:
            last_event, events = event[1], events + 1
    assert events == 10


def test_an_empty_or_missing_table_gives_no_event() -> None:
    assert live_assets.table_event(FakeQuestDB({"gap_marks": None}), "gap_marks", None, NOW) is None  # type: ignore[arg-type]
    assert live_assets.table_event(FakeQuestDB({}), "gap_marks", None, NOW) is None  # type: ignore[arg-type]


def test_a_cursor_is_read_as_it_was_written_and_a_malformed_one_is_empty() -> None:
    last_event = {"bronze_ticks": live_assets.LastEvent(1, 2)}
    assert live_assets.read_cursor(live_assets.write_cursor(last_event)) == last_event
    assert (
        live_assets.read_cursor(None)
        == live_assets.read_cursor("nonsense")
        == live_assets.read_cursor('{"a": 1}')
        == {}
    )


class FakeDatabase(Database):
    """Hands out the client in `CURRENT`; a field would not do, because resources are frozen."""

    @contextmanager
    def connect(self) -> Iterator[FakeQuestDB]:  # type: ignore[override]
        yield CURRENT[0]


CURRENT: list[FakeQuestDB] = []


def _tick(cursor: str | None, db: FakeQuestDB) -> Any:
    CURRENT[:] = [db]
    context = dg.build_sensor_context(cursor=cursor)
    return live_assets.live_tables_sensor(context, database=FakeDatabase())


def test_a_tick_gives_one_event_for_each_table_that_moved_and_a_second_tick_none() -> None:
    db = FakeQuestDB({"bronze_ticks": NOW, "silver_features": NOW})
    first = _tick(None, db)
    assert {event.asset_key.to_user_string() for event in first.asset_events} == {"bronze_ticks", "silver_features"}
    assert isinstance(_tick(first.cursor, db), dg.SkipReason)


def test_a_tick_is_skipped_with_the_reason_while_questdb_does_not_answer() -> None:
    skipped = _tick(None, FakeQuestDB({}, away=True))
    assert isinstance(skipped, dg.SkipReason)
    assert "does not answer" in str(skipped.skip_message)


def test_only_tables_that_should_move_every_minute_have_a_freshness_policy() -> None:
    policies = {spec.key.to_user_string(): spec.freshness_policy for spec in live_assets.live_specs}
    assert policies["bronze_ticks"] is live_assets.MINUTE
    assert policies["gold_5min"] is live_assets.FIVE_MINUTES
    assert policies["gap_marks"] is None


def test_a_table_that_stands_still_is_observed_with_its_lag_and_never_materialized() -> None:
    last_event = live_assets.LastEvent(NOW, NOW)
    assert live_assets.idle_table_event("bronze_ticks", last_event, NOW + NS_PER_MIN) is None
    event = live_assets.idle_table_event("bronze_ticks", last_event, NOW + 10 * NS_PER_MIN)
    assert event is not None
    assert isinstance(event[0], dg.AssetObservation)
    assert event[0].metadata["lag_s"].value == 600.0
    assert event[1].watermark_ns == NOW, "the watermark is the table's, not the sensor's"
    assert live_assets.idle_table_event("gap_marks", last_event, NOW + 10 * NS_PER_MIN) is None


def test_old_events_of_live_tables_are_deleted_and_the_newest_stays() -> None:
    from datetime import UTC, datetime, timedelta

    from btc_assets.pruning import prune

    with dg.DagsterInstance.ephemeral() as instance:
        for number in range(5):
            instance.report_runless_asset_event(dg.AssetMaterialization("bronze_ticks", metadata={"rows": number}))
        later = datetime.now(UTC).replace(tzinfo=None) + timedelta(days=1)
        assert prune(instance, later - timedelta(days=2)) == 0, "nothing is old"
        assert prune(instance, later) == 4
        newest = instance.get_latest_materialization_event(dg.AssetKey("bronze_ticks"))
        assert newest is not None
        assert newest.asset_materialization is not None
        assert newest.asset_materialization.metadata["rows"].value == 4
        assert len(instance.fetch_materializations(dg.AssetKey("bronze_ticks"), limit=10).records) == 1
