"""What must exist in the servers before our programs start: databases, buckets, topics, tables, and marks of whose data it is.

Each function may run any number of times, and refuses a server that holds other data (`btc_core.stores.origin`). What does not belong here: what a topic or table is (`btc_core`).
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

import httpx
import psycopg2
from botocore.exceptions import BotoCoreError, ClientError
from psycopg2 import sql

from btc_core.errors import BtcError, ServiceError, StoreError
from btc_core.settings import load_settings
from btc_core.stores import origin
from btc_core.stores.kafka_topics import ensure_topics
from btc_core.stores.questdb_connection import http_client
from btc_core.stores.s3 import encryption_arguments, explain, s3_client
from btc_core.waiting import wait_until
from stack.postgres_connection import connect

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.service_settings import StoreSettings
    from btc_core.settings import Settings

PROBE_KEY = ".stack/probe"
"""An object that is read back at each start."""
STORE_TIMEOUT_S = 30.0
"""The S3 gateway answers a second or two before its filer and volume server have found each other."""
STORE_POLL_S = 0.3
READ_TIMEOUT_S = 10.0
PATIENCE_S = 180.0
"""How long a server may refuse or not answer before the preparation of all servers fails."""
PAUSE_S = 2.0

_logger = logging.getLogger("prepare")


def databases(settings: Settings) -> None:
    """Create the databases of Dagster and MLflow."""
    postgres = settings.postgres
    with connect(postgres, "postgres") as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for name in (postgres.dagster_db, postgres.mlflow_db):
                cursor.execute("select 1 from pg_database where datname = %s", (name,))
                if cursor.fetchone() is None:
                    cursor.execute(sql.SQL("create database {}").format(sql.Identifier(name)))


def buckets(settings: Settings) -> None:
    """Create the buckets, and mark whose objects they hold; raises `StoreError` when that does not succeed in time."""
    create_buckets(settings)
    origin.claim(settings, origin.OBJECTS)


def create_buckets(settings: Settings) -> None:
    """Create the buckets and read an object back; raises `StoreError` when that does not succeed in time."""
    store = settings.store
    client = s3_client(store, read_timeout_s=READ_TIMEOUT_S, retries=1)
    last_error: BotoCoreError | ClientError | None = None

    def stores_objects() -> bool:
        nonlocal last_error
        try:
            _create_and_probe(client, store)
        except (BotoCoreError, ClientError) as error:
            last_error = error
            return False
        return True

    try:
        if not wait_until(stores_objects, STORE_TIMEOUT_S, STORE_POLL_S):
            msg = f"no objects can be stored: {explain(store, last_error) if last_error else ''}"
            raise StoreError(msg) from last_error
    finally:
        client.close()


def _create_and_probe(client: Any, store: StoreSettings) -> None:  # boto3 makes the client's class at run time
    """Create missing buckets and read the probe, which an earlier start has written: old objects must be readable too."""
    # Amazon's other regions want their name in the request; the first region and other stores refuse it.
    elsewhere = not store.endpoint_url and store.region != "us-east-1"
    place = {"CreateBucketConfiguration": {"LocationConstraint": store.region}} if elsewhere else {}
    for name in (store.mlflow_bucket, store.lake_bucket):
        try:
            client.head_bucket(Bucket=name)
        except ClientError as error:
            if error.response["Error"]["Code"] not in {"404", "NoSuchBucket"}:
                raise
            client.create_bucket(Bucket=name, **place)
    bucket = store.lake_bucket
    if client.list_objects_v2(Bucket=bucket, Prefix=PROBE_KEY).get("KeyCount", 0) == 0:
        client.put_object(Bucket=bucket, Key=PROBE_KEY, Body=b"btc", **encryption_arguments(store))
    client.get_object(Bucket=bucket, Key=PROBE_KEY)["Body"].read()


def topics(settings: Settings, retention_bytes: int = 0) -> None:
    """Create the Kafka topics and set what each partition may keep; 0 bytes: as the settings say."""
    origin.claim(settings, origin.LOG)
    ensure_topics(settings, retention_bytes or settings.kafka.retention_bytes)


def tables(settings: Settings) -> None:
    """Create the QuestDB tables."""
    from btc_core.stores.questdb import QuestDB  # noqa: PLC0415 - loads pyarrow, which `btc status` and `btc logs` do not need
    from btc_core.tables.schema import ensure_tables  # noqa: PLC0415 - loads pyarrow, which `btc status` and `btc logs` do not need

    origin.claim(settings, origin.TABLES)
    with QuestDB(settings.questdb) as db:
        ensure_tables(db)
    name_console(settings)


def name_console(settings: Settings) -> None:
    """Give QuestDB's console a name and a colour, unless it has a name or its settings may not be changed.

    They are no variables of `server.conf`: QuestDB keeps them in its data directory, and its console warns while there are none.
    """
    named = {
        "instance_name": f"btc-forecast, {'SIMULATED' if settings.simulated else 'live'}",
        "instance_type": "testing" if settings.simulated else "production",
        "instance_description": "Market data, features and forecasts. Only the programs of btc-forecast write here.",
        "instance_rgb": "b" if settings.simulated else "g",
    }
    try:
        with http_client(settings.questdb, READ_TIMEOUT_S) as client:
            found = client.get("/settings").raise_for_status().json()
            if found["preferences"].get("instance_name") or found["config"].get("http.settings.readonly"):
                return
            version = found["preferences.version"]
            client.put("/settings", params={"version": version}, json=named).raise_for_status()
    except (httpx.HTTPError, ValueError, KeyError) as error:  # nothing but the look of the console depends on it
        _logger.warning("the console of QuestDB has no name: %s", error)


def main() -> int:
    """Prepare all servers, with the settings of the environment. The `prepare` container runs this."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stdout)
    try:
        settings = load_settings()
        for step in (databases, buckets, topics, tables):
            _insist(step, settings)
    except (BtcError, psycopg2.Error) as error:
        _logger.critical("stopped: %s", error)
        return 1
    return 0


def _insist(step: Callable[[Settings], None], settings: Settings) -> None:
    """Repeat a step while a server does not answer: on a busy machine, one can be healthy and still take seconds for a request."""
    failure: ServiceError | psycopg2.OperationalError | None = None

    def succeeds() -> bool:
        nonlocal failure
        try:
            step(settings)
        except (ServiceError, psycopg2.OperationalError) as error:
            failure = error
            _logger.warning("%s: %s", step.__name__, " ".join(str(error).split()))
            return False
        return True

    if not wait_until(succeeds, PATIENCE_S, PAUSE_S) and failure is not None:
        raise failure


if __name__ == "__main__":
    sys.exit(main())
