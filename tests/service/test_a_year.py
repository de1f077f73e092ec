"""A system that has run for a year: every periodic job does its work, keeps what must be kept, and everything else still works."""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
import pytest

from benchmarks.nightly import month_of_dagster
from btc_client import Client
from btc_core import system_backup
from btc_core.clock import NS_PER_DAY, NS_PER_S, column_ns, now_ns
from btc_core.days import log_archive
from btc_core.days.stored_days import read_day, stored_days
from btc_core.features.catalogue import MODEL_FEATURES
from btc_core.league import folder
from btc_core.models.bundle import random_walk_model
from btc_core.models.gate import Verdict
from btc_core.names import CHALLENGER, CHAMPION, PREVIOUS, ModelKey
from btc_core.registry import bundles, promotion
from btc_core.settings import settings as process_settings
from btc_core.stores.kafka_topics import ensure_topics
from btc_core.stores.mlflow import MAX_VERSIONS
from btc_core.stores.questdb import QuestDB
from btc_core.stores.s3 import ObjectStore
from btc_core.tables.arrow import digest
from btc_core.tables.catalogue import SILVER_FEATURES, STORED
from btc_core.utc_day import day_of
from stack.limits import usage_of
from stack.postgres_connection import connect
from stack.servers import questdb as questdb_server
from tests.service import past_runs, past_year
from tests.service.past_day import day_of_symbol
from tests.service.past_year import BARS_A_DAY, NARROW, ROWS_A_DAY, SEALED_AGO, SYMBOL, day_ago
from tests.serving_process import running, tables_and_objects
from tests.webhook import Webhook, contact

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import dagster as dg

    from btc_assets.definitions import RESOURCES, defs
    from btc_assets.skill import BAD_MARKETS, SKILL_CHECKS, prediction_skill

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stack.runtime import Stack

pytestmark = [
    pytest.mark.timeout(600),  # the year is made within the first test, which takes minutes on a busy machine
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
SERVERS = ("questdb", "kafka", "store", "postgres", "mlflow", "valkey", "exchange")
KEY = ModelKey(SYMBOL, "bid")
AGES = {CHALLENGER: 100, CHAMPION: 200, PREVIOUS: 300}
"""Days since the versions with an alias were trained."""
SCHEDULES = tuple(sorted(each.name for each in defs.schedules or ()))
SENSORS = tuple(sorted(each.name for each in defs.sensors or ()))
JOBS = tuple(sorted(each.name for each in defs.jobs or ()))
"""All that a live system runs by itself. A new one is tested by being there."""
TESTED_ALONE = frozenset(
    {
        "close_every_hour",
        "daily_backup",
        "daily_pruning",
        "daily_retrain",
        "daily_system_backup",
        "skill_every_ten_minutes",
    }
)
"""Schedules whose tests ask for more than success."""
NOT_MADE_UP = frozenset({"books_match"})
"""Checks of yesterday's rows that made-up rows fail."""
TIMES = {"skill": "ts", "minute_features": "minute_end"}
"""The columns by which series are ordered that are not by `ts_event`."""
TEMPLATE_DAY = "2024-02-29"
READERS = 2
"""As many requests as QuestDB answers at the same time."""
BEFORE_MIDNIGHT_S = 300
"""The tests do not begin so shortly before midnight, because each day is then a day older in the middle of them."""


@dg.op
def seal_one_day(context) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 - Dagster refuses the name of a type
    context.log_event(dg.AssetMaterialization("sealed_silver", partition=TEMPLATE_DAY))


@dg.job(name="seal_day", executor_def=dg.in_process_executor)
def sealing() -> None:
    """Stands for the sealing of a past day."""
    seal_one_day()


@dg.op
def fail() -> None:
    raise OSError("the disk is full")


@dg.job(name="breaking", executor_def=dg.in_process_executor)
def breaking() -> None:
    """Stands for a job that fails."""
    fail()


class Year:
    """The aged system, and what is asked of it often."""

    def __init__(self, stack: Stack, instance: dg.DagsterInstance) -> None:
        self.stack, self.settings, self.instance = stack, stack.settings, instance
        self.logs = Path(instance.storage_directory())
        self.done: set[str] = set()
        """The jobs, schedules and sensors that have run."""

    def tick(self, name: str, cursor: str | None = None) -> Any:
        """What a schedule or sensor asks for now, evaluated as the daemon of Dagster does."""
        self.done.add(name)
        shared: dict[str, Any] = {"instance": self.instance, "resources": RESOURCES}
        if name != "failure_sensor":  # else it would leave out runs of this process, which has no repository
            shared["repository_def"] = defs.get_repository_def()
        if name in SCHEDULES:
            at = dg.build_schedule_context(scheduled_execution_time=datetime.now(UTC), **shared)
            return defs.resolve_schedule_def(name).evaluate_tick(at)
        return defs.resolve_sensor_def(name).evaluate_tick(dg.build_sensor_context(cursor=cursor, **shared))

    def scheduled(self, name: str) -> dg.ExecuteInProcessResult:
        """Run what a schedule asks for now."""
        tick = self.tick(name)
        assert tick.run_requests, f"{name} asks for nothing: {tick.skip_message}"
        (request,) = tick.run_requests
        return self.run(defs.resolve_schedule_def(name).job_name, tags=request.tags)

    def run(self, job: str, **arguments: Any) -> dg.ExecuteInProcessResult:
        self.done.add(job)
        return defs.resolve_job_def(job).execute_in_process(instance=self.instance, raise_on_error=True, **arguments)

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
            timeout=300,
            check=False,
        )

    def stored(self) -> dict[str, dict[str, int]]:
        """The days of each table in QuestDB and their rows."""
        with QuestDB(self.settings.questdb) as db:
            return {table.name: stored_days(db, table) for table in STORED}

    def keys(self, prefix: str = "") -> set[str]:
        with ObjectStore(self.settings.store) as store:
            return set(store.keys(prefix))


