"""QuestDB: the time-series database.

Its web console, REST and PostgreSQL port ask for the password of `stack.env`. ILP over TCP is off (we use HTTP), and so is telemetry.
"""

from __future__ import annotations

import httpx

from btc_core.errors import QuestDBError
from stack.component import Component, Context
from stack.jars import jars
from stack.java import flags, java
from stack.layout import HOST, port_of

HEAP_MB = 384
"""QuestDB keeps its data off-heap: the heap holds SQL plans and parsed rows. 160 MB are used under our load."""
WORKERS = 2
"""Threads of the shared pool. The default is one a core; on a large machine each would cost its own buffers."""


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
        "QDB_SHARED_WORKER_COUNT": str(WORKERS),
        "QDB_METRICS_ENABLED": "true",
        # INFO is four lines a query, hundreds a second under load.
        "QDB_LOG_W_STDOUT_LEVEL": "CRITICAL,ERROR,ADVISORY",
        # Most open WAL segments roll over by size; a small one keeps idle disk use down.
        "QDB_CAIRO_WAL_SEGMENT_ROLLOVER_SIZE": "4194304",
    }
