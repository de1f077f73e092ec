"""A year of Dagster and MLflow: runs with their events, checks and output, and a version of a model for each night.

A few runs and versions are made by Dagster and MLflow themselves, and copied in the database with other ids and times,
because making them all would take an hour. What does not belong here: tables (`past_year`), and tests.
"""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec

from btc_core.clock import NS_PER_DAY, from_ns, now_ns
from btc_core.registry import bundles
from btc_core.stores.mlflow import MAX_VERSIONS
from btc_core.stores.s3 import ObjectStore
from btc_core.system_backup import PREFIX, SystemBackup
from stack.postgres_connection import connect

if TYPE_CHECKING:
    from pathlib import Path

    import dagster as dg

    from btc_core.names import ModelKey
    from btc_core.settings import Settings

NIGHTS = 400
"""Runs begin more than a year ago."""
EVERY = 20
"""Days between two runs of the other jobs than the sealing, because Dagster takes five connections to delete a run."""
VERSION_AGES_DAYS = (*range(390, 30, -10), *(29.0 - 0.14 * number for number in range(MAX_VERSIONS + 1)))
"""Ages of the versions of a model, the first version first. The last month has more of them than one list of MLflow, so that the older
ones are only found by reading all lists."""
BACKUPS = 40
"""Nights with a backup of the databases."""
THREADS = 8

_NEW_ID = "md5(t.run_id || n.ago)::uuid::text"
_AGES = f"generate_series({NIGHTS}, 1, -1) n(ago)"
_CHOSEN = f"WHERE t.run_id = '' OR t.run_id = %(daily)s OR n.ago %% {EVERY} = 1"
_RUNS = f"""
INSERT INTO runs (run_id, snapshot_id, pipeline_name, mode, status, run_body, partition, create_timestamp, update_timestamp,
                  start_time, end_time)
SELECT {_NEW_ID}, snapshot_id, pipeline_name, mode, status, replace(replace(run_body, t.run_id, {_NEW_ID}), %(day)s,
  to_char(now() - n.ago * interval '1 day', 'YYYY-MM-DD')), partition, create_timestamp - n.ago * interval '1 day',
  update_timestamp - n.ago * interval '1 day', start_time - n.ago * 86400, end_time - n.ago * 86400
FROM runs t, {_AGES} {_CHOSEN} ORDER BY n.ago DESC, t.id
"""
_RUN_TAGS = f"""
INSERT INTO run_tags (run_id, key, value)
SELECT {_NEW_ID}, key, replace(value, %(day)s, to_char(now() - n.ago * interval '1 day', 'YYYY-MM-DD'))
FROM run_tags t, {_AGES} {_CHOSEN} ORDER BY n.ago DESC, t.id
"""
_EVENTS = f"""
INSERT INTO event_logs (run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition)
SELECT CASE WHEN t.run_id = '' THEN '' ELSE {_NEW_ID} END, CASE WHEN t.run_id = '' THEN event ELSE
  replace(replace(event, t.run_id, {_NEW_ID}), %(day)s, to_char(now() - n.ago * interval '1 day', 'YYYY-MM-DD')) END,
  dagster_event_type, timestamp - n.ago * interval '1 day', step_key, asset_key,
  CASE WHEN partition IS NULL THEN NULL ELSE to_char(now() - n.ago * interval '1 day', 'YYYY-MM-DD') END
FROM event_logs t, {_AGES} {_CHOSEN} ORDER BY n.ago DESC, t.id
"""
_CHECKS = f"""
INSERT INTO asset_check_executions (asset_key, check_name, partition, run_id, execution_status, evaluation_event,
                                    evaluation_event_timestamp, create_timestamp)
SELECT asset_key, check_name, partition, {_NEW_ID}, execution_status, evaluation_event,
  evaluation_event_timestamp - n.ago * interval '1 day', create_timestamp - n.ago * interval '1 day'
FROM asset_check_executions t, {_AGES} {_CHOSEN} ORDER BY n.ago DESC, t.id
"""
_FIRST_ONES = {
    "run_tags": "run_id IN (SELECT run_id FROM runs WHERE id <= %(last)s)",
    "event_logs": "id <= %(last)s",
    "asset_check_executions": "id <= %(last)s",
    "runs": "id <= %(last)s",
}


