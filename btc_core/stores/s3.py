"""A client of the S3-compatible object store: reads, writes, lists and deletes whole objects.

What does not belong here: what the objects contain (`btc_core.days.lake`, `btc_core.registry`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
)

from btc_core.clock import NS_PER_S
from btc_core.errors import StoreError
from btc_core.stores import origin
from btc_core.stores.tls_errors import tls_failure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.service_settings import StoreSettings

CONNECT_TIMEOUT_S = 3.0
READ_TIMEOUT_S = 60.0
"""The longest silence within an answer."""
RETRIES = 2
PIECE_BYTES = 1_000_000
MISSING = frozenset({"NoSuchKey", "404"})
_WRONG_KEY = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"})
_NO_RIGHT = frozenset({"AccessDenied", "403", "AllAccessDisabled"})


def s3_client(
    settings: StoreSettings,
    connect_timeout_s: float = CONNECT_TIMEOUT_S,
    read_timeout_s: float = READ_TIMEOUT_S,
    retries: int = RETRIES,
) -> Any:
    """A new boto3 client of the object store. Close it after use."""
    # Importing boto3 takes 0.1 s and 10 MB. The workers and the API need it only when MLflow keeps artifacts on S3.
    import boto3  # noqa: PLC0415 - slow to import
    from botocore.config import Config  # noqa: PLC0415 - 30 of these 100 ms

    # Without an access key, boto3 looks for credentials itself: in its files, at the machine, at the pod.
    keys = {
        "aws_access_key_id": settings.access_key,
        "aws_secret_access_key": settings.secret_key.get_secret_value(),
    }
    try:
        # boto3's own session makes a client in a tenth of the time. It also keeps the credentials that it once found, so
        # that a search for them needs a session of its own.
        session = boto3 if settings.access_key else boto3.session.Session(profile_name=settings.profile or None)
    except BotoCoreError as error:
        raise StoreError(explain(settings, error)) from error
    return session.client(
        "s3",
        endpoint_url=settings.endpoint_url or None,
        region_name=settings.region,
        verify=settings.authority,
        config=Config(
            s3={"addressing_style": settings.addressing},
            connect_timeout=connect_timeout_s,
            read_timeout=read_timeout_s,
            retries={"max_attempts": retries},
        ),
        **(keys if settings.access_key else {}),
    )


def encryption_arguments(settings: StoreSettings) -> dict[str, str]:
    """The arguments of a write that ask for encryption by the server."""
    given = {"ServerSideEncryption": settings.encryption, "SSEKMSKeyId": settings.kms_key}
    return {name: value for name, value in given.items() if value}


def explain(settings: StoreSettings, error: BotoCoreError | ClientError) -> str:
    """What went wrong, for people, without secrets."""
    where, name = f"the object store at {settings.place}", settings.prefix
    if isinstance(error, ClientError):
        code = error.response.get("Error", {}).get("Code")
        key = (
            f"the access key {settings.access_key!r}"
            if settings.access_key
            else "the credentials that AWS's search found"
        )
        if code in _WRONG_KEY:
            return f"{where} refuses {key} or its secret ({name}_ACCESS_KEY, {name}_SECRET_KEY): {error}"
        if code in _NO_RIGHT:
            return f"{where} gives {key} no right: {error}. docs/how-to/managed-services.md lists the rights that are needed"
        return f"{where} refuses: {error}"
    if isinstance(error, NoCredentialsError | PartialCredentialsError | ProfileNotFound | CredentialRetrievalError):
        return (
            f"there are no credentials for {where} ({error}): set {name}_ACCESS_KEY and {name}_SECRET_KEY, or "
            f"{name}_PROFILE, or give the machine or the pod a role"
        )
    if isinstance(error, SSLError):
        return tls_failure(where, settings.ca_file, f"{name}_CA_FILE", error)
    return f"{where} does not answer: {error}"


class Readable(Protocol):
    """What a stream of bytes must be able to do."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, and none at the end."""
        ...


