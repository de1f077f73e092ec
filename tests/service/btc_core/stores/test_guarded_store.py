"""The object store behind a TLS endpoint: keys, profiles and encryption, for our client and for MLflow's."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from btc_core.errors import StoreError
from btc_core.service_settings import StoreSettings
from btc_core.stores.s3 import ObjectStore
from stack.prepare import buckets
from stack.servers.mlflow import _store_environment
from tests.certificates import Authority
from tests.tls_proxy import TlsProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from btc_core.settings import Settings

pytestmark = pytest.mark.service

UPLOAD = """
import pathlib, sys
from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository
pathlib.Path(sys.argv[1]).write_text("kept")
S3ArtifactRepository("s3://mlflow").log_artifact(sys.argv[1], "guarded")
"""


@pytest.fixture(scope="module")
def authority() -> Iterator[Authority]:
    folder = Path(tempfile.mkdtemp(prefix="btc-test-"))
    yield Authority(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def settings(servers: Callable[..., Settings]) -> Settings:
    return servers("store")


@pytest.fixture
def proxy(settings: Settings, authority: Authority) -> Iterator[TlsProxy]:
    with TlsProxy(authority, int(settings.store.endpoint_url.rpartition(":")[2])) as running:
        yield running


@pytest.fixture
def guarded(settings: Settings, authority: Authority, proxy: TlsProxy) -> StoreSettings:
    return changed(settings.store, endpoint_url=f"https://localhost:{proxy.port}", ca_file=str(authority.file))


def changed(settings: StoreSettings, **changes: Any) -> StoreSettings:
    return StoreSettings.model_validate(settings.model_dump() | changes)


def test_objects_are_written_read_and_listed_over_tls(settings: Settings, guarded: StoreSettings) -> None:
    buckets(settings.model_copy(update={"store": guarded}))
    with ObjectStore(guarded) as store:
        store.put("guarded/a", b"kept")
        assert store.get("guarded/a") == b"kept"
        assert b"".join(store.pieces("guarded/a")) == b"kept"
        assert store.keys("guarded/") == ["guarded/a"]
        store.delete("guarded/a")
        assert store.get("guarded/a") is None


def test_a_missing_bucket_is_created(settings: Settings, guarded: StoreSettings) -> None:
    new = changed(guarded, lake_bucket="guarded-lake")
    buckets(settings.model_copy(update={"store": new}))
    with ObjectStore(new) as store:
        store.put("a", b"kept")
        assert store.get("a") == b"kept"


@pytest.mark.parametrize(
    ("encryption", "kms_key", "headers"),
    [
        ("AES256", "", [b"x-amz-server-side-encryption: aes256"]),
        (
            "aws:kms",
            "our-key",
            [b"x-amz-server-side-encryption: aws:kms", b"x-amz-server-side-encryption-aws-kms-key-id: our-key"],
        ),
    ],
)
def test_every_write_asks_for_encryption(
    guarded: StoreSettings, proxy: TlsProxy, encryption: str, kms_key: str, headers: list[bytes]
) -> None:
    """The packaged store has no keys for it, so what it is asked for is read at the TLS endpoint."""
    with ObjectStore(changed(guarded, encryption=encryption, kms_key=kms_key)) as store, suppress(StoreError):
        store.put("guarded/encrypted", b"kept")
    sent = bytes(proxy.received).lower()
    assert all(header in sent for header in headers)


def test_keys_come_from_a_profile(guarded: StoreSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "credentials"
    secret = guarded.secret_key.get_secret_value()
    file.write_text(f"[btc]\naws_access_key_id = {guarded.access_key}\naws_secret_access_key = {secret}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    with ObjectStore(changed(guarded, access_key="", secret_key="", profile="btc")) as store:
        store.put("guarded/by-profile", b"kept")
        assert store.get("guarded/by-profile") == b"kept"
    with pytest.raises(StoreError, match=r"no credentials .*BTC_STORE_PROFILE"):
        ObjectStore(changed(guarded, access_key="", secret_key="", profile="another"))


def test_without_any_key_the_message_says_where_they_can_be(
    guarded: StoreSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", guarded.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", guarded.secret_key.get_secret_value())
    with ObjectStore(changed(guarded, access_key="", secret_key="")) as store:
        store.put("guarded/by-environment", b"kept")  # a later client does not keep these credentials
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with (
        ObjectStore(changed(guarded, access_key="", secret_key="")) as store,
        pytest.raises(StoreError, match=r"there are no credentials .*BTC_STORE_ACCESS_KEY"),
    ):
        store.put("guarded/a", b"")


def test_what_is_wrong_is_named_without_the_secret(guarded: StoreSettings, tmp_path: Path) -> None:
    other = Authority(tmp_path, "another authority")
    wrong = {
        r"refuses the access key 'btc' or its secret": changed(guarded, secret_key="not this one"),
        r"refuses the access key 'nobody' or its secret": changed(guarded, access_key="nobody"),
        r"encrypted connection .*failed.*BTC_STORE_CA_FILE": changed(guarded, ca_file=str(other.file)),
        r"put_object of s3://nowhere/a failed": changed(guarded, lake_bucket="nowhere"),
    }
    for words, settings in wrong.items():
        with ObjectStore(settings) as store, pytest.raises(StoreError, match=words) as caught:
            store.put("a", b"")
        assert "not this one" not in str(caught.value) + repr(settings)


def test_a_bucket_can_be_part_of_the_host_name(
    settings: Settings, proxy: TlsProxy, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The packaged store knows its buckets by path, so the request is read at the TLS endpoint."""
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _host, *more, **options: resolve("127.0.0.1", *more, **options))
    values = {
        "endpoint_url": f"https://localhost:{proxy.port}",
        "ca_file": str(authority.file),
        "addressing": "virtual",
    }
    with ObjectStore(changed(settings.store, **values), "lake") as store, suppress(StoreError):
        store.get("a")
    assert f"GET /a HTTP/1.1\r\nHost: lake.localhost:{proxy.port}".encode() in bytes(proxy.received)


@pytest.mark.parametrize("encryption", ["", "AES256"])
def test_mlflow_writes_artifacts_with_the_same_settings(
    guarded: StoreSettings, proxy: TlsProxy, tmp_path: Path, encryption: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    subprocess.run(
        [sys.executable, "-c", UPLOAD, str(tmp_path / "artifact.txt")],
        env=environment | _store_environment(changed(guarded, encryption=encryption)),
        check=not encryption,  # the packaged store has no keys for it
        timeout=300,
    )
    assert (b"x-amz-server-side-encryption: aes256" in bytes(proxy.received).lower()) == bool(encryption)
    with ObjectStore(guarded, guarded.mlflow_bucket) as store:
        assert store.get("guarded/artifact.txt") == b"kept"
