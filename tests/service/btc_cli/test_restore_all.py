"""The drill of a lost machine: a system is backed up, and another one is rebuilt from the files of its object store alone, or
from a copy at a second place.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from prometheus_client import REGISTRY

from btc_core import offsite
from btc_core import system_backup as backups
from btc_core.clock import NS_PER_DAY, NS_PER_S, now_ns
from btc_core.days import lake
from btc_core.days.stored_days import read_day, stored_days
from btc_core.errors import InvalidInput, ServiceError, StoreError
from btc_core.features.catalogue import MODEL_FEATURES
from btc_core.models.bundle import BidModel
from btc_core.models.gate import Verdict
from btc_core.models.manifest import new_manifest
from btc_core.names import BID_MODEL, HORIZONS_MIN, ModelKey
from btc_core.registry import bundles, promotion
from btc_core.settings import load_settings
from btc_core.stores import postgres_dump
from btc_core.stores.questdb import QuestDB, write_rows
from btc_core.stores.s3 import ObjectStore, s3_client
from btc_core.tables.arrow import digest
from btc_core.tables.catalogue import TABLES
from btc_core.tables.schema import ensure_tables
from btc_core.utc_day import day_of
from serving.system_gauges import update_backups
from stack.ports import free_ports
from stack.runtime import Stack
from tests.paths import ROOT
from tests.real_alerts import Looks
from tests.service.made_up import made_up

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import dagster as dg
    from dagster._core.storage.dagster_run import DagsterRun

    from btc_assets.definitions import RESOURCES
    from btc_assets.system_backups import daily_offsite_copy, offsite_copy, system_backup

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


@pytest.fixture(scope="module")
def champion_version(lost: Stack, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The version of the champion of the system that will be lost, which holds something from now on."""
    with pytest.MonkeyPatch.context() as environment:
        return _fill(lost, environment, tmp_path_factory.mktemp("filled"))


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
    """Put rows of days, a champion, Dagster's runs and a user's model into a system; returns the champion's version."""
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