@pytest.fixture(scope="module")
def year(own_stack: Stack) -> Iterator[Year]:
    until_midnight_s = (NS_PER_DAY - now_ns() % NS_PER_DAY) / NS_PER_S
    if until_midnight_s < BEFORE_MIDNIGHT_S:
        time.sleep(until_midnight_s + 1.0)
    own_stack.up(only=SERVERS)
    settings = own_stack.settings
    ensure_topics(settings)
    component = own_stack.components()["dagster-code"]
    component.before_start()
    with (
        _environment({"BTC_ENV_FILE": str(own_stack.layout.env_file), **component.env}),
        dg.DagsterInstance.get() as instance,
    ):
        found = Year(own_stack, instance)
        make_past_of_dagster(found)
        make_past_of_models(found)
        with QuestDB(settings.questdb) as db, ObjectStore(settings.store) as store:
            past_year.write_year(settings, db, store)
            past_runs.age_backups(store)
        folder.store(settings.user_models, folder.read_builtin("log_har"))
        yield found


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Variables and settings of a stack in this process, for the length of a block."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        process_settings.cache_clear()
        yield
    process_settings.cache_clear()


def make_past_of_dagster(year: Year) -> None:
    year.run("watch_models")
    year.run("close_hours")
    sealed = sealing.execute_in_process(instance=year.instance, tags={"dagster/partition": TEMPLATE_DAY})
    for name in ("bronze_ticks", "silver_features"):
        year.instance.report_runless_asset_event(dg.AssetMaterialization(name))
    past_runs.age_dagster(year.settings, year.instance, year.logs, sealed.run_id, TEMPLATE_DAY)


def make_past_of_models(year: Year) -> None:
    rows = np.zeros((2, len(MODEL_FEATURES)))
    promotion.publish(year.settings, KEY, random_walk_model(), rows, Verdict(passed=True, reason="it is the first"))
    past_runs.age_model(year.settings, KEY)
    for alias, ago in AGES.items():
        bundles.mlflow_of(year.settings).set_alias(KEY.name, alias, past_runs.version_of_age(ago))


def failed_checks(result: dg.ExecuteInProcessResult) -> set[str]:
    return {check.check_name for check in result.get_asset_check_evaluations() if not check.passed}


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    (made,) = result.asset_materializations_for_node(asset)
    return {name: value.value for name, value in made.metadata.items()}


