"""Dagster on real servers: a day is sealed once for each seal, copied, lost with QuestDB, restored and proven again."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from btc_cli import backfill
from btc_core.clock import NS_PER_DAY, NS_PER_S, now_ns
from btc_core.days import lake
from btc_core.days.gold import make_gold
from btc_core.days.silver_proof import prove
from btc_core.days.stored_days import read_day
from btc_core.settings import settings as process_settings
from btc_core.stores.kafka_topics import ensure_topics
from btc_core.stores.questdb import QuestDB, write_rows
from btc_core.stores.s3 import ObjectStore
from btc_core.tables.arrow import arrow_schema, digest
from btc_core.tables.bar_tables import GOLD_1MIN_SEALED
from btc_core.tables.catalogue import BRONZE_TRADES, SILVER_FEATURES, STORED, TABLES
from btc_core.utc_day import day_ns, day_of
from serving.system_gauges import update_backups
from tests.real_alerts import Looks, alerts_of_api
from tests.service.made_up import made_up
from tests.service.past_day import day_of_symbol, keep_nothing
from tests.waiting import wait_for

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import dagster as dg
    from dagster._core.storage.tags import (
        ASSET_PARTITION_RANGE_END_TAG,
        ASSET_PARTITION_RANGE_START_TAG,
        PARTITION_NAME_TAG,
    )

    from btc_assets.definitions import RESOURCES, defs
    from btc_assets.sealed import sealed_assets
    from btc_assets.sealing import MAX_ATTEMPTS, RETRY_PAUSE_S, sealing_sensor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from btc_core.settings import Settings
    from stack.runtime import Stack

pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
SERVERS = ("questdb", "kafka", "valkey", "store")
RESEALS = 20
DAY = day_of(now_ns() - 4 * NS_PER_DAY)
"""Not a day of other tests, because this one is lost."""
EVENING = day_of(day_ns(DAY) - NS_PER_DAY)
"""The day before, in which the warm-up window of `DAY` begins."""


@pytest.fixture(scope="module")
def system(own_stack: Stack) -> Iterator[Settings]:
    """Servers, with the settings of their stack in this process."""
    own_stack.up(only=SERVERS)
    ensure_topics(own_stack.settings)
    patch = pytest.MonkeyPatch()
    patch.setenv("BTC_ENV_FILE", str(own_stack.layout.env_file))
    process_settings.cache_clear()
    yield own_stack.settings
    patch.undo()
    process_settings.cache_clear()


@pytest.fixture(scope="module")
def symbol(system: Settings) -> str:
    """A market of which the stream has written the day."""
    return day_of_symbol(system, "ASSETS", late={}, day=DAY)


@pytest.fixture
def db(system: Settings) -> Iterator[QuestDB]:
    with QuestDB(system.questdb) as client:
        yield client


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def tick(cursor: str | None, instance: dg.DagsterInstance) -> Any:
    context = dg.build_sensor_context(instance=instance, cursor=cursor)
    return sealing_sensor(context, environment=RESOURCES["environment"], database=RESOURCES["database"])


def two_ticks(cursor: str | None, instance: dg.DagsterInstance) -> Any:
    """The second of two ticks: at the first one, the rows of a changed day may still be written."""
    return tick(tick(cursor, instance).cursor, instance)


def requests_of(result: Any, day: str) -> list[dg.RunRequest]:
    return [request for request in result.run_requests or [] if request.partition_key == day]


def reason(result: Any) -> str:
    assert not result.run_requests
    return str(result.skip_reason.skip_message)


def btc(stack: Stack, *arguments: str, fails: bool = False) -> str:
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "btc_cli",
        *arguments,
        "--data-dir",
        str(stack.layout.data_dir),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert (done.returncode != 0) is fails, done.stdout + done.stderr
    return done.stderr if fails else done.stdout


def test_a_complete_day_is_sealed_proven_and_copied_in_one_run(
    symbol: str, system: Settings, instance: dg.DagsterInstance
) -> None:
    asked = two_ticks(None, instance)
    (request,) = requests_of(asked, DAY)
    run_key = str(request.run_key)
    assert run_key.startswith(f"{DAY}@")
    assert reason(tick(asked.cursor, instance)) == "no complete day has changed since it was sealed", (
        "once for each seal"
    )

    result = defs.resolve_job_def("seal_day").execute_in_process(
        partition_key=DAY, instance=instance, tags=request.tags
    )
    assert result.success
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert checks["stream_equals_replay"].passed
    assert checks["bronze_equals_log"].passed
    silver = result.asset_materializations_for_node("sealed_silver")[0]
    assert silver.partition == DAY
    assert silver.metadata["dagster/partition_row_count"].value >= 1_200
    assert silver.metadata["rows_different"].value == 0
    assert silver.metadata["seal"].value == run_key.partition("@")[2]
    gold = result.asset_materializations_for_node("gold_1min_sealed")[0]
    assert "data:image/png;base64," in gold.metadata["bars"].value
    copied = result.asset_materializations_for_node("day_backup")[0]
    assert copied.metadata["dagster/partition_row_count"].value > 2_400
    assert checks["archive_equals_bronze"].passed
    archived = result.asset_materializations_for_node("day_archive")[0].metadata
    assert archived["dagster/partition_row_count"].value == 900
    assert archived["written"].value is True
    assert (archived["quotes"].value, archived["bronze_quotes"].value) == (600, 600)
    assert (archived["trades"].value, archived["bronze_trades"].value) == (600, 600)
    with ObjectStore(system.store) as store:
        manifest = lake.read_manifest(store, "silver_features", DAY)
    assert manifest is not None
    assert manifest.seal == run_key.partition("@")[2]
    assert symbol


def test_an_archived_day_is_replayed_and_compared_with_the_rows_of_the_stream(
    own_stack: Stack, symbol: str, tmp_path: Path
) -> None:
    btc(own_stack, "backfill", "--from", EVENING, "--to", DAY, "--assets", "day_archive")
    out = tmp_path / "rows.parquet"
    printed = btc(own_stack, "replay", "--day", DAY, "--symbol", symbol, "--out", str(out))
    assert "900 messages" in printed
    assert "1200 of 1200 rows equal those in silver_features to the last bit" in printed
    assert pq.read_metadata(out).num_rows == 1_200
    assert "gave no feature row of OTHER/USD" in btc(
        own_stack, "replay", "--day", DAY, "--symbol", "OTHER/USD", fails=True
    )
    refused = btc(own_stack, "replay", "--day", "2024-02-29", fails=True)
    assert f"2024-02-29 has no archive of its log; there are archives of 2 days, from {EVENING} to {DAY}" in refused
    assert "'yesterday' is not a day" in btc(own_stack, "replay", "--day", "yesterday", fails=True)
    assert "name either a recording, or a day" in btc(own_stack, "replay", fails=True)


@pytest.mark.usefixtures("symbol")
def test_a_day_is_requested_once_when_its_midnight_and_its_grace_have_passed(
    system: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    midnight_ns = day_ns(DAY) + NS_PER_DAY
    grace_s = system.seal.grace_s
    cursor: str | None = None
    asked: dict[int, list[str | None]] = {}
    for after_s in (-60, -1, 0, 60, grace_s - 1, grace_s, grace_s + 60, 86_399):
        monkeypatch.setattr("btc_assets.sealing.now_ns", lambda after_s=after_s: midnight_ns + after_s * NS_PER_S)
        result = tick(cursor, instance)
        cursor = result.cursor
        asked[after_s] = [request.partition_key for request in result.run_requests or []]
    assert [after_s for after_s, days in asked.items() if DAY in days] == [grace_s]


@dg.op
def failing_step() -> None:
    raise dg.Failure("QuestDB does not answer")


@dg.job(name="seal_day")
def failing_seal_day() -> None:
    failing_step()


@pytest.mark.usefixtures("symbol")
def test_a_day_whose_sealing_failed_is_requested_again_but_not_for_ever(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    cursor, keys, pauses = tick(None, instance).cursor, [], []
    ended_s = now_ns() / NS_PER_S

    def later(seconds: float) -> Any:
        """A tick so long after the end of the last run."""
        monkeypatch.setattr("btc_assets.sealing.now_ns", lambda: round((ended_s + seconds) * NS_PER_S))
        return tick(cursor, instance)

    for number in range(MAX_ATTEMPTS):
        if number:
            pauses.append(RETRY_PAUSE_S * 2 ** (number - 1))
            assert f"{DAY}: run {number} has failed; the next one starts in 5 s" in reason(later(pauses[-1] - 5))
        result = later(pauses[-1] + 5 if pauses else 0)
        cursor = result.cursor
        (asked,) = requests_of(result, DAY)
        keys.append(asked.run_key)
        tags = {**asked.tags, "dagster/partition": DAY}
        run = failing_seal_day.execute_in_process(instance=instance, tags=tags, raise_on_error=False)
        assert not run.success
        ended_s = instance.get_run_record_by_id(run.run_id).end_time
    assert [key.partition("#")[2] for key in keys] == ["", "2", "3", "4", "5", "6"]
    assert sum(pauses) == pytest.approx(2.6 * 3_600, rel=0.02)
    assert f"{DAY}: 6 runs have failed" in reason(later(86_400))


def write_late(db: QuestDB, symbol: str, number: int, day: str = DAY) -> None:
    """Store a copy of a trade of the day as an imported trade, which is not in the log."""
    trades = TABLES["bronze_trades"]
    first = read_day(db, trades, DAY)
    row = first.filter(pa.compute.equal(first["symbol"], symbol)).slice(0, 1)
    late = {name: row[name] for name in arrow_schema(trades).names}
    late["symbol"] = pa.array([f"LATE{symbol}"])
    late["kafka_partition"] = pa.array([-1], pa.int32())
    late["kafka_offset"] = late["trade_id"] = pa.array([number + 1])
    late["ts_event"] = pa.array([day_ns(day) + number], pa.timestamp("ns"))
    write_rows(db, trades, pa.table(late))


def test_each_change_of_a_day_is_one_run(db: QuestDB, symbol: str, instance: dg.DagsterInstance) -> None:
    cursor = two_ticks(None, instance).cursor
    keys = []
    for number in range(RESEALS):
        write_late(db, symbol, number)
        asked = two_ticks(cursor, instance)
        cursor = asked.cursor
        keys += [request.run_key for request in requests_of(asked, DAY)]
    assert len(keys) == len(set(keys)) == RESEALS
    assert reason(tick(cursor, instance)) == "no complete day has changed since it was sealed"


def test_a_day_that_is_being_fetched_is_sealed_and_checked_once_when_its_rows_stand_still(
    db: QuestDB, symbol: str, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    today = day_of(now_ns())
    yesterday = day_of(day_ns(today) - NS_PER_DAY)
    # In the first minutes of a day, the grace of yesterday is not over.
    monkeypatch.setattr("btc_assets.sealing.now_ns", lambda: day_ns(today) + NS_PER_DAY // 2)
    cursor = two_ticks(None, instance).cursor
    for number in range(3):
        write_late(db, symbol, number, yesterday)
        result = tick(cursor, instance)
        assert f"{yesterday}: its rows may still be written" in reason(result)
        cursor = result.cursor
    sealed, checked = tick(cursor, instance).run_requests
    assert (sealed.job_name, sealed.partition_key, checked.job_name) == ("seal_day", yesterday, "check_tables")


@pytest.mark.parametrize(
    ("tags", "waits"),
    [
        ({PARTITION_NAME_TAG: DAY}, True),
        ({ASSET_PARTITION_RANGE_START_TAG: "2000-01-01", ASSET_PARTITION_RANGE_END_TAG: "2100-01-01"}, True),
        ({PARTITION_NAME_TAG: "2000-01-01"}, False),
    ],
)
@pytest.mark.usefixtures("symbol")
def test_a_day_waits_for_the_run_that_fetches_its_trades(
    instance: dg.DagsterInstance, tags: dict[str, str], *, waits: bool
) -> None:
    run = dg.DagsterRun(
        "fetch",
        status=dg.DagsterRunStatus.STARTED,
        tags=tags,
        asset_selection=frozenset({dg.AssetKey("bronze_history")}),
    )
    instance.add_run(run)
    asked = two_ticks(None, instance)
    assert bool(requests_of(asked, DAY)) is not waits


def test_a_seal_that_would_change_most_of_a_day_is_refused_until_a_person_insists(
    own_stack: Stack, system: Settings, symbol: str, instance: dg.DagsterInstance
) -> None:
    job = defs.resolve_job_def("seal_day")
    assert job.execute_in_process(partition_key=DAY, instance=instance).success
    with QuestDB(system.questdb) as db:
        silver = TABLES["silver_features"]
        right = read_day(db, silver, DAY)
        column = right.schema.names.index("mid")
        write_rows(db, silver, right.set_column(column, "mid", [pa.compute.add(right["mid"], 1.0)]))
        wrong = digest(read_day(db, silver, DAY))

    result = job.execute_in_process(partition_key=DAY, instance=instance, raise_on_error=False)
    assert not result.success
    failed = {check.check_name: check for check in result.get_asset_check_evaluations() if not check.passed}
    assert "1200 of 1200 stored feature rows (100%)" in str(failed["changes_are_plausible"].description)
    assert not result.asset_materializations_for_node("day_backup"), "nothing wrong is copied"
    refused = btc(own_stack, "backfill", "--from", DAY, "--to", DAY, fails=True)
    assert "changes_are_plausible failed" in refused
    assert "--insist" in refused
    with QuestDB(system.questdb) as db:
        assert digest(read_day(db, silver, DAY)) == wrong, "a refused seal changes nothing"

    # The stored rows were damaged, so a run that insists repairs them; `stream_equals_replay` reports the damage.
    refused = btc(own_stack, "backfill", "--from", DAY, "--to", DAY, "--insist", fails=True)
    assert "stream_equals_replay failed" in refused
    assert job.execute_in_process(partition_key=DAY, instance=instance).success
    with QuestDB(system.questdb) as db:
        assert digest(read_day(db, silver, DAY)) == digest(right)
    listed = btc(own_stack, "seals", DAY)
    assert "1200 rows of silver_features replaced" in listed
    seal = next(line.split()[0] for line in listed.splitlines() if "replaced" in line)
    assert "1200 rows" in btc(own_stack, "undo-seal", DAY, seal)
    with QuestDB(system.questdb) as db:
        assert digest(read_day(db, silver, DAY)) == wrong
        write_rows(db, silver, right)
    assert job.execute_in_process(partition_key=DAY, instance=instance).success
    assert symbol


def test_days_lost_with_questdb_are_restored_and_proven(own_stack: Stack, system: Settings, symbol: str) -> None:
    printed = btc(own_stack, "backfill", "--from", EVENING, "--to", DAY, "--dry-run")
    assert "2 days" in printed
    assert "the Dagster daemon is not running" in printed
    btc(own_stack, "backfill", "--from", EVENING, "--to", DAY)
    with QuestDB(system.questdb) as db:
        before = {table.name: digest(read_day(db, table, DAY)) for table in STORED}
    own_stack.stop_component("questdb")
    shutil.rmtree(own_stack.layout.data_dir / "questdb")
    own_stack.up(only=SERVERS)
    printed = btc(own_stack, "restore", "--from", EVENING, "--to", DAY, "--into-empty")
    assert "rows restored" in printed
    with QuestDB(system.questdb) as db:
        assert {table.name: digest(read_day(db, table, DAY)) for table in STORED} == before
        proof = prove(db, symbol, DAY, keep_nothing)
    assert proof.stream_equals_replay
    assert (proof.rows, proof.rows_missing, proof.rows_different) == (1_200, 0, 0)


@pytest.mark.usefixtures("symbol")
def test_two_processes_seal_what_one_seals(own_stack: Stack, system: Settings) -> None:
    with QuestDB(system.questdb) as db:
        before = {table.name: digest(read_day(db, table, DAY)) for table in STORED}
        for name in ("gold_1min_sealed", "gold_5min_sealed"):
            db.execute(f"TRUNCATE TABLE {name}")
    printed = btc(own_stack, "backfill", "--from", EVENING, "--to", DAY, "--processes", "2")
    assert "2 days" in printed
    assert "in 2 processes" in printed
    with QuestDB(system.questdb) as db:
        assert {table.name: digest(read_day(db, table, DAY)) for table in STORED} == before


@pytest.mark.usefixtures("symbol")
def test_checks_backups_and_the_drill_run_on_real_tables(instance: dg.DagsterInstance) -> None:
    for job in ("back_up_tables", "drill_restore", "check_tables"):
        result = defs.resolve_job_def(job).execute_in_process(instance=instance, raise_on_error=True)
        assert result.success
        failed = [c for c in result.get_asset_check_evaluations() if not c.passed]
        assert [c.check_name for c in failed] == [], [c.metadata for c in failed]


@pytest.mark.causes("DrillFailed")
@pytest.mark.usefixtures("symbol")
def test_a_drill_of_a_damaged_copy_fails_and_is_reported(system: Settings, instance: dg.DagsterInstance) -> None:
    defs.resolve_job_def("back_up_tables").execute_in_process(instance=instance, raise_on_error=True)
    with ObjectStore(system.store) as store:
        manifest = lake.read_manifest(store, BRONZE_TRADES.name, lake.kept_days(store, BRONZE_TRADES.name)[-1])
        assert manifest is not None
        whole = store.get(manifest.key)
        assert whole is not None
        store.put(manifest.key, whole[:-1] + b"?")
        drill = defs.resolve_job_def("drill_restore").execute_in_process(instance=instance, raise_on_error=True)
        assert [check.check_name for check in drill.get_asset_check_evaluations() if not check.passed] == [
            "copies_restore"
        ]
        update_backups(system, store)
        assert Looks().find("DrillFailed", "1 copies could not be restored")
        store.put(manifest.key, whole)


@pytest.mark.causes("DayUnsealed", "DayUncopied", "SealOld")
@pytest.mark.usefixtures("symbol")
def test_days_without_a_seal_and_then_without_a_copy_are_reported(system: Settings, db: QuestDB) -> None:
    days = (EVENING, DAY)

    def found(name: str) -> tuple[str, ...]:
        alert = alerts_of_api(system)[name]
        assert alert.state != "unknown", name
        return alert.details

    def newest_sealed() -> str:
        """The day whose end the alert says how long ago it was; empty if it does not fire."""
        words = " ".join(found("SealOld"))
        age = re.fullmatch(r"the newest sealed day ended ([\d,]+) s ago", words)
        return day_of(now_ns() - int(age[1].replace(",", "")) * NS_PER_S - NS_PER_DAY // 2) if age else ""

    with ObjectStore(system.store) as store:
        for day in days:
            store.delete(lake.manifest_key(SILVER_FEATURES.name, day))
        db.execute(f"TRUNCATE TABLE {GOLD_1MIN_SEALED.name}")
        unsealed = ("2 days of the past week are not sealed",)
        wait_for(lambda: found("DayUnsealed") == unsealed, "days that were streamed and not sealed")
        assert not found("DayUncopied"), "a day is copied once it is sealed"
        before = day_of(day_ns(DAY) - 16 * NS_PER_DAY)
        write_rows(db, GOLD_1MIN_SEALED, made_up(GOLD_1MIN_SEALED, before))
        wait_for(lambda: newest_sealed() == before, "the last seal is from before the past week")
        for day in days:
            make_gold(db, GOLD_1MIN_SEALED, day)
        wait_for(lambda: not found("DayUnsealed"), "both days are sealed")
        assert found("DayUncopied") == ("2 sealed days of the past week have no copy",)
        assert newest_sealed() == DAY
        for day in days:
            lake.back_up(db, store, SILVER_FEATURES, day)
        assert not found("DayUncopied")


def test_the_command_knows_the_assets_with_days_in_their_order() -> None:
    assert tuple(asset.key.to_user_string() for asset in sealed_assets) == backfill.SEALING_ASSETS
    graph = defs.resolve_asset_graph()
    with_days = {
        key.to_user_string()
        for key in graph.get_all_asset_keys()
        if isinstance(graph.get(key).partitions_def, dg.TimeWindowPartitionsDefinition)
    }
    assert with_days == set(backfill.DAILY_ASSETS)
