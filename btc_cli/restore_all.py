"""`btc restore --all`: rebuilding a whole system in an empty data directory from the files of its object store.

What does not belong here: what a backup holds (`btc_core.system_backup`), and restoring single days (`tables`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer

from btc_cli import screen
from btc_cli.backup import chosen_copy
from btc_cli.sealed_settings import read_passphrase, unseal
from btc_core import horizons, offsite
from btc_core import system_backup as backups
from btc_core.clock import NS_PER_DAY, from_ns, now_ns
from btc_core.days import lake
from btc_core.errors import InvalidInput, StackError, StoreError
from btc_core.files import atomic_write
from btc_core.settings import secret_variables
from btc_core.stores import postgres_dump
from btc_core.stores.questdb import QuestDB
from btc_core.stores.s3 import ObjectStore
from btc_core.tables import schema
from btc_core.tables.catalogue import STORED
from btc_core.utc_day import day_of
from btc_core.waiting import wait_until
from stack import prepare
from stack.ports import ports_from
from stack.runtime import Stack
from stack.server_addresses import given_servers

if TYPE_CHECKING:
    from pathlib import Path

    from btc_core.settings import Settings
    from btc_core.system_backup import SystemBackup
    from btc_core.tables.form import Table

SERVERS = ("store", "postgres", "questdb")
STORE_TIMEOUT_S = 60.0
STORE_POLL_S = 1.0


def restore_all(
    data_dir: Path, first_port: int | None, from_copy: str, passphrase_file: Path | None, copy_name: str = ""
) -> None:
    """Rebuild a system from its object store; raises `BtcError`.

    The files of the object store are in `data_dir`, or the settings there name a store that the user gives, or the store is
    filled from the newest copy at the place `from_copy`, or from the one named `copy_name`. With a passphrase, the secrets of that
    copy that are not those of servers are kept.

    The databases are restored last and each in one transaction, so an interrupted command may be repeated until then.
    """
    stack, started_s = Stack(data_dir), time.monotonic()
    has_given_store = stack.layout.exists and "store" in given_servers(stack.settings)
    if not from_copy and not has_given_store and not (stack.layout.data_dir / "store" / "data").is_dir():
        msg = (
            f"{stack.layout.data_dir} has no object store: copy the folder `store` of the lost system into it first, or run "
            "`btc init` and set BTC_STORE_ENDPOINT_URL to the store that the lost system used, or name a copy with --from-copy"
        )
        raise StackError(msg)
    if not stack.layout.exists:
        stack.layout.create("live", None if first_port is None else ports_from(first_port))
    stack.up(("postgres",), screen.progress)
    _require_empty(stack)
    # Whose data the store holds is known once the settings have been read from it.
    stack.up(("store",), screen.progress, prepares=False)
    secrets = _fill_store(stack.settings, from_copy, copy_name, passphrase_file) if from_copy else {}
    backup = _newest_backup(stack.settings)
    with ObjectStore(stack.settings.store) as store:
        saved = backups.read_settings(store, backup)
    if not horizons.are_those_of(saved):  # its programs would keep the horizons of this process
        stack.down(screen.progress)
    stack.layout.adopt(saved | secrets)
    stack.up(SERVERS, screen.progress)
    settings = stack.settings
    rows = _restore_days(settings)
    with ObjectStore(settings.store) as store:
        _restore_user_files(settings, store, backup)
        backups.restore_databases(settings, store, backup)
    made = f"{from_ns(backup.made_at_ns):%Y-%m-%d %H:%M} UTC"
    took_s = time.monotonic() - started_s
    screen.say(
        f"{rows:,} rows of days restored and verified, and the databases of Dagster and MLflow as of {made}, in {took_s:.0f} s"
    )
    lost = "the file of alerts" if secrets else "contacts, other secrets and the file of alerts"
    screen.say(
        f"passwords of servers are new, and {lost} must be set again: {stack.layout.env_file}. "
        f"Start the system with `btc up --data-dir {stack.layout.data_dir}`"
    )


def _fill_store(settings: Settings, where: str, name: str, passphrase_file: Path | None) -> dict[str, str]:
    """Write the newest or the named copy at a place into the object store; returns the secrets that the new system takes over."""
    prepare.create_buckets(settings)
    with offsite.open_place(settings, where) as place:
        copy = chosen_copy(place, where, name)
        _require_only(settings, copy)
        secrets: dict[str, str] = {}
        if passphrase_file is not None:
            if not copy.settings_sha256:
                raise InvalidInput(f"the copy at {where} has no secrets; leave out --passphrase-file")
            sealed = b"".join(offsite.pieces(place, copy.settings_sha256))
            secrets = unseal(sealed, read_passphrase(passphrase_file))
        offsite.fill(settings, place, copy)
    own = tuple(f"BTC_{name}_" for name in ("KAFKA", "QUESTDB", "REDIS", "POSTGRES", "STORE"))
    return {
        name: value
        for name, value in secrets.items()
        if name.lower() in secret_variables() and not name.startswith(own)
    }


def _require_only(settings: Settings, copy: offsite.Copy) -> None:
    """Refuse a store that holds anything but objects of the copy."""
    known = {(each.bucket, each.key) for each in copy.objects}
    for name, bucket in offsite.buckets(settings).items():
        with ObjectStore(settings.store, bucket) as store:
            others = [key for key in store.keys("") if (name, key) not in known and not offsite.is_own(key)]
        if others:
            raise InvalidInput(
                f"the bucket {bucket} already has other objects, such as {others[0]}; a copy is restored into empty buckets"
            )


def _newest_backup(settings: Settings) -> SystemBackup:
    """The newest backup, once the store can read its objects: it answers a second or two before it has found its volumes."""
    error: StoreError | None = None

    def read() -> tuple[SystemBackup | None] | None:
        nonlocal error
        try:
            with ObjectStore(settings.store) as store:
                return (backups.newest(store),)
        except StoreError as problem:
            error = problem
            return None

    found = wait_until(read, STORE_TIMEOUT_S, STORE_POLL_S)
    if found is None and error is not None:
        raise error
    backup = found[0] if found else None
    if backup is None:
        msg = (
            f"the object store at {settings.store.place} has no backup of a system (system_backup/ in the bucket "
            f"{settings.store.lake_bucket}); days of tables can still be restored: `btc up`, then `btc restore --from … --to …`"
        )
        raise InvalidInput(msg)
    return backup


def _require_empty(stack: Stack) -> None:
    postgres = stack.settings.postgres
    filled = [name for name in (postgres.dagster_db, postgres.mlflow_db) if not postgres_dump.is_empty(postgres, name)]
    if filled:
        msg = (
            f"{' and '.join(filled)} in {stack.layout.data_dir} already have tables, and --all replaces nothing: "
            f"run `btc down`, move {stack.layout.data_dir / 'postgres'} away, and repeat the command"
        )
        raise InvalidInput(msg)


def _restore_days(settings: Settings) -> int:
    """Restore all copies that QuestDB would still keep; older days stay on the object store only."""
    with QuestDB(settings.questdb) as db, ObjectStore(settings.store) as store:
        schema.ensure_tables(db)
        wanted = [(table, day) for table in STORED for day in _kept_days(settings, store, table)]
        rows = 0
        with typer.progressbar(wanted, label="days of tables") as bar:
            for table, day in bar:
                rows += lake.restore(db, store, table, day)
    return rows


def _kept_days(settings: Settings, store: ObjectStore, table: Table) -> list[str]:
    first = day_of(now_ns() - table.ttl_days(settings.questdb) * NS_PER_DAY)
    return [day for day in lake.kept_days(store, table.name) if day >= first]


def _restore_user_files(settings: Settings, store: ObjectStore, backup: SystemBackup) -> None:
    for file in backup.files:
        for folder, path in backups.user_folders(settings).items():
            if file.name.startswith(f"{folder}/"):
                with atomic_write(path / file.name.removeprefix(f"{folder}/")) as target:
                    target.write(backups.read_file(store, file))