def test_days_that_are_too_old_leave_questdb_and_nothing_else_does(year: Year) -> None:
    before, objects = year.stored(), year.keys()
    assert {name: list(days) for name, days in before.items()} == {
        table.name: past_year.days_in_questdb(table, year.settings) for table in STORED
    }
    done = year.scheduled("daily_backup")
    assert failed_checks(done) == set()
    shown = metadata(done, "lake_backups")
    assert (shown["copies_refused"], shown["days_held"]) == (0, 0)
    after = year.stored()
    for table in STORED:
        first = day_ago(table.ttl_days(year.settings.questdb))
        assert after[table.name] == {day: rows for day, rows in before[table.name].items() if day >= first}, table.name
    assert shown["days_dropped"] == sum(len(before[name]) - len(after[name]) for name in before) > 0
    assert len(after["gold_prediction_skill"]) == 365, "a year of forecasts stays"
    gone = objects - year.keys()
    assert {key.split("/")[0] for key in gone} == {"market.events"}, "nothing but archives of the log"
    archived = [day for day in past_year.archived_days(year.settings) if day > day_ago(year.settings.backup.log_days)]
    with ObjectStore(year.settings.store) as store:
        assert log_archive.archived_days(store) == archived, "archives older than a year are gone, and no others"
    again = metadata(year.run("back_up_tables"), "lake_backups")
    assert (again["copies_made"], again["days_dropped"], again["copies_expired"]) == (0, 0, 0)
    assert again["archive_objects_expired"] == 0
    assert year.stored() == after


def test_a_day_that_has_left_questdb_comes_back_from_the_object_store(year: Year) -> None:
    table, day = SILVER_FEATURES, day_ago(330)
    days = past_year.days_with_copies(table, year.settings)
    expected = past_year.rows_of(table, days).slice(days.index(day) * ROWS_A_DAY, ROWS_A_DAY)
    restored = year.btc("restore", "--from", day, "--to", day, "--tables", table.name, "--into-empty")
    assert restored.returncode == 0, restored.stderr
    with QuestDB(year.settings.questdb) as db:
        assert digest(read_day(db, table, day)) == digest(expected)


def test_the_databases_are_backed_up_and_a_month_of_backups_stays(year: Year) -> None:
    before = year.keys(f"{system_backup.PREFIX}/")
    assert len(before) == past_runs.BACKUPS
    size_bytes = metadata(year.scheduled("daily_system_backup"), "system_backup")["size_bytes"]
    assert size_bytes > 0
    after = year.keys(f"{system_backup.PREFIX}/")
    assert len(after & before) == year.settings.backup.system_days - 1
    assert len(after - before) >= len(
        ("manifest", "settings", year.settings.postgres.dagster_db, year.settings.postgres.mlflow_db)
    )


def test_old_versions_go_and_champions_challengers_and_a_month_stay(year: Year) -> None:
    mlflow = bundles.mlflow_of(year.settings)
    aliased = {past_runs.version_of_age(ago) for ago in AGES.values()}
    before = {each.version: each for each in mlflow.all_versions(KEY.name)}
    first_ns = now_ns() - year.settings.mlflow.keep_days * NS_PER_DAY
    month = {version for version, each in before.items() if each.created_ns >= first_ns}
    assert len(month) > MAX_VERSIONS, "one list of MLflow does not reach the older ones"
    assert len(before) - len(month) > 30
    year.scheduled("daily_pruning")
    assert {each.version for each in mlflow.all_versions(KEY.name)} == month | aliased
    for alias, ago in AGES.items():
        assert bundles.version_of(year.settings, KEY, alias) == past_runs.version_of_age(ago)
        version = bundles.load_version(year.settings, KEY, past_runs.version_of_age(ago))
        assert version.manifest.version == past_runs.version_of_age(ago)
    with ObjectStore(year.settings.store, year.settings.store.mlflow_bucket) as store:
        folders = {key.split("/")[1] for key in store.keys("") if not key.startswith(".stack/")}
    assert folders == {before[version].run_id for version in month | aliased}, "the files of the others are gone"


