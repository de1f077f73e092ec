"""QuestDB: the time-series database.

Its web console, REST and PostgreSQL port ask for the password in `stack.env`. ILP over TCP is off, because the workers
write over HTTP, and so is telemetry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from btc_core.errors import ServiceError
from btc_core.stores.questdb_wal import wal_states
from stack.component import STOP_WAIT_S, Component, Context
from stack.health_checks import get, http_check
from stack.jars import jars
from stack.java import java_command
from stack.ports import HOST, port_of
from stack.prepare import tables

if TYPE_CHECKING:
    from pathlib import Path

    from btc_core.service_settings import QuestdbSettings
    from stack.layout import Durability

HEAP_MB = 384
"""QuestDB keeps its data off-heap; the heap holds SQL plans and parsed rows, 160 MB under our load."""
NETWORK_WORKERS = 2
"""Each thread answers one HTTP or PostgreSQL request at a time. A page of Grafana takes long; with a second thread the short
writes of the workers need not wait for it."""
NAP_THRESHOLD, SLEEP_THRESHOLD = 20, 30
"""Polls without work after which a thread naps for 1 ms, and then sleeps. With the defaults, 7,000 and 10,000, no thread
ever sleeps between a few writes a second, and an idle QuestDB takes 30 % of a core."""
REQUEST_SLEEP_MS, BACKGROUND_SLEEP_MS = 10, 20
"""How long a thread then sleeps: one that answers requests, and one that applies the WAL or refreshes views. A request
that finds all threads asleep waits this much longer."""

OPEN_PARTITIONS = 16
"""Partitions that a reader keeps in memory between two queries. Each has a memory map for every column, and Linux allows a process
65,530 by default. With QuestDB's default of 10,000 partitions, four queries over a year of forecasts use all of them, and then
every query fails with "could not mmap"."""
POOLS = {"MODEL": 32, "EXPRESSION": 256, "COLUMN": 256, "LEXER": 128}
"""Objects that each of its SQL compilers has ready, of which there are up to ten; it makes more when a statement needs more.
With the defaults, 1,024 to 8,192, six compilers took 100 MB of the heap."""


def component(context: Context) -> Component:
    """QuestDB as one supervised process."""
    settings = context.settings.questdb
    port = port_of(settings.http_url)
    home = context.server_dir("questdb")
    password = settings.password.get_secret_value()
    (jar,) = jars("questdb")

    auth = (settings.user, password)

    def execute(sql: str) -> list[list[Any]]:
        """A statement over HTTP: the client in `btc_core` loads pyarrow, which `btc status` would pay for."""
        return get(f"{settings.http_url}/exec", "QuestDB", {"query": sql}, auth).json()["dataset"]  # type: ignore[no-any-return]

    def check_tables() -> None:
        problems = [state.problem for state in wal_states(execute) if state.problem]
        if problems:
            msg = f"{'; '.join(problems)}. The worker bronze resumes suspended tables: `btc logs bronze`"
            raise ServiceError(msg)

    return Component(
        name="questdb",
        title="QuestDB, time-series database",
        command=(
            *java_command(HEAP_MB, home / "tmp", [jar]),
            *("-p", str(jar)),
            *("-m", "io.questdb/io.questdb.ServerMain"),
            *("-d", str(home)),
        ),
        env=_location(settings, port) | server_settings(context.durability),
        ports=(port, settings.pg_port),
        url=settings.http_url,
        check=http_check(f"{settings.http_url}/exec", "QuestDB", params={"query": "select 1"}, auth=auth),
        work_check=check_tables,
        before_start=lambda: _prepare(home),
        stop_wait_s=STOP_WAIT_S,
        when_healthy=lambda: tables(context.settings),
    )


def _prepare(home: Path) -> None:
    """Create the directories, and delete what a loss of power right after the first start has left of QuestDB's console.

    QuestDB unpacks the console when there is no version file, and does not start when that file is empty.
    """
    (home / "tmp").mkdir(parents=True, exist_ok=True)
    version = home / "public" / "version.txt"
    if version.exists() and not version.read_bytes().strip(b"\0"):
        version.unlink()


def _location(settings: QuestdbSettings, port: int) -> dict[str, str]:
    """Where it listens, and its passwords. QuestDB reads `a.b` of its server.conf from `QDB_A_B`."""
    password, reader_password = settings.password.get_secret_value(), settings.reader_password.get_secret_value()
    reader = {
        "QDB_PG_READONLY_USER_ENABLED": "true",
        "QDB_PG_READONLY_USER": settings.reader_user,
        "QDB_PG_READONLY_PASSWORD": reader_password,
    }
    return {
        "QDB_HTTP_BIND_TO": f"{HOST}:{port}",
        "QDB_HTTP_USER": settings.user,
        "QDB_HTTP_PASSWORD": password,
        "QDB_PG_NET_BIND_TO": f"{HOST}:{settings.pg_port}",
        "QDB_PG_USER": settings.user,
        "QDB_PG_PASSWORD": password,
        **(reader if reader_password else {}),
    }


def server_settings(durability: Durability) -> dict[str, str]:
    """The settings that QuestDB has everywhere, in a container too. docker-compose.yml is tested against them."""
    return {
        "QDB_HTTP_MIN_ENABLED": "false",
        # `/ping` answers without the password, so that a health check of a container needs no secret.
        "QDB_HTTP_HEALTH_CHECK_AUTHENTICATION_REQUIRED": "false",
        "QDB_LINE_TCP_ENABLED": "false",
        "QDB_TELEMETRY_ENABLED": "false",
        **_threads(),
        **{f"QDB_CAIRO_{name}_POOL_CAPACITY": str(size) for name, size in POOLS.items()},
        "QDB_METRICS_ENABLED": "true",
        "QDB_CAIRO_INACTIVE_READER_MAX_OPEN_PARTITIONS": str(OPEN_PARTITIONS),
        # INFO logs four lines per query, which is hundreds of lines a second under load.
        "QDB_LOG_W_STDOUT_LEVEL": "CRITICAL,ERROR,ADVISORY",
        # Most open WAL segments roll over by size, so a small size keeps the disk use of an idle system low.
        "QDB_CAIRO_WAL_SEGMENT_ROLLOVER_SIZE": "4194304",
        # Every column of the current day takes this much disk at once; with the default of 16 MB an empty system takes 5 GB.
        "QDB_CAIRO_WRITER_DATA_APPEND_PAGE_SIZE": "1048576",
        "QDB_CAIRO_WRITER_DATA_INDEX_VALUE_APPEND_PAGE_SIZE": "1048576",
        "QDB_CAIRO_COMMIT_MODE": "sync" if durability == "fsync" else "nosync",
    }


def _threads() -> dict[str, str]:
    """One thread of each kind, except for the network: the defaults grow with the cores, and every thread polls."""
    counts = {
        "SHARED_NETWORK_WORKER_COUNT": NETWORK_WORKERS,
        "SHARED_QUERY_WORKER_COUNT": 1,
        "SHARED_WRITE_WORKER_COUNT": 1,
        "WAL_APPLY_WORKER_COUNT": 1,
        "MAT_VIEW_REFRESH_WORKER_COUNT": 1,
        "VIEW_COMPILER_WORKER_COUNT": 1,
        "EXPORT_WORKER_COUNT": 1,
    }
    background = ("WAL_APPLY", "MAT_VIEW_REFRESH", "VIEW_COMPILER", "EXPORT")
    pools = {"SHARED": REQUEST_SLEEP_MS} | dict.fromkeys(background, BACKGROUND_SLEEP_MS)
    values = {f"QDB_{name}": str(count) for name, count in counts.items()}
    for pool, sleep_ms in pools.items():
        values[f"QDB_{pool}_WORKER_NAP_THRESHOLD"] = str(NAP_THRESHOLD)
        values[f"QDB_{pool}_WORKER_SLEEP_THRESHOLD"] = str(SLEEP_THRESHOLD)
        values[f"QDB_{pool}_WORKER_SLEEP_TIMEOUT"] = str(sleep_ms)
    return values
