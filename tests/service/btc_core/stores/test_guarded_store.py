"""An object store that can what Amazon's can, behind a TLS endpoint: keys, profiles, roles and encryption, also for MLflow."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from btc_core.errors import StoreError
from btc_core.service_settings import StoreSettings
from btc_core.stores.s3 import ObjectStore
from stack.prepare import buckets
from stack.servers.mlflow import _store_environment
from tests.certificates import Authority
from tests.full_store import ROLE, FullStore
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
def full_store() -> Iterator[FullStore]:
    with FullStore() as running:
        yield running


@pytest.fixture(scope="module")
def settings(servers: Callable[..., Settings], full_store: FullStore) -> Settings:
    given = servers()
    settings = given.model_copy(update={"store": changed(given.store, endpoint_url=full_store.url, **full_store.keys)})
    buckets(settings)
    return settings


@pytest.fixture
def proxy(full_store: FullStore, authority: Authority) -> Iterator[TlsProxy]:
    with TlsProxy(authority, full_store.port) as running:
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
    ("encryption", "kms_key", "asked"),
    [
        ("AES256", "", {"ServerSideEncryption": "AES256"}),
        ("aws:kms", "our-key", {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "our-key"}),
    ],
)
def test_what_is_written_is_encrypted_on_the_disk_of_the_store(
    guarded: StoreSettings, full_store: FullStore, encryption: str, kms_key: str, asked: dict[str, str]
) -> None:
    words, plain = os.urandom(65_536), os.urandom(65_536)  # text would be compressed
    with ObjectStore(changed(guarded, encryption=encryption, kms_key=kms_key)) as store:
        store.put("guarded/encrypted", words)
        store.put_stream("guarded/encrypted-in-parts", io.BytesIO(words))
        for key in ("guarded/encrypted", "guarded/encrypted-in-parts"):
            assert store.get(key) == words
            answer = store._client.head_object(Bucket=store.bucket, Key=key)
            assert {name: answer.get(name) for name in asked} == asked
    with ObjectStore(guarded) as store:
        store.put("guarded/plain", plain)
    assert full_store.has_on_disk(plain)
    assert not full_store.has_on_disk(words)


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


def test_a_role_is_assumed_with_a_profile(
    settings: Settings, full_store: FullStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is its own token service: it gives a key for an hour to those who may assume the role."""
    keys = full_store.keys
    (tmp_path / "credentials").write_text(
        f"[own]\naws_access_key_id = {keys['access_key']}\naws_secret_access_key = {keys['secret_key']}\n"
    )
    (tmp_path / "config").write_text(
        f"[profile lake]\nrole_arn = {ROLE}\nsource_profile = own\nregion = us-east-1\nservices = here\n"
        f"[services here]\nsts =\n  endpoint_url = {full_store.url}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    by_role = changed(settings.store, access_key="", secret_key="", profile="lake")
    with ObjectStore(by_role) as store:
        store.put("guarded/by-role", b"kept")
        assert store.get("guarded/by-role") == b"kept"
        used = store._client._request_signer._credentials
        assert (used.method, bool(used.token)) == ("assume-role", True)
    with ObjectStore(settings.store) as store:
        assert store.get("guarded/by-role") == b"kept"


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
    settings: Settings, guarded: StoreSettings, proxy: TlsProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _host, *more, **options: resolve("127.0.0.1", *more, **options))
    with ObjectStore(changed(guarded, addressing="virtual")) as store:
        store.put("guarded/by-host", b"kept")
        assert store.get("guarded/by-host") == b"kept"
        assert "guarded/by-host" in store.keys("guarded/")
        bucket = store.bucket
    assert f"GET /guarded/by-host HTTP/1.1\r\nHost: {bucket}.localhost:{proxy.port}".encode() in bytes(proxy.received)
    with ObjectStore(settings.store) as store:
        assert store.get("guarded/by-host") == b"kept"


@pytest.mark.parametrize("encryption", ["", "AES256"])
def test_mlflow_writes_artifacts_with_the_same_settings(
    guarded: StoreSettings, tmp_path: Path, encryption: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    subprocess.run(
        [sys.executable, "-c", UPLOAD, str(tmp_path / "artifact.txt")],
        env=environment | _store_environment(changed(guarded, encryption=encryption)),
        check=True,
        timeout=300,
    )
    with ObjectStore(guarded, guarded.mlflow_bucket) as store:
        assert store.get("guarded/artifact.txt") == b"kept"
        answer = store._client.head_object(Bucket=store.bucket, Key="guarded/artifact.txt")
        assert answer.get("ServerSideEncryption", "") == encryption