def test_old_runs_and_events_of_dagster_are_gone_and_what_is_shown_stays(year: Year) -> None:
    keep_days = year.settings.dagster.keep_days
    old = f"create_timestamp < now() - interval '{keep_days + 1} days'"
    for job in ("watch_models", "close_hours"):
        assert year.count("runs", f"pipeline_name = '{job}'") == len(range(1, keep_days + 1, past_runs.EVERY)), job
        assert year.count("runs", f"pipeline_name = '{job}' AND {old}") == 0, job
    assert year.count("runs", "pipeline_name = 'seal_day'") == past_runs.NIGHTS, "each day keeps the run that sealed it"
    sealed = year.instance.get_materialized_partitions(dg.AssetKey("sealed_silver"))
    assert len(sealed) == past_runs.NIGHTS
    event_days = year.settings.dagster.event_days
    assert 2 * (event_days - 1) <= year.count("event_logs", "run_id = ''") <= 2 * (event_days + 1)
    kinds = "(SELECT DISTINCT asset_key, check_name, execution_status FROM asset_check_executions) c"
    assert year.count("asset_check_executions") > 0
    assert year.count("asset_check_executions", old) <= year.count(kinds)
    postgres = year.settings.postgres
    with connect(postgres, postgres.dagster_db) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT run_id FROM runs")
        known = {str(run_id) for (run_id,) in cursor.fetchall()}
        cursor.execute("SELECT DISTINCT run_id FROM event_logs WHERE run_id != ''")
        assert {str(run_id) for (run_id,) in cursor.fetchall()} <= known, "the events of deleted runs are deleted"
    captured = {path.name for path in year.logs.iterdir()}
    assert captured <= known, "the output of deleted runs is deleted"
    assert len(captured) >= past_runs.NIGHTS


def test_the_periodic_jobs_and_sensors_work_on_a_year(year: Year) -> None:
    before = year.stored()["gold_forecast_roots"]
    for name in ("skill_every_ten_minutes", "close_every_hour"):
        assert year.scheduled(name).success
    after = year.stored()["gold_forecast_roots"]
    assert after == before, "no past hour is closed again"
    reported = {event.asset_key.to_user_string() for event in year.tick("live_tables_sensor").asset_events}
    assert reported >= {"bronze_ticks", "gold_prediction_outcomes"}


def test_a_day_is_streamed_sealed_and_copied(year: Year) -> None:
    day = day_ago(SEALED_AGO)
    symbol = day_of_symbol(year.settings, "AGED", late={}, day=day)
    cursor, asked = None, []
    for _ in range(2):
        tick = year.tick("sealing_sensor", cursor)
        cursor, asked = tick.cursor, [request for request in tick.run_requests or [] if request.partition_key == day]
    (request,) = asked
    done = year.run("seal_day", partition_key=day, tags=request.tags)
    assert failed_checks(done) == set()
    sealed = metadata(done, "sealed_silver")
    assert (sealed["dagster/partition_row_count"], sealed["rows_missing"], sealed["rows_different"]) == (1_200, 0, 0)
    assert metadata(done, "day_archive")["written"]
    assert f"silver_features/{day}/manifest.json" in year.keys("silver_features/")
    assert symbol
    reported = {event.asset_key.to_user_string() for event in year.tick("log_sensor").asset_events}
    assert reported >= {"market_events_topic", "gap_marks", "redis_features", "forecast_api"}


def test_a_model_is_trained_on_the_past_and_registered(year: Year) -> None:
    done = year.scheduled("daily_retrain")
    shown = metadata(done, "bid_model")
    assert shown["train_rows"] > 600
    trained = bundles.load_version(year.settings, KEY, shown["version"])
    assert int(shown["version"]) == len(past_runs.VERSION_AGES_DAYS) + 2
    assert trained.manifest.train_rows == shown["train_rows"]


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name not in TESTED_ALONE])
def test_a_schedule_asks_for_a_run_that_succeeds(
    year: Year, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("btc_assets.training_bars.OLDER_BARS_BUDGET_S", 1.0)  # one piece of older trades
    older = {"BTC_EXCHANGE_HISTORY_URL": "", "BTC_MODEL_HISTORY_DAYS": str(past_year.ALL_DAYS + 1)}
    with _environment({"BTC_BACKUP_COPY_TO": str(tmp_path)} | (older if name == "history_every_hour" else {})):
        done = year.scheduled(name)
    assert failed_checks(done) <= NOT_MADE_UP


def test_bad_forecasts_ask_for_a_training(year: Year) -> None:
    failed = {BAD_MARKETS: dg.MetadataValue.text(SYMBOL)}
    check = next(iter(SKILL_CHECKS.values()))
    year.instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(asset_key=prediction_skill.key, check_name=check, passed=False, metadata=failed)
    )
    (request,) = year.tick("retrain_on_bad_skill").run_requests
    assert (request.partition_key, request.tags["btc/because"]) == (SYMBOL, check)


