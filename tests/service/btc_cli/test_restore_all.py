"""The drill of a lost machine: a system is backed up, and another one is rebuilt from the files of its object store alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from prometheus_client import REGISTRY

from btc_core import system_backup as backups
from btc_core.clock import NS_PER_DAY, NS_PER_S, now_ns
from btc_core.days import lake
from btc_core.errors import ServiceError, StoreError
from btc_core.features.catalogue import MODEL_FEATURES
from btc_core.models.bundle import BidModel
from btc_core.models.gate import Verdict
from btc_core.models.manifest import new_manifest
from btc_core.names import BID_MODEL, HORIZONS_MIN, ModelKey
from btc_core.registry import bundles, promotion
from btc_core.settings import load_settings
from btc_core.stores import postgres_dump
from btc_core.stores.questdb import QuestDB, write_rows
from btc_core.stores.s3 import ObjectStore
from btc_core.tables.arrow import digest
from btc_core.tables.catalogue import TABLES
from btc_core.tables.schema import ensure_tables
from btc_core.utc_day import day_of
from serving.system_gauges import update_backups
from stack.ports import free_ports
from stack.runtime import Stack
from tests.paths import ROOT
from tests.service.made_up import made_up

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import dagster as dg
    from dagster._core.storage.dagster_run import DagsterRun

    from btc_assets.definitions import RESOURCES
    from btc_assets.system_backups import system_backup

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.settings import Settings

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
]

KEY = ModelKey("ETH/USD", "bid")
DAY = day_of(now_ns() - 3 * NS_PER_DAY)
LONG_AGO = "2021-03-04"
"""A day that QuestDB no longer keeps."""
MODEL_FILE = "class Mine:\n    pass\n"
FEATURE_FILE = "MINUTES = 1\n"


@pytest.fixture(scope="module")
def lost() -> Iterator[Stack]:
    """The system that will be lost, with something in every part of it."""
    directory = Path(tempfile.mkdtemp(prefix="btc-lost-"))
    stack = Stack(directory)
    stack.create("sim", free_ports(), symbols=("ETH/USD", "BTC/USD"))
    try:
        stack.up(only=("questdb", "mlflow"))
        yield stack
    finally:
        stack.down()
        shutil.rmtree(directory, ignore_errors=True)
        shutil.rmtree(stack.layout.run_dir, ignore_errors=True)


def _dagster(stack: Stack, monkeypatch: pytest.MonkeyPatch, home: Path) -> dg.DagsterInstance:
    """Dagster's instance in the database of a stack, as its own processes open it."""
    home.mkdir(exist_ok=True)
    shutil.copy(ROOT / "stack" / "servers" / "dagster.yaml", home)
    with monkeypatch.context() as environment:
        for name, value in stack.layout.values().items():
            if name.startswith("BTC_POSTGRES"):
                environment.setenv(name, value)
        instance = dg.DagsterInstance.from_config(str(home))
        instance.get_runs(limit=1)  # connects, with these variables
        return instance


def _register(settings: Settings, folder: Path) -> str:
    manifest = new_manifest(BID_MODEL, "random_walk", shrinkage=(0.25,) * len(HORIZONS_MIN), scores={})
    model = BidModel(manifest)
    registered = promotion.publish(
        settings, KEY, model, np.zeros((2, len(MODEL_FEATURES))), Verdict(passed=True, reason="drill")
    )
    promotion.promote(settings, KEY, registered.version, "drill")
    assert not folder.exists()
    return registered.version


