"""What must exist in the servers before anything of ours starts: databases, buckets, topics, tables.

Each function may run any number of times. What does not belong here: what a topic or table is (`btc_core`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from btc_core.errors import StoreError

if TYPE_CHECKING:
    from btc_core.settings import Settings

PROBE = ".stack/probe"
"""An object that is read back at each start."""
STORE_PATIENCE_S = 30.0
"""The S3 gateway answers a second or two before its filer and volume server have found each other."""


def databases(settings: Settings) -> None:
    """Create the databases of Dagster and MLflow."""
    import psycopg2  # noqa: PLC0415 - each of these needs another client
    from psycopg2 import sql  # noqa: PLC0415

    postgres = settings.postgres
    connection = psycopg2.connect(
        host=postgres.host,
        port=postgres.port,
        user=postgres.user,
        password=postgres.password.get_secret_value(),
        dbname="postgres",
    )
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            for name in (postgres.dagster_db, postgres.mlflow_db):
                cursor.execute("select 1 from pg_database where datname = %s", (name,))
                if cursor.fetchone() is None:
                    cursor.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    finally:
        connection.close()


def buckets(settings: Settings) -> None:
    """Create the buckets and read an object back; raises `StoreError` when that does not work in time."""
    import boto3  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    store = settings.store
    client = boto3.client(
        "s3",
        endpoint_url=store.endpoint_url,
        aws_access_key_id=store.access_key,
        aws_secret_access_key=store.secret_key.get_secret_value(),
        region_name="us-east-1",
        config=Config(connect_timeout=3, read_timeout=10, retries={"max_attempts": 1}),
    )
    deadline_s = time.monotonic() + STORE_PATIENCE_S
    try:
        while True:
            try:
                _prove(client, (store.mlflow_bucket, store.lake_bucket))
            except (BotoCoreError, ClientError) as error:
                if time.monotonic() > deadline_s:
                    msg = f"the object store at {store.endpoint_url} keeps no objects: {error}"
                    raise StoreError(msg) from error
                time.sleep(0.3)
            else:
                return
    finally:
        client.close()


def _prove(client: Any, names: tuple[str, ...]) -> None:  # the client's type exists only at run time
    """After a restart an object of before must be readable, not only a new one writable."""
    present = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    for name in names:
        if name not in present:
            client.create_bucket(Bucket=name)
    if client.list_objects_v2(Bucket=names[-1], Prefix=PROBE).get("KeyCount", 0) == 0:
        client.put_object(Bucket=names[-1], Key=PROBE, Body=b"btc")
    client.get_object(Bucket=names[-1], Key=PROBE)["Body"].read()


def topics(settings: Settings) -> None:
    """Create the Kafka topics."""
    from btc_core.stores.kafka import ensure_topics  # noqa: PLC0415

    ensure_topics(settings)


def tables(settings: Settings) -> None:
    """Create the QuestDB tables."""
    from btc_core.stores.questdb import QuestDB  # noqa: PLC0415
    from btc_core.tables.schema import ensure_tables  # noqa: PLC0415

    with QuestDB(settings.questdb) as db:
        ensure_tables(db)


def main() -> None:
    """All of it, from the settings of the environment; the one-shot container of compose runs this."""
    from btc_core.settings import load_settings  # noqa: PLC0415

    settings = load_settings()
    for step in (databases, buckets, topics, tables):
        step(settings)


if __name__ == "__main__":
    main()
