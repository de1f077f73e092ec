"""A year of Dagster and MLflow: runs with their events, checks and output, and a version of a model for each night.

A few runs and versions are made by Dagster and MLflow themselves, and copied in the database with other ids and times,
because making each of them would take an hour. What does not belong here: tables (`past_year`), and tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from btc_core.clock import now_ns
from btc_core.registry import bundles
from btc_core.stores.s3 import ObjectStore
from stack.postgres_connection import connect

if TYPE_CHECKING:
    from pathlib import Path

    import dagster as dg

    from btc_core.names import ModelKey
    from btc_core.settings import Settings

NIGHTS = 400
"""Runs and versions begin more than a year ago."""

EVERY = 5
"""Days between two runs of the other jobs than the sealing, because Dagster takes five connections to delete a run."""

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
    """Copy all runs and events that Dagster has to the last days, and remove those that were copied.

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
    for run_id in made:
        folder = logs / run_id / "compute_logs"
        folder.mkdir(parents=True)
        (folder / "step.out").write_text("the output of a step")


def age_model(settings: Settings, key: ModelKey) -> dict[int, str]:
    """Copy the only version of a model to each of the last nights, as versions 2 and up; the source of each version."""
    (first,) = bundles.mlflow_of(settings).versions(key.name)
    ages = f"generate_series({NIGHTS}, 1, -1) n(ago)"
    number = f"({NIGHTS} - n.ago + 2)"
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
                f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(values)} FROM {table} t, {ages} WHERE {condition}",
                {"run": first.run_id, "name": key.name},
            )

        new_run = "md5(%(run)s || n.ago)"
        night = "- n.ago * 86400000::bigint"
        of_run = "t.run_uuid = %(run)s"
        uri = "replace(t.{}, %(run)s, " + new_run + ")"
        copy(
            "runs",
            {"run_uuid": new_run, "artifact_uri": uri.format("artifact_uri"), "start_time": f"t.start_time {night}",
             "end_time": f"t.end_time {night}"},
            of_run,
        )  # fmt: skip
        for table in ("metrics", "latest_metrics", "params", "tags"):
            copy(table, {"run_uuid": new_run}, of_run)
        copy(
            "model_versions",
            {"version": number, "creation_time": f"t.creation_time {night}", "source": uri.format("source"),
             "storage_location": uri.format("storage_location"), "run_id": new_run},
            "t.name = %(name)s AND t.version = 1",
        )  # fmt: skip
        copy("model_version_tags", {"version": number}, "t.name = %(name)s AND t.version = 1")
    sources = {int(each.version): each.source for each in bundles.mlflow_of(settings).all_versions(key.name)}
    _copy_artifacts(settings, first.source, sources)
    return sources


def _copy_artifacts(settings: Settings, source: str, sources: dict[int, str]) -> None:
    """Give each version the files of the first one, on the bucket of the MLflow server."""
    with ObjectStore(settings.store, settings.store.mlflow_bucket) as store:
        folder = source.partition(":")[2].strip("/")
        files = {key: store.get(key) or b"" for key in store.keys("") if f"{folder}/" in key}
        assert files, f"{now_ns()} no file of {source}"
        for other in sources.values():
            if other != source:
                for key, body in files.items():
                    store.put(key.replace(folder, other.partition(":")[2].strip("/")), body)
