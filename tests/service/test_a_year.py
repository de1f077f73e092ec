"""A system that has run for a year: every periodic job does its work, keeps what must be kept, and finds nothing to do again."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
import pytest

from btc_client import Client
from btc_core.clock import NS_PER_DAY, now_ns
from btc_core.days import log_archive
from btc_core.days.stored_days import read_day, stored_days
from btc_core.days.training_rows import read_training_rows
from btc_core.features.catalogue import MODEL_FEATURES
from btc_core.models.bundle import random_walk_model
from btc_core.models.gate import Verdict
from btc_core.names import CHALLENGER, CHAMPION, PREVIOUS, ModelKey
from btc_core.registry import bundles, promotion
from btc_core.settings import settings as process_settings
from btc_core.stores.kafka_topics import ensure_topics
from btc_core.stores.questdb import QuestDB
from btc_core.stores.s3 import ObjectStore
from btc_core.tables.arrow import digest
from btc_core.tables.catalogue import SILVER_FEATURES, STORED
from btc_core.utc_day import day_ns, day_of
from stack.limits import usage_of
from stack.postgres_connection import connect
from tests.service import past_runs, past_year
from tests.service.past_year import ALL_DAYS, SYMBOL, days_in_questdb, days_with_rows, past_days, rows_of
from tests.serving_process import running

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import dagster as dg

    from btc_assets import pruning
    from btc_assets.definitions import RESOURCES, defs
    from btc_assets.live_assets import live_tables_sensor
    from btc_assets.sealing import sealing_sensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stack.runtime import Stack

pytestmark = [
    pytest.mark.timeout(1_200),  # the year is made within the first test, which takes minutes on a busy machine
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
SERVERS = ("questdb", "kafka", "store", "postgres", "mlflow", "valkey")
KEY = ModelKey(SYMBOL, "bid")
CHAMPION_AGE, PREVIOUS_AGE = 200, 300
"""Days since the champion and the model before it were trained."""
MOST_MAPS = 20_000
"""Memory maps that QuestDB may have when everything has been read; Linux allows 65,530."""
MOST_DUMP_BYTES = 20_000_000
MOST_CURSOR_BYTES = 5_000
MADE_UP_CHECKS = {"books_match"}
"""Checks of tables that made-up rows fail."""
TEMPLATE_DAY = "2024-02-29"


@dg.op
def seal_one_day(context) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 - Dagster refuses the name of a type
    context.log_event(dg.AssetMaterialization("sealed_silver", partition=TEMPLATE_DAY))


@dg.job(name="seal_day", executor_def=dg.in_process_executor)
def sealing() -> None:
    """Stands for the sealing of a past day."""
    seal_one_day()


class Year:
    """The aged system, and what is asked of it often."""

    def __init__(self, stack: Stack, instance: dg.DagsterInstance, sources: dict[int, str]) -> None:
        self.stack, self.settings, self.instance, self.sources = stack, stack.settings, instance, sources
        self.logs = Path(instance.storage_directory())

    def run(self, job: str) -> dg.ExecuteInProcessResult:
        return defs.resolve_job_def(job).execute_in_process(instance=self.instance, raise_on_error=True)

    def count(self, table: str, condition: str = "true") -> int:
        """Rows of a table of Dagster."""
        postgres = self.settings.postgres
        with connect(postgres, postgres.dagster_db) as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM {table} WHERE {condition}")
            return int(cursor.fetchone()[0])

    def btc(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "ignore", "-m", "btc_cli", *arguments]
        return subprocess.run(
            [*command, "--data-dir", str(self.stack.layout.data_dir)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture(scope="module")
def year(own_stack: Stack) -> Iterator[Year]:
    own_stack.up(only=SERVERS)
    settings = own_stack.settings
    ensure_topics(settings)
    component = own_stack.components()["dagster-code"]
    component.before_start()
    patch = pytest.MonkeyPatch()
    patch.setenv("BTC_ENV_FILE", str(own_stack.layout.env_file))
    for name, value in component.env.items():
        patch.setenv(name, value)
    process_settings.cache_clear()
    with QuestDB(settings.questdb) as db, ObjectStore(settings.store) as store:
        past_year.write_year(settings, db, store)
    rows = np.zeros((2, len(MODEL_FEATURES)))
    promotion.publish(settings, KEY, random_walk_model(), rows, Verdict(passed=True, reason="it is the first"))
    sources = past_runs.age_model(settings, KEY)
    mlflow = bundles.mlflow_of(settings)
    for alias, ago in ((CHAMPION, CHAMPION_AGE), (PREVIOUS, PREVIOUS_AGE)):
        mlflow.set_alias(KEY.name, alias, str(past_runs.NIGHTS - ago + 2))
    with dg.DagsterInstance.get() as instance:
        found = Year(own_stack, instance, sources)
        found.run("watch_models")
        found.run("close_hours")
        sealed = sealing.execute_in_process(instance=instance, tags={"dagster/partition": TEMPLATE_DAY})
        for name in ("bronze_ticks", "silver_features"):
            instance.report_runless_asset_event(dg.AssetMaterialization(name))
        past_runs.age_dagster(settings, instance, found.logs, sealed.run_id, TEMPLATE_DAY)
        yield found
    patch.undo()
    process_settings.cache_clear()


def failed_checks(result: dg.ExecuteInProcessResult) -> set[str]:
    return {check.check_name for check in result.get_asset_check_evaluations() if not check.passed}


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    (made,) = result.asset_materializations_for_node(asset)
    return {name: value.value for name, value in made.metadata.items()}


def keys(year: Year) -> set[str]:
    with ObjectStore(year.settings.store) as store:
        return {key for key in store.keys("") if not key.startswith((".stack/", "system_backup/"))}


def stored(year: Year) -> dict[str, dict[str, int]]:
    with QuestDB(year.settings.questdb) as db:
        found = {table.name: stored_days(db, table) for table in STORED}
    today = day_of(past_year.TODAY_NS)  # of which some jobs write rows
    return {name: {day: rows for day, rows in days.items() if day < today} for name, days in found.items()}


def test_days_that_are_too_old_leave_questdb_and_nothing_else_does(year: Year) -> None:
    before, objects = stored(year), keys(year)
    assert {name: len(days) for name, days in before.items()} == {
        table.name: len(days_with_rows(table, days_in_questdb(table, year.settings))) for table in STORED
    }
    done = year.run("back_up_tables")
    assert failed_checks(done) == set()
    shown = metadata(done, "lake_backups")
    assert (shown["copies_refused"], shown["days_held"]) == (0, 0)
    after = stored(year)
    for table in STORED:
        first = day_of(now_ns() - table.ttl_days(year.settings.questdb) * NS_PER_DAY)
        assert after[table.name] == {day: rows for day, rows in before[table.name].items() if day >= first}, table.name
    gone, first_ns = objects - keys(year), now_ns() - year.settings.backup.log_days * NS_PER_DAY
    archived = [day for day in past_days(ALL_DAYS) if day_ns(day) >= first_ns]
    assert {key.split("/")[0] for key in gone} == {"market.events"}, "nothing but archives of the log"
    assert {key.split("/")[1] for key in gone} == set(past_days(ALL_DAYS)) - set(archived), "those older than a year"
    with ObjectStore(year.settings.store) as store:
        assert log_archive.archived_days(store) == archived
    again = metadata(year.run("back_up_tables"), "lake_backups")
    assert (again["copies_made"], again["days_dropped"], again["copies_expired"]) == (0, 0, 0)
    assert again["archive_objects_expired"] == 0
    assert stored(year) == after


def test_an_old_day_comes_back_from_the_object_store(year: Year) -> None:
    table, day = SILVER_FEATURES, past_days(ALL_DAYS)[10]
    expected = rows_of(table, past_days(ALL_DAYS)).slice(10 * past_year.ROWS_A_DAY, past_year.ROWS_A_DAY)
    restored = year.btc("restore", "--from", day, "--to", day, "--tables", table.name, "--into-empty")
    assert restored.returncode == 0, restored.stderr
    with QuestDB(year.settings.questdb) as db:
        assert digest(read_day(db, table, day)) == digest(expected)
    year.run("back_up_tables")
    assert day not in stored(year)[table.name], "it is older than the retention, and its copy is still there"


def test_the_restore_drill_and_the_backup_of_the_databases_work(year: Year) -> None:
    drill = year.run("drill_restore")
    assert failed_checks(drill) == set()
    assert metadata(drill, "restore_drill")["copies_tried"] == 2 * len(STORED)
    size_bytes = metadata(year.run("back_up_system"), "system_backup")["size_bytes"]
    assert 0 < size_bytes < MOST_DUMP_BYTES


def test_old_versions_go_and_champions_challengers_and_a_month_stay(year: Year) -> None:
    mlflow = bundles.mlflow_of(year.settings)
    aliased = {alias: str(bundles.version_of(year.settings, KEY, alias)) for alias in (CHAMPION, PREVIOUS, CHALLENGER)}
    before = {each.version: each for each in mlflow.all_versions(KEY.name)}
    assert len(before) == past_runs.NIGHTS + 1
    first_ns = now_ns() - year.settings.mlflow.keep_days * NS_PER_DAY
    month = {version for version, each in before.items() if each.created_ns >= first_ns}
    year.run("prune_events")
    left = {each.version for each in mlflow.all_versions(KEY.name)}
    assert left == month | set(aliased.values())
    for version in aliased.values():
        assert bundles.load_version(year.settings, KEY, version).manifest.version == version
    with ObjectStore(year.settings.store, year.settings.store.mlflow_bucket) as store:
        folders = {key.split("/")[-4] for key in store.keys("")}
    assert folders == {before[version].run_id for version in left}, "the files of the others are gone"


def test_old_runs_and_events_of_dagster_are_gone_and_what_is_shown_stays(year: Year) -> None:
    keep_days = year.settings.dagster.keep_days
    for job in ("watch_models", "close_hours"):
        assert year.count("runs", f"pipeline_name = '{job}'") <= keep_days // past_runs.EVERY + 2, job
    assert year.count("runs", "pipeline_name = 'seal_day'") == past_runs.NIGHTS, (
        "every day keeps the run that sealed it"
    )
    sealed = year.instance.get_materialized_partitions(dg.AssetKey("sealed_silver"))
    assert len(sealed) == past_runs.NIGHTS
    runless = year.count("event_logs", "run_id = ''")
    assert runless <= 2 * (pruning.KEEP_DAYS + 2)
    old = f"create_timestamp < now() - interval '{keep_days + 1} days'"
    kept = year.count("(SELECT DISTINCT asset_key, check_name, execution_status FROM asset_check_executions) c")
    assert year.count("asset_check_executions", old) <= kept
    with (
        connect(year.settings.postgres, year.settings.postgres.dagster_db) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT run_id FROM runs")
        known = {str(run_id) for (run_id,) in cursor.fetchall()}
    assert {path.name for path in year.logs.iterdir()} <= known, "the output of deleted runs is deleted"
    counts = [year.count(table) for table in ("runs", "event_logs", "asset_check_executions")]
    year.run("prune_events")
    added = [
        year.count(table) - count
        for table, count in zip(("runs", "event_logs", "asset_check_executions"), counts, strict=True)
    ]
    assert added[0] == 1, "only the run of this job is new"
    assert added[2] == 0


def test_the_jobs_of_every_ten_minutes_every_hour_and_every_day_work_on_a_year(year: Year) -> None:
    before = stored(year)["gold_forecast_roots"]
    for job in ("watch_models", "close_hours", "check_tables"):
        assert year.run(job).success
    assert failed_checks(year.run("check_tables")) <= MADE_UP_CHECKS
    after = stored(year)["gold_forecast_roots"]
    assert all(after[day] == rows for day, rows in before.items()), "no past hour is closed again"
    tick = live_tables_sensor(dg.build_sensor_context(instance=year.instance), database=RESOURCES["database"])
    assert {event.asset_key.to_user_string() for event in tick.asset_events} >= {
        "bronze_ticks",
        "gold_prediction_outcomes",
    }
    seals = sealing_sensor(
        dg.build_sensor_context(instance=year.instance),
        environment=RESOURCES["environment"],
        database=RESOURCES["database"],
    )
    assert not getattr(seals, "run_requests", []), "the days of the last week have to stand still for a minute"
    assert len(str(getattr(seals, "cursor", ""))) < MOST_CURSOR_BYTES


def test_training_reads_a_year(year: Year) -> None:
    with QuestDB(year.settings.questdb) as db, ObjectStore(year.settings.store) as store:
        rows = read_training_rows(db, store, SYMBOL, 365)
    assert len(rows.bars) >= 364 * past_year.BARS_A_DAY


def test_a_year_is_one_call_of_the_client(year: Year, tmp_path: Path) -> None:
    settings = year.settings
    servers = {
        "BTC_QUESTDB_HTTP_URL": settings.questdb.http_url,
        "BTC_QUESTDB_USER": settings.questdb.user,
        "BTC_QUESTDB_PASSWORD": settings.questdb.password.get_secret_value(),
        "BTC_STORE_ENDPOINT_URL": settings.store.endpoint_url,
        "BTC_STORE_ACCESS_KEY": settings.store.access_key,
        "BTC_STORE_SECRET_KEY": settings.store.secret_key.get_secret_value(),
    }
    days = past_days(360)
    with running(settings, tmp_path, **servers) as api, Client(f"http://127.0.0.1:{api.port}", retries=0) as client:
        end = day_of(now_ns())
        bars = client.bars(SYMBOL, days[0], end)
        assert len(bars) == len(days) * past_year.BARS_A_DAY
        for series in ("forecasts", "skill", "trades", "features"):
            rows = client.table(series, SYMBOL, days[0], end)
            assert len(rows) == len(days) * past_year.ROWS_A_DAY, series
            times = rows["ts" if series == "skill" else "ts_event"]
            assert pc.all(pc.greater(times[1:], times[:-1])).as_py(), f"{series} are in order, each once"


def test_questdb_stays_far_from_the_limits_of_the_system_and_the_doctor_finds_nothing_in_it(year: Year) -> None:
    with QuestDB(year.settings.questdb) as db:
        for table in STORED:
            read_day(db, table, past_days(1)[0])
    pid = {each.name: each for each in year.stack.status()}["questdb"].pid
    used = {usage.what: usage.used for usage in usage_of(pid)}
    assert used["memory maps"] < MOST_MAPS
    found = year.btc("doctor").stdout
    lines = [line for line in found.splitlines() if "limits of questdb" in line or "backup of the databases" in line]
    assert [line.strip().split("  ")[0] for line in lines] == ["ok", "ok"], found
