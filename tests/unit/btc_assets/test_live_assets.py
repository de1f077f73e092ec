"""The sensor tells Dagster about a table only when the table itself moved."""

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
    told = live_assets.look(db, "bronze_ticks", None, NOW)  # type: ignore[arg-type]
    assert told is not None
    event, seen = told
    assert event.metadata["rows"].value == 17
    assert event.metadata["lag_s"].value == 2.0
    assert seen == live_assets.Seen(NOW - 2 * NS_PER_S, NOW)


def test_a_table_that_stands_still_gives_no_event_however_often_it_is_looked_at() -> None:
    db = FakeQuestDB({"bronze_ticks": NOW})
    seen = live_assets.Seen(NOW, NOW)
    for minute in range(1, 20):
        assert live_assets.look(db, "bronze_ticks", seen, NOW + minute * NS_PER_MIN) is None  # type: ignore[arg-type]


def test_a_moving_table_gives_at_most_one_event_a_minute() -> None:
    seen, events = None, 0
    for second in range(0, 600, 30):
        now = NOW + second * NS_PER_S
        told = live_assets.look(FakeQuestDB({"bronze_ticks": now}), "bronze_ticks", seen, now)  # type: ignore[arg-type]
        if told is not None:
            seen, events = told[1], events + 1
    assert events == 10


def test_an_empty_or_missing_table_gives_no_event() -> None:
    assert live_assets.look(FakeQuestDB({"gap_marks": None}), "gap_marks", None, NOW) is None  # type: ignore[arg-type]
    assert live_assets.look(FakeQuestDB({}), "gap_marks", None, NOW) is None  # type: ignore[arg-type]


def test_the_cursor_survives_writing_and_nonsense() -> None:
    seen = {"bronze_ticks": live_assets.Seen(1, 2)}
    assert live_assets.read_cursor(live_assets.write_cursor(seen)) == seen
    assert (
        live_assets.read_cursor(None)
        == live_assets.read_cursor("nonsense")
        == live_assets.read_cursor('{"a": 1}')
        == {}
    )


class FakeDatabase(Database):
    """Hands out a fake client; held beside the fields because resources are frozen."""

    @contextmanager
    def connect(self) -> Iterator[FakeQuestDB]:  # type: ignore[override]
        yield CURRENT[0]


CURRENT: list[FakeQuestDB] = []


def _tick(cursor: str | None, db: FakeQuestDB) -> Any:
    CURRENT[:] = [db]
    context = dg.build_sensor_context(cursor=cursor)
    return live_assets.live_tables_sensor(context, database=FakeDatabase())


def test_a_tick_gives_one_event_per_moved_table_and_a_second_tick_none() -> None:
    db = FakeQuestDB({"bronze_ticks": NOW, "silver_features": NOW})
    first = _tick(None, db)
    assert {event.asset_key.to_user_string() for event in first.asset_events} == {"bronze_ticks", "silver_features"}
    assert isinstance(_tick(first.cursor, db), dg.SkipReason)


def test_questdb_being_away_skips_with_the_reason() -> None:
    skipped = _tick(None, FakeQuestDB({}, away=True))
    assert isinstance(skipped, dg.SkipReason)
    assert "does not answer" in str(skipped.skip_message)


def test_only_tables_that_should_move_every_minute_have_a_freshness_policy() -> None:
    policies = {spec.key.to_user_string(): spec.freshness_policy for spec in live_assets.live_specs}
    assert policies["bronze_ticks"] is live_assets.MINUTE
    assert policies["gold_5min"] is live_assets.FIVE_MINUTES
    assert policies["gap_marks"] is None


def test_a_table_that_stands_still_is_observed_with_its_lag_and_never_materialized() -> None:
    seen = live_assets.Seen(NOW, NOW)
    assert live_assets.standing_still("bronze_ticks", seen, NOW + NS_PER_MIN) is None
    told = live_assets.standing_still("bronze_ticks", seen, NOW + 10 * NS_PER_MIN)
    assert told is not None
    assert isinstance(told[0], dg.AssetObservation)
    assert told[0].metadata["lag_s"].value == 600.0
    assert told[1].watermark_ns == NOW, "the watermark is the table's, not the sensor's"
    assert live_assets.standing_still("gap_marks", seen, NOW + 10 * NS_PER_MIN) is None


def test_old_events_of_live_tables_are_forgotten_and_the_newest_stays() -> None:
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
