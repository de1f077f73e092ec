"""A thin client of the S3-compatible object store: whole objects by key.

What does not belong here: what the objects are (`lake`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from btc_core.errors import StoreError

if TYPE_CHECKING:
    from btc_core.settings import StoreSettings

CONNECT_TIMEOUT_S = 3
READ_TIMEOUT_S = 60
TRIES = 2
MISSING = frozenset({"NoSuchKey", "404"})


class ObjectStore:
    """One bucket."""

    def __init__(self, settings: StoreSettings, bucket: str = "") -> None:
        self.bucket = bucket or settings.lake_bucket
        self._url = settings.endpoint_url
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=settings.endpoint_url,
            aws_access_key_id=settings.access_key,
            aws_secret_access_key=settings.secret_key.get_secret_value(),
            region_name="us-east-1",
            config=Config(
                connect_timeout=CONNECT_TIMEOUT_S, read_timeout=READ_TIMEOUT_S, retries={"max_attempts": TRIES}
            ),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def uri(self, key: str) -> str:
        """`s3://bucket/key`."""
        return f"s3://{self.bucket}/{key}"

    def put(self, key: str, body: bytes) -> None:
        """Write an object whole; raises `StoreError`."""
        self._ask("put_object", key, Key=key, Body=body)

    def get(self, key: str) -> bytes | None:
        """An object's bytes, None when there is none; raises `StoreError`."""
        answer = self._ask("get_object", key, Key=key)
        return None if answer is None else answer["Body"].read()

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error. Raises `StoreError`."""
        self._ask("delete_object", key, Key=key)

    def keys(self, prefix: str) -> list[str]:
        """Every key that begins with `prefix`, sorted; raises `StoreError`."""
        found: list[str] = []
        more: dict[str, str] = {}
        while True:
            page = self._ask("list_objects_v2", prefix, Prefix=prefix, **more) or {}
            found += [entry["Key"] for entry in page.get("Contents", [])]
            if not page.get("IsTruncated"):
                return sorted(found)
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _ask(self, call: str, what: str, **arguments: object) -> Any:
        try:
            return getattr(self._client, call)(Bucket=self.bucket, **arguments)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in MISSING and call != "put_object":
                return None
            raise StoreError(f"the object store refused {call} of {self.uri(what)}: {error}") from error
        except BotoCoreError as error:
            raise StoreError(f"the object store at {self._url} does not answer: {error}") from error
