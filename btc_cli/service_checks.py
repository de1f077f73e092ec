"""`btc doctor --env-file`: checks of the servers that settings name, wherever they run.

Each check connects as the processes do, and tries what they do. What does not belong here: components of the native stack
(`doctor`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg2
import redis

from btc_core.clock import now_ns
from btc_core.errors import BtcError
from btc_core.names import TOPICS, WorkerName
from btc_core.stores import redis_connection
from btc_core.stores.kafka_connection import missing_rights
from btc_core.stores.kafka_topics import missing_topics
from btc_core.stores.questdb import QuestDB
from btc_core.stores.s3 import ObjectStore
from stack import postgres_connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from btc_core.settings import Settings

TIMEOUT_S = 10.0
GROUPS = tuple(str(name) for name in WorkerName if name is not WorkerName.INGEST)
"""The consumer groups."""
PROBE_OBJECT = ".stack/doctor"
PROBE_KEY, PROBE_TTL_S = "feature:doctor", 1
PREPARE = "`python -m stack.prepare` creates them"


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    subject: str
    problem: str
    """What is wrong and how to fix it; empty if nothing is."""
    is_warning: bool = False
    """Whether the problem may be left as it is; it does not change the exit code."""


def check_services(settings: Settings) -> Iterator[Finding]:
    """Connect to every server with these settings, and try what the processes do there."""
    checks: dict[str, Callable[[Settings], str]] = {
        f"Kafka at {settings.kafka.bootstrap}": _kafka,
        f"QuestDB at {settings.questdb.http_url}": _questdb,
        f"Redis at {settings.redis.url}": _redis,
        f"object store at {settings.store.place}": _store,
        f"PostgreSQL at {settings.postgres.host}:{settings.postgres.port}": _postgres,
    }
    for subject, check in checks.items():
        try:
            yield Finding(subject, check(settings))
        except BtcError as error:
            yield Finding(subject, str(error))


def _kafka(settings: Settings) -> str:
    missing = missing_topics(settings.kafka, TOPICS, TIMEOUT_S)
    if missing:
        return f"the topics {', '.join(missing)} do not exist, or the user may not see them; {PREPARE}"
    lacking = missing_rights(settings.kafka, TOPICS, GROUPS, TIMEOUT_S)
    return "; ".join(lacking) and f"the user {settings.kafka.user!r} has {'; '.join(lacking)}"


def _questdb(settings: Settings) -> str:
    with QuestDB(settings.questdb, TIMEOUT_S) as db:
        if not db.execute("SELECT 1 FROM tables() WHERE table_name = 'bronze_ticks'"):
            return f"the tables do not exist; {PREPARE}"
    return ""


def _redis(settings: Settings) -> str:
    from btc_core.stores.redis_rows import replace  # noqa: PLC0415 - loads numba, which the other checks do not need

    try:
        with redis_connection.connect(settings.redis, TIMEOUT_S) as client:
            client.ping()
            replace(client, {PROBE_KEY: {"ts_event_ns": now_ns()}}, PROBE_TTL_S)
    except redis.RedisError as error:
        return redis_connection.explain(settings.redis, error)
    return ""


def _store(settings: Settings) -> str:
    for bucket in (settings.store.lake_bucket, settings.store.mlflow_bucket):
        with ObjectStore(settings.store, bucket, TIMEOUT_S, TIMEOUT_S) as store:
            store.put(PROBE_OBJECT, b"btc")
            if store.get(PROBE_OBJECT) != b"btc":
                return f"an object that was written to the bucket {bucket} does not come back"
            store.keys(".stack/")
            store.delete(PROBE_OBJECT)
    return ""


def _postgres(settings: Settings) -> str:
    postgres = settings.postgres
    for database in (postgres.dagster_db, postgres.mlflow_db):
        try:
            with postgres_connection.connect(postgres, database) as connection, connection.cursor() as cursor:
                cursor.execute("select has_schema_privilege(current_user, 'public', 'create')")
                if cursor.fetchone() != (True,):
                    return f"the user {postgres.user!r} has no right to create tables in the database {database}"
        except psycopg2.Error as error:
            return postgres_connection.explain(postgres, error)
    return ""