def age_dagster(settings: Settings, instance: dg.DagsterInstance, logs: Path, daily: str, day: str) -> None:
    """Copy all runs and events that Dagster has to past days, and then delete the originals.

    The run `daily` is copied to each day. Copies have ids in the order of time, and their partition, which is `day`, becomes the
    day of their age.
    """
    templates = [run.run_id for run in instance.get_runs()]
    with (
        connect(settings.postgres, settings.postgres.dagster_db) as connection,
        connection,
        connection.cursor() as cursor,
    ):
        last = {}
        for table in _FIRST_ONES:
            cursor.execute(f"SELECT max(id) FROM {table}")
            last[table] = cursor.fetchone()[0]
        for statement in (_RUNS, _RUN_TAGS, _EVENTS, _CHECKS):
            cursor.execute(statement, {"day": day, "daily": daily})
        for table, condition in _FIRST_ONES.items():
            bound = last["runs"] if table == "run_tags" else last[table]
            cursor.execute(f"DELETE FROM {table} WHERE {condition}", {"last": bound})
        cursor.execute("SELECT run_id FROM runs")
        made = [str(run_id) for (run_id,) in cursor.fetchall()]
    assert not set(templates) & set(made)
    for run_id in templates:
        shutil.rmtree(logs / run_id, ignore_errors=True)
    for run_id in made:
        folder = logs / run_id / "compute_logs"
        folder.mkdir(parents=True)
        (folder / "step.out").write_text("the output of a step")


def version_of_age(age_days: int) -> str:
    """The version of a model that was made so many days ago."""
    return str(2 + VERSION_AGES_DAYS.index(age_days))


def age_model(settings: Settings, key: ModelKey) -> None:
    """Copy the only version of a model, with its run and its files, to all ages."""
    (first,) = bundles.mlflow_of(settings).versions(key.name)
    ages = ", ".join(f"({age_days}, {number})" for number, age_days in enumerate(VERSION_AGES_DAYS, start=2))
    with (
        connect(settings.postgres, settings.postgres.mlflow_db) as connection,
        connection,
        connection.cursor() as cursor,
    ):

        def copy(table: str, changes: dict[str, str], condition: str) -> None:
            cursor.execute(
                "SELECT column_name FROM information_schema.columns WHERE table_name = %s AND is_generated = 'NEVER' "
                "ORDER BY ordinal_position",
                (table,),
            )
            names = [f'"{name}"' for (name,) in cursor.fetchall()]
            values = [changes.get(name.strip('"'), f"t.{name}") for name in names]
            cursor.execute(
                f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(values)} FROM {table} t, (VALUES {ages}) n(age_days, number) WHERE {condition}",
                {"run": first.run_id, "name": key.name},
            )

        new_run = "md5(%(run)s || n.number)"
        earlier = "- (n.age_days * 86400000)::bigint"
        of_run = "t.run_uuid = %(run)s"
        uri = "replace(t.{}, %(run)s, " + new_run + ")"
        copy(
            "runs",
            {"run_uuid": new_run, "artifact_uri": uri.format("artifact_uri"), "start_time": f"t.start_time {earlier}",
             "end_time": f"t.end_time {earlier}"},
            of_run,
        )  # fmt: skip
        for table in ("metrics", "latest_metrics", "params", "tags"):
            copy(table, {"run_uuid": new_run}, of_run)
        copy(
            "model_versions",
            {"version": "n.number", "creation_time": f"t.creation_time {earlier}", "source": uri.format("source"),
             "storage_location": uri.format("storage_location"), "run_id": new_run},
            "t.name = %(name)s AND t.version = 1",
        )  # fmt: skip
        copy("model_version_tags", {"version": "n.number"}, "t.name = %(name)s AND t.version = 1")
    _copy_artifacts(
        settings, first.source, [each.source for each in bundles.mlflow_of(settings).all_versions(key.name)]
    )


def _copy_artifacts(settings: Settings, source: str, sources: list[str]) -> None:
    """Give each version the files of the first one, on the bucket of the MLflow server."""
    with ObjectStore(settings.store, settings.store.mlflow_bucket) as store:
        folder = source.partition(":")[2].strip("/")
        files = {key: store.get(key) or b"" for key in store.keys("") if f"{folder}/" in key}
        assert files, f"no file of {source}"
        folders = [other.partition(":")[2].strip("/") for other in sources if other != source]
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda each: [store.put(key.replace(folder, each), files[key]) for key in files], folders))


def age_backups(store: ObjectStore) -> None:
    """Write a backup of the databases without files for each of the last nights."""
    for ago in range(BACKUPS, 0, -1):
        made_at_ns = now_ns() - ago * NS_PER_DAY
        backup = SystemBackup(made_at_ns=made_at_ns, commit="", files=())
        folder = f"{PREFIX}/{from_ns(made_at_ns):%Y-%m-%dT%H%M%S}"
        store.put(f"{folder}/manifest.json", msgspec.json.encode(backup))