def test_a_run_that_failed_is_told_to_a_person(year: Year) -> None:
    with contact() as url, _environment({"BTC_ALERT_URLS": url}):
        first = year.tick("failure_sensor")
        assert not breaking.execute_in_process(instance=year.instance, raise_on_error=False).success
        year.tick("failure_sensor", first.cursor)
    assert [message["title"].rpartition(": ")[2] for message in Webhook.received] == ["breaking failed"]


def test_a_year_is_one_call_of_the_api(year: Year, tmp_path: Path) -> None:
    settings = year.settings
    first, end = day_ago(360), day_ago(SEALED_AGO)
    days = 360 - SEALED_AGO
    with (
        running(settings, tmp_path, **tables_and_objects(settings)) as api,
        Client(f"http://127.0.0.1:{api.port}", retries=0) as client,
    ):
        assert len(client.bars(SYMBOL, first, end)) >= days * BARS_A_DAY
        refused = (("skill", "refuse"), ("trades", "refuse"), ("features", "refuse"), ("minute_features", "refuse"))
        for series, missing in (*refused, ("forecasts", "skip")):
            rows = client.table(series, SYMBOL, first, end, missing=missing)
            if missing == "refuse":
                assert len(rows) == days * ROWS_A_DAY, series
            assert len(rows) >= 12 * ROWS_A_DAY, series
            times = rows[TIMES.get(series, "ts_event")]
            assert pc.all(pc.greater(times[1:], times[:-1])).as_py(), f"{series} are in order, each once"
            assert day_of(int(column_ns(times)[0])) < day_ago(330), series


def memory_maps(year: Year) -> int:
    (questdb,) = year.stack.status(("questdb",))
    return {usage.what: usage.used for usage in usage_of(questdb.pid)}["memory maps"]


def test_questdb_keeps_few_of_the_days_that_it_has_read_in_memory(year: Year) -> None:
    columns = sum(len(table.columns) for table in STORED if table.name in NARROW)
    before = memory_maps(year)
    queries = ["SELECT count(), sum(ratio) FROM gold_prediction_skill", "SELECT count(), sum(close) FROM minute_bars"]
    with QuestDB(year.settings.questdb) as db, ThreadPoolExecutor(READERS) as pool:
        answers = list(pool.map(db.execute, queries * READERS))
    assert min(rows for ((rows, _),) in answers) >= 365 * ROWS_A_DAY, "a year was read"
    most = READERS * (questdb_server.OPEN_PARTITIONS + 1) * columns
    assert 2 * most < 365 * columns, "a year that one reader keeps would be more"
    assert memory_maps(year) < before + most


def test_a_month_of_dagster_is_computed_from_the_rows_of_the_last_minutes(year: Year) -> None:
    total, *parts = month_of_dagster(year.settings)
    assert total.value == pytest.approx(sum(each.value for each in parts))
    assert min(each.value for each in parts if "event_logs" in each.name or "runs" in each.name) > 0.0


def test_the_doctor_finds_nothing_that_has_grown(year: Year) -> None:
    found = year.btc("doctor").stdout
    subjects = ("limits of questdb", "backup of the databases", "room on the disk")
    lines = [line.strip() for line in found.splitlines() if any(subject in line for subject in subjects)]
    assert sorted(lines) == sorted(f"ok  {subject}" for subject in subjects), found


def test_no_job_schedule_or_sensor_of_a_live_system_was_left_out(year: Year) -> None:
    """It needs the tests before it."""
    assert year.done == {*JOBS, *SCHEDULES, *SENSORS}