class Entry(NamedTuple):
    """An object in the list of a bucket."""

    key: str
    size_bytes: int
    tag: str
    """Changes when the object is written again with other bytes."""


class ObjectStore:
    """One bucket; the one of the data lake unless another is named. Use it in a `with`."""

    def __init__(
        self,
        settings: StoreSettings,
        bucket: str = "",
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        self.bucket = bucket or settings.lake_bucket
        self._settings = settings
        self._client = s3_client(settings, connect_timeout_s, read_timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def uri(self, key: str) -> str:
        """`s3://bucket/key`."""
        return f"s3://{self.bucket}/{key}"

    def put(self, key: str, body: bytes) -> None:
        """Write a whole object; raises `StoreError`."""
        origin.before_write(origin.OBJECTS, self._settings.place, StoreError)
        self._request("put_object", key, Key=key, Body=body, **encryption_arguments(self._settings))

    def put_stream(self, key: str, stream: Readable) -> None:
        """Write what a stream still has as an object, in parts, so that memory does not grow with it; raises `StoreError`."""
        from boto3.exceptions import Boto3Error  # noqa: PLC0415 - slow to import, as boto3 itself

        origin.before_write(origin.OBJECTS, self._settings.place, StoreError)
        try:
            self._client.upload_fileobj(stream, self.bucket, key, ExtraArgs=encryption_arguments(self._settings))
        except (ClientError, BotoCoreError) as error:
            raise StoreError(f"{self.uri(key)} was not written: {explain(self._settings, error)}") from error
        except Boto3Error as error:
            raise StoreError(
                f"the object store at {self._settings.place} did not take {self.uri(key)}: {error}"
            ) from error

    def modified_ns(self, key: str) -> int | None:
        """When an object was last written, or None if it does not exist; raises `StoreError`."""
        answer = self._request("head_object", key, Key=key)
        return None if answer is None else int(answer["LastModified"].timestamp()) * NS_PER_S

    def get(self, key: str) -> bytes | None:
        """The bytes of an object, or None if it does not exist; raises `StoreError`."""
        answer = self._request("get_object", key, Key=key)
        return None if answer is None else bytes(answer["Body"].read())

    def pieces(self, key: str) -> Iterator[bytes]:
        """The bytes of an object in pieces of at most `PIECE_BYTES`; none if it does not exist. Raises `StoreError`."""
        answer = self._request("get_object", key, Key=key)
        if answer is None:
            return
        try:
            yield from answer["Body"].iter_chunks(PIECE_BYTES)
        except BotoCoreError as error:
            raise StoreError(
                f"the object store at {self._settings.place} broke off {self.uri(key)}: {error}"
            ) from error

    def delete(self, key: str) -> None:
        """Remove an object, if it exists; raises `StoreError`."""
        origin.before_write(origin.OBJECTS, self._settings.place, StoreError)
        self._request("delete_object", key, Key=key)

    def keys(self, prefix: str) -> list[str]:
        """All keys that begin with `prefix`, sorted; raises `StoreError`."""
        return [entry.key for entry in self.entries(prefix)]

    def entries(self, prefix: str) -> list[Entry]:
        """All objects whose keys begin with `prefix`, sorted by key; raises `StoreError`."""
        found: list[Entry] = []
        page_arguments: dict[str, str] = {}
        while True:
            page = self._request("list_objects_v2", prefix, Prefix=prefix, **page_arguments) or {}
            found += [Entry(each["Key"], each["Size"], each["ETag"]) for each in page.get("Contents", [])]
            if not page.get("IsTruncated"):
                return sorted(found)
            page_arguments = {"ContinuationToken": page["NextContinuationToken"]}

    def _request(self, action: str, key: str, **arguments: object) -> Any:
        """The answer to one request, or None if the object does not exist."""
        try:
            return getattr(self._client, action)(Bucket=self.bucket, **arguments)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in MISSING and action != "put_object":
                return None
            raise StoreError(f"{action} of {self.uri(key)} failed: {explain(self._settings, error)}") from error
        except BotoCoreError as error:
            raise StoreError(explain(self._settings, error)) from error