def _fill(stack: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Put rows of days, a champion, Dagster's runs and a model of the user into a system; returns the champion's version."""
    settings = stack.settings
    (settings.user_models / "mine.py").write_text(MODEL_FILE)
    (settings.user_features / "own.py").write_text(FEATURE_FILE)
    with QuestDB(settings.questdb) as db, ObjectStore(settings.store) as store:
        ensure_tables(db)
        for name, day in (("bronze_trades", DAY), ("silver_features", DAY), ("bronze_trades", LONG_AGO)):
            write_rows(db, TABLES[name], made_up(TABLES[name], day))
            assert lake.back_up(db, store, TABLES[name], day) is not None
    with _dagster(stack, monkeypatch, tmp_path / "dagster-before") as instance:
        for number, status in enumerate((dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.STARTED)):
            instance.add_run(DagsterRun(job_name=f"job_{number}", run_id=f"run-{number}", status=status))
    return _register(settings, tmp_path / "bundle")


def _btc(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("BTC_")}
    return subprocess.run(
        [sys.executable, "-m", "btc_cli", *arguments],
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def test_a_system_is_rebuilt_from_its_object_store_alone(
    lost: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    version = _fill(lost, monkeypatch, tmp_path)
    monkeypatch.setenv("BTC_ENV_FILE", str(lost.layout.env_file))
    with QuestDB(lost.settings.questdb) as db, ObjectStore(lost.settings.store) as store:
        expected = digest(lake.read_day(db, TABLES["silver_features"], DAY))
        made = backups.back_up(load_settings(), store)
        assert backups.newest(store) == made
        names = {file.name for file in made.files}
        assert names == {"dagster.dump", "mlflow.dump", "settings.json", "user/models/mine.py", "user/features/own.py"}
        kept = backups.read_file(store, made.file("settings.json")).decode()
    secrets = [value for name, value in lost.layout.values().items() if name.endswith(("PASSWORD", "_KEY", "TOKEN"))]
    assert not any(secret in kept for secret in secrets if secret != "btc")
    lost.down()

    directory = Path(tempfile.mkdtemp(prefix="btc-rebuilt-"))
    rebuilt = Stack(directory)
    try:
        empty = _btc("restore", "--all", "--data-dir", str(directory))
        assert (empty.returncode, "has no object store" in empty.stderr) == (1, True)
        shutil.copytree(lost.layout.data_dir / "store", directory / "store")
        ports = str(min(free_ports().values()))
        done = _btc("restore", "--all", "--data-dir", str(directory), "--ports-from", ports)
        assert done.returncode == 0, done.stdout + done.stderr
        settings = rebuilt.settings
        assert settings.simulated
        assert settings.exchange.symbols == ("ETH/USD", "BTC/USD")
        assert not set(secrets) & set(rebuilt.layout.values().values()) - {"btc"}
        assert (settings.user_models / "mine.py").read_text() == MODEL_FILE
        assert (settings.user_features / "own.py").read_text() == FEATURE_FILE
        with QuestDB(settings.questdb) as db:
            assert digest(lake.read_day(db, TABLES["silver_features"], DAY)) == expected
            assert set(lake.stored_days(db, TABLES["bronze_trades"])) == {DAY}, "older days stay on the object store"
        rebuilt.up(only=("mlflow",))
        assert bundles.champion_version(settings, KEY) == version
        champion = bundles.load_champion(settings, KEY)
        assert champion.manifest.shrinkage == (0.25,) * len(HORIZONS_MIN), "its artifact came from the object store"
        with _dagster(rebuilt, monkeypatch, tmp_path / "dagster-after") as instance:
            runs = {run.job_name: run.status for run in instance.get_runs()}
        assert runs == {"job_0": dg.DagsterRunStatus.SUCCESS, "job_1": dg.DagsterRunStatus.CANCELED}
        again = _btc("restore", "--all", "--data-dir", str(directory))
        assert (again.returncode, "already have tables, and --all replaces nothing" in again.stderr) == (1, True)
    finally:
        rebuilt.down()
        shutil.rmtree(directory, ignore_errors=True)
        shutil.rmtree(rebuilt.layout.run_dir, ignore_errors=True)


def test_old_backups_are_removed_and_the_newest_never(lost: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    lost.up(only=("store", "postgres"))
    monkeypatch.setenv("BTC_ENV_FILE", str(lost.layout.env_file))
    settings = load_settings()
    with ObjectStore(settings.store) as store:
        first = backups.newest(store)
        assert first is not None
        assert backups.problem(store, first.made_at_ns + 35 * 3_600 * NS_PER_S) == ""
        late = backups.problem(store, first.made_at_ns + 40 * 3_600 * NS_PER_S)
        assert late.startswith("the newest backup is 40 hours old")
        store.put(f"{backups.PREFIX}/2021-01-01T000000/mlflow.dump", b"an interrupted run left this")
        asset_resources = {name: RESOURCES[name] for name in ("environment", "lake")}
        monkeypatch.setattr("btc_assets.resources.settings", lambda: settings)
        assert dg.materialize([system_backup], resources=asset_resources).success
        second = backups.newest(store)
        assert second is not None
        assert second.made_at_ns > first.made_at_ns
        folders = {key.split("/")[1] for key in store.keys(f"{backups.PREFIX}/")}
        assert len(folders) == 2, "only what was interrupted is removed"
        lake.write_drill(store, tried=4, failed=1)
        update_backups(store)
        assert (
            REGISTRY.get_sample_value("btc_backup_timestamp_seconds", {"backup": "system"})
            == second.made_at_ns / NS_PER_S
        )
        assert REGISTRY.get_sample_value("btc_restore_drill_failed", {"copies": "days"}) == 1
        drilled_s = REGISTRY.get_sample_value("btc_restore_drill_timestamp_seconds", {"copies": "days"})
        assert drilled_s is not None
        assert now_ns() / NS_PER_S - drilled_s < 60
        backups.expire(store, 1, second.made_at_ns + 100 * NS_PER_DAY)
        assert backups.newest(store) == second
        assert len({key.split("/")[1] for key in store.keys(f"{backups.PREFIX}/")}) == 1


def test_a_backup_that_fails_leaves_no_manifest_and_damage_is_found(lost: Stack) -> None:
    lost.up(only=("store", "postgres"))
    settings = lost.settings
    wrong = settings.model_copy(update={"postgres": settings.postgres.model_copy(update={"mlflow_db": "nosuch"})})
    with ObjectStore(settings.store) as store:
        before = backups.newest(store)
        with pytest.raises(ServiceError, match=r'cannot be dumped: .*database "nosuch" does not exist'):
            backups.back_up(wrong, store)
        assert backups.newest(store) == before
        assert before is not None
        file = before.file("mlflow.dump")
        store.put(file.key, b"flipped bits")
        with pytest.raises(StoreError, match="is missing or damaged"):
            backups.restore_databases(settings, store, before)
        with pytest.raises(ServiceError, match="the database mlflow cannot be restored"):
            postgres_dump.restore(settings.postgres, "mlflow", [b"flipped bits"])