def _btc(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("BTC_")} | variables
    return subprocess.run(
        [sys.executable, "-m", "btc_cli", *arguments],
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


@contextmanager
def _rebuilt() -> Iterator[Stack]:
    """An empty data directory, whose processes end with the block."""
    directory = Path(tempfile.mkdtemp(prefix="btc-rebuilt-"))
    rebuilt = Stack(directory)
    try:
        yield rebuilt
    finally:
        rebuilt.down()
        shutil.rmtree(directory, ignore_errors=True)
        shutil.rmtree(rebuilt.layout.run_dir, ignore_errors=True)


def _stored_digest(settings: Settings) -> str:
    with QuestDB(settings.questdb) as db:
        return digest(read_day(db, TABLES["silver_features"], DAY))


def _check(rebuilt: Stack, expected: str, version: str, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """A rebuilt system holds the rows, the champion, the runs and the files of the user."""
    settings = rebuilt.settings
    assert settings.simulated
    assert settings.exchange.symbols == ("ETH/USD", "BTC/USD")
    assert (settings.user_models / "mine.py").read_text() == MODEL_FILE
    assert (settings.user_features / "own.py").read_text() == FEATURE_FILE
    assert _stored_digest(settings) == expected
    with QuestDB(settings.questdb) as db:
        assert set(stored_days(db, TABLES["bronze_trades"])) == {DAY}, "older days stay on the object store"
    rebuilt.up(only=("mlflow",))
    assert bundles.champion_version(settings, KEY) == version
    champion = bundles.load_champion(settings, KEY)
    assert champion.manifest.shrinkage == (0.25,) * len(HORIZONS_MIN), "its artifact came from the object store"
    with _dagster(rebuilt, monkeypatch, home) as instance:
        runs = {run.job_name: run.status for run in instance.get_runs()}
    assert runs == {"job_0": dg.DagsterRunStatus.SUCCESS, "job_1": dg.DagsterRunStatus.CANCELED}


def _secrets(stack: Stack) -> list[str]:
    names = ("PASSWORD", "_KEY", "TOKEN")
    return [value for name, value in stack.layout.values().items() if name.endswith(names) and value not in {"", "btc"}]


def test_a_system_is_rebuilt_from_its_object_store_alone(
    lost: Stack, champion_version: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BTC_ENV_FILE", str(lost.layout.env_file))
    with ObjectStore(lost.settings.store) as store:
        expected = _stored_digest(lost.settings)
        made = backups.back_up(load_settings(), store)
        assert backups.newest(store) == made
        names = {file.name for file in made.files}
        assert names == {"dagster.dump", "mlflow.dump", "settings.json", "user/models/mine.py", "user/features/own.py"}
        kept = backups.read_file(store, made.file("settings.json")).decode()
    secrets = _secrets(lost)
    assert not any(secret in kept for secret in secrets)
    lost.down()
    with _rebuilt() as rebuilt:
        directory = rebuilt.layout.data_dir
        empty = _btc("restore", "--all", "--data-dir", str(directory))
        assert (empty.returncode, "has no object store" in empty.stderr) == (1, True)
        shutil.copytree(lost.layout.data_dir / "store", directory / "store")
        ports = str(min(free_ports().values()))
        done = _btc("restore", "--all", "--data-dir", str(directory), "--ports-from", ports)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not set(secrets) & set(rebuilt.layout.values().values())
        _check(rebuilt, expected, champion_version, monkeypatch, tmp_path / "dagster")
        again = _btc("restore", "--all", "--data-dir", str(directory))
        assert (again.returncode, "already have tables, and --all replaces nothing" in again.stderr) == (1, True)


def test_a_system_is_rebuilt_from_a_copy_at_a_second_place(
    lost: Stack, champion_version: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lost.up(only=("questdb", "mlflow"))
    expected, secrets = _stored_digest(lost.settings), _secrets(lost)
    place, phrase = tmp_path / "disk", tmp_path / "passphrase"
    phrase.write_text("correct horse battery staple\n")
    command = ["backup", "--data-dir", str(lost.layout.data_dir), "--passphrase-file", str(phrase), "--to", str(place)]
    missing = _btc(*command)
    assert (missing.returncode, "is not a directory: create it, or mount the disk" in missing.stderr) == (1, True)
    inside = _btc(*command[:-1], str(lost.layout.data_dir / "copies"))
    assert (inside.returncode, "whose loss the copy must survive" in inside.stderr) == (1, True)
    place.mkdir()
    for arguments in (command, [*command, "--verify"]):
        before = {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()}
        done = _btc(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        print(done.stdout)
        assert before.items() <= {path: path.stat().st_mtime_ns for path in before}.items(), "nothing is written twice"
    assert len(list((place / "copies").iterdir())) == 2
    copied = b"".join(path.read_bytes() for path in place.rglob("*") if path.is_file())
    assert not any(secret.encode() in copied for secret in secrets)
    largest = max((place / "objects").iterdir(), key=lambda path: path.stat().st_size)
    whole = largest.read_bytes()
    largest.write_bytes(whole[:-1] + b"?")
    damaged = _btc(*command, "--verify")
    assert (damaged.returncode, f"objects/{largest.name} is missing or damaged" in damaged.stderr) == (1, True)
    largest.write_bytes(whole)
    lost.down()
    with _rebuilt() as rebuilt:
        ports, started_s = str(min(free_ports().values())), time.monotonic()
        restore = ["restore", "--all", "--from-copy", str(place), "--data-dir", str(rebuilt.layout.data_dir)]
        older = min(path.stem for path in (place / "copies").iterdir())
        done = _btc(*restore, "--copy", older, "--passphrase-file", str(phrase), "--ports-from", ports)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"the chosen copy at {place} was made at" in done.stdout
        told = re.search(r"rows of days restored and verified, .* in (\d+) s", done.stdout)
        assert told is not None, done.stdout
        assert int(told[1]) <= time.monotonic() - started_s + 1.0, "the time to recover is told"
        new, old = rebuilt.layout.values(), lost.layout.values()
        assert new["BTC_API_TOKEN"] == old["BTC_API_TOKEN"]
        assert new["BTC_QUESTDB_PASSWORD"] != old["BTC_QUESTDB_PASSWORD"]
        _check(rebuilt, expected, champion_version, monkeypatch, tmp_path / "dagster")


def test_a_second_bucket_takes_copies_and_refuses_those_of_another_system(
    lost: Stack, champion_version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert champion_version
    lost.up(only=("store", "postgres"))
    settings = lost.settings
    given = settings.store
    variables = {
        "BTC_OFFSITE_ENDPOINT_URL": given.endpoint_url,
        "BTC_OFFSITE_ACCESS_KEY": given.access_key,
        "BTC_OFFSITE_SECRET_KEY": given.secret_key.get_secret_value(),
    }
    command = ["backup", "--data-dir", str(lost.layout.data_dir), "--verify", "--to"]
    own = _btc(*command, f"s3://{given.lake_bucket}", **variables)
    assert (own.returncode, "is a bucket of this system and not a second place" in own.stderr) == (1, True)
    with closing(s3_client(given)) as client:
        client.create_bucket(Bucket="second")
    done = _btc(*command, "s3://second/btc", **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    with ObjectStore(given, "second") as store:
        place = offsite.Bucket(store, "btc")
        copy = offsite.newest(place)
        assert copy is not None
        assert copy.origin == "sim-kraken"
        assert {each.bucket for each in copy.objects} == {"lake", "mlflow"}
        a_year_ago = now_ns() - 365 * NS_PER_DAY
        with monkeypatch.context() as clock:
            clock.setattr(offsite, "now_ns", lambda: a_year_ago)
            offsite.make(settings, place, b"settings of a year ago")
        assert len(place.names("copies")) == 2
        time.sleep(1.0)  # the name of a copy is its second
        offsite.make(settings, place, b"")
        assert len(place.names("copies")) == 2, "the old copy is gone"
        newer = offsite.newest(place)
        assert newer is not None
        assert place.names("objects").keys() == newer.hashes | copy.hashes, "and so is what only it named"
    wrong = _btc(*command, "s3://second/btc", **variables | {"BTC_OFFSITE_SECRET_KEY": "wrong"})
    assert (wrong.returncode, "BTC_OFFSITE_ACCESS_KEY, BTC_OFFSITE_SECRET_KEY" in wrong.stderr) == (1, True)


@pytest.mark.causes("CopyOld")
def test_a_scheduled_copy_is_made_and_its_age_is_watched(
    lost: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lost.up(only=("store", "postgres"))
    settings = lost.settings
    backup = settings.backup.model_copy(update={"copy_to": str(tmp_path)})
    scheduled = settings.model_copy(update={"backup": backup})
    asset_resources = {name: RESOURCES[name] for name in ("environment", "lake")}

    def asked(chosen: Settings) -> object:
        monkeypatch.setattr("btc_assets.resources.settings", lambda: chosen)
        return daily_offsite_copy(dg.build_schedule_context(), environment=RESOURCES["environment"])

    assert "names no second place" in str(asked(settings))
    assert isinstance(asked(scheduled), dg.RunRequest)
    place = offsite.Directory(tmp_path)
    first = offsite.make(settings, place, b"encrypted settings")
    time.sleep(1.0)  # the name of a copy is its second
    day_ns = 24 * 3_600 * NS_PER_S
    with ObjectStore(settings.store) as store:
        store.delete(offsite.RECORD_KEY)
        assert offsite.problem(settings, store, now_ns() + 9 * day_ns) == "", "no copy is scheduled"
        assert offsite.problem(scheduled, store, now_ns() + 9 * day_ns).startswith("there is no copy, and one is due")
        assert dg.materialize([offsite_copy], resources=asset_resources).success
        second, record = offsite.newest(place), offsite.last_copy(scheduled, store)
        assert second is not None
        assert second.made_at_ns > first.made_at_ns
        assert second.settings_sha256 == first.settings_sha256 != "", "the settings of an earlier copy stay part of it"
        offsite.verify(place, second)
        assert record == offsite.LastCopy(second.made_at_ns, str(tmp_path), len(second.objects), second.size_bytes)
        assert offsite.problem(scheduled, store, second.made_at_ns + 35 * day_ns // 24) == ""
        assert offsite.problem(scheduled, store, second.made_at_ns + 40 * day_ns // 24).startswith(
            f"the newest copy is 40 hours old, and one is due every day at {tmp_path}"
        )
        assert offsite.last_copy(settings, store) is None, "another place is scheduled, or none"
        offsite.require_earlier(scheduled, store, place)
        (tmp_path / "copies").rename(tmp_path / "unmounted")
        with pytest.raises(InvalidInput, match=r"has no copy, although one was made there at .* mount the disk"):
            offsite.require_earlier(scheduled, store, place)
        (tmp_path / "unmounted").rename(tmp_path / "copies")
        assert offsite.is_scheduled(scheduled, f"{tmp_path}/")
        assert not offsite.is_scheduled(scheduled, str(tmp_path.parent))
        update_backups(scheduled, store)
        made_s = REGISTRY.get_sample_value("btc_offsite_copy_timestamp_seconds", {"place": "second"})
        assert made_s == second.made_at_ns / NS_PER_S
        assert not Looks().find("CopyOld")
        assert Looks().find("CopyOld", "second place", later_s=offsite.MAX_AGE_S), "no further copy is made"
    names = [each.removesuffix(".json") for each in sorted(place.names("copies"))]
    assert [offsite.named(place, name) for name in names] == [first, second]
    with pytest.raises(InvalidInput, match=f"there is no copy 'yesterday'; the copies are {', '.join(names)}"):
        offsite.named(place, "yesterday")
    asked(settings)
    with pytest.raises(dg.Failure, match="BTC_BACKUP_COPY_TO names no place"):
        dg.materialize([offsite_copy], resources=asset_resources)


def test_a_copy_is_whole_although_the_system_and_another_copy_write_meanwhile(
    lost: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lost.up(only=("store", "postgres"))
    settings, place, others = lost.settings, offsite.Directory(tmp_path), hashlib.sha256(b"of another copy").hexdigest()
    with ObjectStore(settings.store) as store:
        store.put("copied/before", b"before")
        pieces = ObjectStore.pieces

        def replaced_meanwhile(read: ObjectStore, key: str) -> Iterator[bytes]:
            if key == "copied/before":
                store.delete(key)
                store.put("copied/after", b"after")
                place.write(f"objects/{others}", io.BytesIO(b"of another copy"))
            return pieces(read, key)

        monkeypatch.setattr(ObjectStore, "pieces", replaced_meanwhile)
        copy = offsite.make(settings, place, b"")
        assert {"copied/after"} == {each.key for each in copy.objects if each.key.startswith("copied/")}
        offsite.verify(place, copy)
        assert others in place.names("objects"), "the other copy has no manifest yet"
        store.delete("copied/after")


def test_an_object_that_was_written_badly_is_no_part_of_the_next_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, held = offsite.Directory(tmp_path), dict[str, int]()
    write = offsite.Directory.write
    with monkeypatch.context() as damaged:
        damaged.setattr(offsite.Directory, "write", lambda self, path, _source: write(self, path, io.BytesIO(b"good?")))
        with pytest.raises(StoreError, match="missing or damaged at the second place"):
            offsite._keep(place, held, iter([b"good!"]))
    assert (place.names("objects"), held) == ({}, {})


@pytest.mark.causes("BackupOld", "DrillOld")
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
        before = {key.split("/")[1] for key in store.keys(f"{backups.PREFIX}/")}
        store.put(f"{backups.PREFIX}/2021-01-01T000000/mlflow.dump", b"an interrupted run left this")
        asset_resources = {name: RESOURCES[name] for name in ("environment", "lake")}
        monkeypatch.setattr("btc_assets.resources.settings", lambda: settings)
        assert dg.materialize([system_backup], resources=asset_resources).success
        second = backups.newest(store)
        assert second is not None
        assert second.made_at_ns > first.made_at_ns
        folders = {key.split("/")[1] for key in store.keys(f"{backups.PREFIX}/")}
        assert before < folders, "no complete one is removed"
        assert len(folders - before) == 1, "what was interrupted is removed"
        before_s = now_ns() / NS_PER_S
        lake.write_drill(store, tried=4, failed=1)
        update_backups(settings, store)
        assert (
            REGISTRY.get_sample_value("btc_backup_timestamp_seconds", {"backup": "system"})
            == second.made_at_ns / NS_PER_S
        )
        looks = Looks()
        assert looks.find("DrillFailed", "1 copies could not be restored")
        assert not looks.find("BackupOld")
        assert looks.find("BackupOld", later_s=backups.MAX_AGE_S), "no further backup is made"
        assert looks.find("DrillOld", later_s=16 * 86_400), "no further drill is made"
        drilled_s = REGISTRY.get_sample_value("btc_restore_drill_timestamp_seconds", {"copies": "days"})
        assert drilled_s is not None
        assert before_s <= drilled_s <= now_ns() / NS_PER_S
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
