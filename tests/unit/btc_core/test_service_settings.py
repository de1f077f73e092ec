"""Settings of servers: contradictions are refused by name, secrets come from files and are never shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from btc_core.errors import ConfigError
from btc_core.settings import load_settings, secret_variables
from tests.certificates import Authority

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

OAUTH = "KAFKA_SECURITY=sasl_ssl KAFKA_MECHANISM=OAUTHBEARER KAFKA_USER=id KAFKA_PASSWORD=word"


@pytest.fixture(autouse=True)
def no_env_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BTC_ENV_FILE", raising=False)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ("KAFKA_SECURITY=sasl_ssl", "BTC_KAFKA_SECURITY=sasl_ssl needs BTC_KAFKA_USER and BTC_KAFKA_PASSWORD"),
        ("KAFKA_USER=btc KAFKA_PASSWORD=x", "BTC_KAFKA_SECURITY=plaintext sends neither"),
        ("KAFKA_CA_FILE=/dev/null", "BTC_KAFKA_SECURITY=plaintext does not encrypt"),
        ("KAFKA_SECURITY=ssl KAFKA_CA_FILE=/no/ca.pem", "BTC_KAFKA_CA_FILE names /no/ca.pem, which cannot be read"),
        ("KAFKA_SECURITY=ssl KAFKA_CERT_FILE=/dev/null", "BTC_KAFKA_CERT_FILE and BTC_KAFKA_KEY_FILE belong together"),
        (f"{OAUTH}", "OAUTHBEARER needs BTC_KAFKA_TOKEN_URL"),
        (f"{OAUTH} KAFKA_TOKEN_URL=http://issuer/token", "must begin with https://, because the client secret"),
        (
            f"{OAUTH} KAFKA_TOKEN_URL=http://localhost/token KAFKA_TOKEN_CA_FILE=/dev/null",
            "KAFKA_TOKEN_URL does not encrypt",
        ),
        (f"{OAUTH} KAFKA_TOKEN_URL=https://a:secret@issuer/token", "BTC_KAFKA_TOKEN_URL contains a password"),
        ("KAFKA_TOKEN_SCOPE=log", "_TOKEN_SCOPE.* is set, and no token is used"),
        ("KAFKA_MIN_INSYNC=2", "BTC_KAFKA_MIN_INSYNC=2 is more than BTC_KAFKA_REPLICATION=1"),
        ("QUESTDB_HTTP_URL=questdb:9000", "must begin with http:// or https://"),
        ("QUESTDB_CA_FILE=/dev/null", "BTC_QUESTDB_HTTP_URL does not encrypt"),
        ("REDIS_USER=btc", "BTC_REDIS_USER is set without BTC_REDIS_PASSWORD"),
        ("REDIS_SENTINEL_PASSWORD=word", "BTC_REDIS_SENTINEL_PASSWORD is set without BTC_REDIS_SENTINELS"),
        ("REDIS_SENTINELS=a:26379,b REDIS_URL=redis://mymaster/0", "a host and a port of each"),
        ("REDIS_SENTINELS=a:26379", "must hold the name of the master in place of a host and a port"),
        ("REDIS_CA_FILE=/dev/null", "must begin with rediss://"),
        ("POSTGRES_SSLMODE=verify-full", "needs BTC_POSTGRES_CA_FILE"),
        ("POSTGRES_CA_FILE=/dev/null", "BTC_POSTGRES_SSLMODE=prefer checks no certificate"),
        ("STORE_PROFILE=mine", "set BTC_STORE_ACCESS_KEY to nothing"),
        ("STORE_KMS_KEY=mine", "BTC_STORE_ENCRYPTION is not aws:kms"),
        ("STORE_CA_FILE=/dev/null", "BTC_STORE_ENDPOINT_URL does not encrypt"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_by_name(
    variables: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pair in variables.split():
        name, _, value = pair.partition("=")
        monkeypatch.setenv(f"BTC_{name}", value)
    with pytest.raises(ConfigError, match=words):
        load_settings()


def test_files_that_hold_no_certificate_or_do_not_fit_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    one, other = authority.certificate("one"), authority.certificate("other")
    monkeypatch.setenv("BTC_KAFKA_SECURITY", "ssl")
    monkeypatch.setenv("BTC_KAFKA_CA_FILE", str(authority.file))
    monkeypatch.setenv("BTC_KAFKA_CERT_FILE", str(one.cert))
    monkeypatch.setenv("BTC_KAFKA_KEY_FILE", str(one.key))
    assert load_settings().kafka.encrypted
    monkeypatch.setenv("BTC_KAFKA_KEY_FILE", str(other.key))
    with pytest.raises(ConfigError, match=r"one.crt .BTC_KAFKA_CERT_FILE. and the key .*other.key"):
        load_settings()
    monkeypatch.setenv("BTC_KAFKA_KEY_FILE", str(one.key))
    monkeypatch.setenv("BTC_KAFKA_CA_FILE", str(one.key))
    with pytest.raises(ConfigError, match=r"BTC_KAFKA_CA_FILE names .*one.key, which holds no certificates"):
        load_settings()


@pytest.mark.parametrize(
    ("variable", "url", "instead"),
    [
        ("BTC_REDIS_URL", "redis://btc:secret-word@redis:6379/0", "BTC_REDIS_PASSWORD"),
        ("BTC_QUESTDB_HTTP_URL", "https://btc:secret-word@questdb:9000", "BTC_QUESTDB_PASSWORD"),
        ("BTC_STORE_ENDPOINT_URL", "https://btc:secret-word@store", "BTC_STORE_SECRET_KEY"),
    ],
)
def test_a_password_in_an_address_is_refused_and_not_shown(
    variable: str, url: str, instead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, url)
    with pytest.raises(ConfigError, match=f"{variable} contains a password.*{instead}") as caught:
        load_settings()
    assert "secret-word" not in str(caught.value)


def test_every_secret_can_be_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in secret_variables():
        monkeypatch.delenv(name.upper(), raising=False)
        (tmp_path / name).write_text(f"word=of.{name}.0123456789\n")
        monkeypatch.setenv(f"{name.upper()}_FILE", str(tmp_path / name))
    monkeypatch.setenv("BTC_KAFKA_SECURITY", "sasl_ssl")
    monkeypatch.setenv("BTC_KAFKA_USER", "btc")
    monkeypatch.setenv("BTC_REDIS_URL", "redis://mymaster/0")
    monkeypatch.setenv("BTC_REDIS_SENTINELS", "a.example:26379")
    settings = load_settings()
    for name in secret_variables():
        section, _, field = name.removeprefix("btc_").partition("_")
        assert getattr(getattr(settings, section), field).get_secret_value() == f"word=of.{name}.0123456789"
    assert "word=of" not in repr(settings)


def test_an_env_file_can_name_the_file_of_a_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("BTC_REDIS_PASSWORD", raising=False)
    (tmp_path / "redis").write_text("from the file")
    (tmp_path / "stack.env").write_text(f"BTC_REDIS_PASSWORD_FILE={tmp_path / 'redis'}\n")
    assert load_settings(tmp_path / "stack.env").redis.password.get_secret_value() == "from the file"


def test_a_missing_file_and_a_secret_given_twice_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("BTC_REDIS_PASSWORD", raising=False)
    monkeypatch.setenv("BTC_REDIS_PASSWORD_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"BTC_REDIS_PASSWORD_FILE names .* which cannot be read"):
        load_settings()
    monkeypatch.setenv("BTC_REDIS_PASSWORD", "a word")
    with pytest.raises(ConfigError, match="BTC_REDIS_PASSWORD and BTC_REDIS_PASSWORD_FILE are both set"):
        load_settings()
