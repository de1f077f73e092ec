"""QuestDB: the time-series database.

Its web console, REST and PostgreSQL port ask for the password of `stack.env`. ILP over TCP is off (we use HTTP), and
so is telemetry.
"""

from __future__ import annotations

import httpx

from btc_core.errors import QuestDBError
from stack.component import Component, Context
from stack.jars import jars
from stack.java import flags, java
from stack.ports import HOST, port_of

HEAP_MB = 384
"""QuestDB keeps its data off-heap: the heap holds SQL plans and parsed rows. 160 MB are used under our load."""
NETWORK_WORKERS = 2
"""Each answers one HTTP or PostgreSQL request at a time; the workers' writes are short, a page of Grafana is not."""
NAP_AFTER, SLEEP_AFTER = 20, 60
"""Rounds without work after which a thread naps (1 ms) and sleeps. The defaults are 7,000 and 10,000: with a few writes a
second no thread ever sleeps, and QuestDB idles at 30 % of a core."""
SLEEP_MS, SLEEP_BEHIND_MS = 5, 20
"""How long they then sleep: those that answer requests, and those that apply the WAL and refresh views behind them. Adds
to the latency of a request that finds everything asleep."""


def component(context: Context) -> Component:
    """QuestDB as one supervised process."""
    settings = context.settings.questdb
    port = port_of(settings.http_url)
    path, version = java()
    home = context.dir("questdb")
    (jar,) = jars("questdb")

    def before() -> None:
        (home / "tmp").mkdir(parents=True, exist_ok=True)

    def check() -> None:
        response = httpx.get(
            f"{settings.http_url}/exec",
            params={"query": "select 1"},
            auth=(settings.user, settings.password.get_secret_value()),
            timeout=5,
        )
        if response.status_code != httpx.codes.OK:
            msg = f"QuestDB answers {response.status_code}"
            raise QuestDBError(msg)

    def prepared() -> None:
        from stack.prepare import tables  # noqa: PLC0415 - heavy, and only needed when starting

        tables(context.settings)

    return Component(
        name="questdb",
        title="QuestDB, time-series database",
        command=(
            str(path),
            "-Xms64m",
            f"-Xmx{HEAP_MB}m",
            *flags(version),
            f"-Djava.io.tmpdir={home / 'tmp'}",
            "-p",
            str(jar),
            "-m",
            "io.questdb/io.questdb.ServerMain",
            "-d",
            str(home),
        ),
        env=_environment(settings.user, settings.password.get_secret_value(), port, settings.pg_port),
        ports=(port, settings.pg_port),
        url=settings.http_url,
        check=check,
        before=before,
        prepared=prepared,
    )


def _environment(user: str, password: str, port: int, pg_port: int) -> dict[str, str]:
    """QuestDB reads `a.b` of its server.conf from `QDB_A_B`."""
    return {
        "QDB_HTTP_BIND_TO": f"{HOST}:{port}",
        "QDB_HTTP_USER": user,
        "QDB_HTTP_PASSWORD": password,
        "QDB_HTTP_MIN_ENABLED": "false",
        "QDB_PG_NET_BIND_TO": f"{HOST}:{pg_port}",
        "QDB_PG_USER": user,
        "QDB_PG_PASSWORD": password,
        "QDB_LINE_TCP_ENABLED": "false",
        "QDB_TELEMETRY_ENABLED": "false",
        **_threads(),
        "QDB_METRICS_ENABLED": "true",
        # INFO is four lines a query, hundreds a second under load.
        "QDB_LOG_W_STDOUT_LEVEL": "CRITICAL,ERROR,ADVISORY",
        # Most open WAL segments roll over by size; a small one keeps idle disk use down.
        "QDB_CAIRO_WAL_SEGMENT_ROLLOVER_SIZE": "4194304",
        # Every column of the present day takes this much disk at once. The default of 16 MB makes 5 GB of an empty system.
        "QDB_CAIRO_WRITER_DATA_APPEND_PAGE_SIZE": "1048576",
        "QDB_CAIRO_WRITER_DATA_INDEX_VALUE_APPEND_PAGE_SIZE": "1048576",
    }


def _threads() -> dict[str, str]:
    """One thread of each kind but for the network: the defaults grow with the cores, and each thread polls."""
    counts = {
        "SHARED_NETWORK_WORKER_COUNT": NETWORK_WORKERS,
        "SHARED_QUERY_WORKER_COUNT": 1,
        "SHARED_WRITE_WORKER_COUNT": 1,
        "WAL_APPLY_WORKER_COUNT": 1,
        "MAT_VIEW_REFRESH_WORKER_COUNT": 1,
        "VIEW_COMPILER_WORKER_COUNT": 1,
        "EXPORT_WORKER_COUNT": 1,
    }
    pools = {"SHARED": SLEEP_MS, "WAL_APPLY": SLEEP_BEHIND_MS, "MAT_VIEW_REFRESH": SLEEP_BEHIND_MS}
    pools |= {"VIEW_COMPILER": SLEEP_BEHIND_MS, "EXPORT": SLEEP_BEHIND_MS}
    values = {f"QDB_{name}": str(count) for name, count in counts.items()}
    for pool, sleep_ms in pools.items():
        values[f"QDB_{pool}_WORKER_NAP_THRESHOLD"] = str(NAP_AFTER)
        values[f"QDB_{pool}_WORKER_SLEEP_THRESHOLD"] = str(SLEEP_AFTER)
        values[f"QDB_{pool}_WORKER_SLEEP_TIMEOUT"] = str(sleep_ms)
    return values
