"""Checks of the servers that settings name, wherever they run: for `btc doctor --env-file`, and for servers that a user gives.

Each check connects as the processes do, and tries what they do. What does not belong here: the servers that the stack starts
(`stack/servers`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg2
from botocore.exceptions import BotoCoreError, ClientError

from btc_core.clock import now_ns
from btc_core.errors import BtcError, ServiceError, StoreError
from btc_core.names import TOPICS, WorkerName
from btc_core.stores import redis_connection
from btc_core.stores.kafka_connection import admin_client, missing_rights
from btc_core.stores.kafka_topics import missing_topics
from btc_core.stores.s3 import ObjectStore, s3_client
from btc_core.stores.s3 import explain as explain_store
from stack import postgres_connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from btc_core.settings import Settings

TIMEOUT_S = 10.0
GROUPS = tuple(str(name) for name in WorkerName if name is not WorkerName.INGEST)
"""The consumer groups."""
PROBE_FOLDER = ".stack/"
PROBE_KEYS, PROBE_TTL_S = ("feature:doctor", "forecast:doctor"), 1
"""Two keys, because a Redis Cluster takes one alone and no transaction with both."""
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
        f"Kafka at {settings.kafka.bootstrap}": kafka_problem,
        f"QuestDB at {settings.questdb.http_url}": questdb_problem,
        f"Redis at {settings.redis.url}": redis_problem,
        f"object store at {settings.store.place}": store_problem,
        f"PostgreSQL at {settings.postgres.host}:{settings.postgres.port}": postgres_problem,
    }
    for subject, check in checks.items():
        try:
            yield Finding(subject, check(settings))
        except BtcError as error:
            yield Finding(subject, str(error))


def require(problem: str) -> None:
    """Raise `ServiceError` when there is a problem."""
    if problem:
        raise ServiceError(problem)


def kafka_answers(settings: Settings) -> None:
    """Raise `ServiceError` when no broker answers, or the brokers refuse the user."""
    with admin_client(settings.kafka, log_level=0) as admin:
        admin.list_topics(timeout=TIMEOUT_S)


def kafka_problem(settings: Settings) -> str:
    """Which topics or rights are missing; raises `ServiceError`."""
    missing = missing_topics(settings.kafka, TOPICS, TIMEOUT_S)
    if missing:
        return f"the topics {', '.join(missing)} do not exist, or the user may not see them; {PREPARE}"
    lacking = missing_rights(settings.kafka, TOPICS, GROUPS, TIMEOUT_S)
    return "; ".join(lacking) and f"the user {settings.kafka.user!r} has {'; '.join(lacking)}"


def questdb_answers(settings: Settings) -> None:
    """Raise `ServiceError` when QuestDB does not answer, or refuses the user or the token."""
    _ask_questdb(settings, "SELECT 1")


def questdb_problem(settings: Settings) -> str:
    """Whether the tables are missing; raises `ServiceError`."""
    found = _ask_questdb(settings, "SELECT 1 FROM tables() WHERE table_name = 'bronze_ticks'")
    return "" if found else f"the tables do not exist; {PREPARE}"


def _ask_questdb(settings: Settings, sql: str) -> list[list[Any]]:
    from btc_core.stores.questdb import QuestDB  # noqa: PLC0415 - loads pyarrow, which the other checks do not need

    with QuestDB(settings.questdb, TIMEOUT_S) as db:
        return db.execute(sql)


def redis_answers(settings: Settings) -> None:
    """Raise `ServiceError` when Redis does not answer, or refuses the user."""
    with redis_connection.connect(settings.redis, TIMEOUT_S) as client, redis_connection.explained(client):
        client.ping()


def redis_problem(settings: Settings) -> str:
    """Why rows cannot be written and published."""
    from btc_core.stores.redis_rows import replace  # noqa: PLC0415 - loads numba, which the other checks do not need

    try:
        with redis_connection.connect(settings.redis, TIMEOUT_S) as client, redis_connection.explained(client):
            client.ping()
            replace(client, {key: {"ts_event_ns": now_ns()} for key in PROBE_KEYS}, PROBE_TTL_S)
    except ServiceError as error:
        return str(error)
    return ""


def store_answers(settings: Settings) -> None:
    """Raise `StoreError` when the store does not answer, or refuses the key. A bucket that does not exist yet is no problem."""
    client = s3_client(settings.store, TIMEOUT_S, TIMEOUT_S, retries=1)
    try:
        client.head_bucket(Bucket=settings.store.lake_bucket)
    except (BotoCoreError, ClientError) as error:
        if isinstance(error, ClientError) and error.response["Error"]["Code"] in {"404", "NoSuchBucket"}:
            return
        raise StoreError(explain_store(settings.store, error)) from error
    finally:
        client.close()


def store_problem(settings: Settings) -> str:
    """Whether an object that was written does not come back; raises `StoreError`."""
    key = f"{PROBE_FOLDER}doctor-{uuid4().hex}"  # two checks at the same time do not see each other
    for bucket in (settings.store.lake_bucket, settings.store.mlflow_bucket):
        with ObjectStore(settings.store, bucket, TIMEOUT_S, TIMEOUT_S) as store:
            store.put(key, b"btc")
            if store.get(key) != b"btc":
                return f"an object that was written to the bucket {bucket} does not come back"
            store.keys(PROBE_FOLDER)
            store.delete(key)
    return ""


def postgres_answers(settings: Settings) -> None:
    """Raise `ServiceError` when PostgreSQL does not answer, or refuses the user."""
    try:
        with postgres_connection.connect(settings.postgres, "postgres"):
            pass
    except psycopg2.Error as error:
        raise ServiceError(postgres_connection.explain(settings.postgres, error)) from error


def postgres_problem(settings: Settings) -> str:
    """Why Dagster or MLflow cannot create their tables."""
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
