"""The settings of the servers that hold data: how clients reach each of them, and how they authenticate.

They are the same for the servers of the native stack, for containers and for managed services. What does not belong here:
clients of these servers (`btc_core.stores`).
"""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from btc_core.settings_section import Section

LOOPBACK_HTTP = frozenset({("http", "127.0.0.1"), ("http", "localhost")})
"""Scheme and host of addresses that need no encryption, because nothing leaves the machine."""

HOST_AND_PORT = re.compile(r"[^\s:,]+:\d+|\[[0-9a-fA-F:]+\]:\d+")


def _require_files(section: str, **paths: str) -> None:
    """Refuse a file that this process cannot read; an empty path names none."""
    for name, path in paths.items():
        try:
            if path:
                Path(path).open("rb").close()
        except OSError as error:
            msg = f"BTC_{section}_{name.upper()} names {path}, which cannot be read: {error.strerror}"
            raise ValueError(msg) from None


def _require_authority(section: str, ca_file: str) -> None:
    """Refuse a file without certificates, because each client would report it later and in its own words."""
    _require_files(section, ca_file=ca_file)
    try:
        if ca_file:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(ca_file)
    except ssl.SSLError as error:
        msg = f"BTC_{section}_CA_FILE names {ca_file}, which holds no certificates in PEM form: {error}"
        raise ValueError(msg) from None


def require_pair(section: str, cert_file: str, key_file: str, key_password: str = "") -> None:
    """Refuse a certificate without its key, a key without its certificate, and two that do not fit."""
    if bool(cert_file) != bool(key_file):
        msg = f"BTC_{section}_CERT_FILE and BTC_{section}_KEY_FILE belong together, and only one of them is set"
        raise ValueError(msg)
    _require_files(section, cert_file=cert_file, key_file=key_file)
    try:
        if cert_file:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert_file, key_file, key_password)
    except (ssl.SSLError, ValueError) as error:
        msg = f"the certificate {cert_file} (BTC_{section}_CERT_FILE) and the key {key_file} (BTC_{section}_KEY_FILE) cannot be used: {error}"
        raise ValueError(msg) from None


def _refuse_secret_in(variable: str, url: str, instead: str) -> None:
    """Refuse a password in an address, because addresses are shown in logs and error messages."""
    if urlsplit(url).password is not None:
        msg = f"{variable} contains a password, and addresses are logged: write it to {instead} instead"
        raise ValueError(msg)


class KafkaSettings(Section):
    """The Kafka log."""

    bootstrap: str = "127.0.0.1:9092"
    """Host and port of a broker, or of several, separated by commas."""
    security: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = "plaintext"
    """How clients connect: `ssl` encrypts, and `sasl_…` authenticates with user and password. `sasl_plaintext` sends the data
    unencrypted, and with the mechanism PLAIN the password too."""
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = "SCRAM-SHA-512"
    """How the user and the password are checked when `security` is `sasl_…`. With `OAUTHBEARER`, they get a token from
    `token_url`, and the brokers check the token."""
    user: str = ""
    """User for `sasl_…`; some services call it the API key. With `OAUTHBEARER`: the client id."""
    password: SecretStr = SecretStr("")
    """Password of that user; some services call it the API secret. With `OAUTHBEARER`: the client secret."""
    token_url: str = ""
    """Token endpoint of an OpenID Connect provider, for `OAUTHBEARER`: `https://…`, or `http://…` on this machine. Clients get
    their tokens there by the grant of client credentials, and renew them."""
    token_scope: str = ""
    """Scope of the tokens that clients ask for, if the provider needs one."""
    token_extensions: str = ""
    """Extensions that clients send with a token, such as `logicalCluster=lkc-1,identityPoolId=pool-1` for Confluent Cloud."""
    token_ca_file: str = ""
    """PEM file with the certificates of the authority that signed the certificate of the token endpoint. Empty: those of the
    system."""
    ca_file: str = ""
    """PEM file with the certificates of the authority that signed the brokers' certificates. Empty: those of the system."""
    cert_file: str = ""
    """PEM file with the client certificate, for brokers that ask for one."""
    key_file: str = ""
    """PEM file with the key of the client certificate."""
    key_password: SecretStr = SecretStr("")
    """Password of an encrypted key file."""
    partitions: int = Field(4, ge=1)
    """Number of partitions of every topic. A symbol uses one, so more only help with more symbols. Raising it later would
    move symbols to other partitions."""
    replication: int = Field(1, ge=1)
    """Copies of each partition on different brokers, for topics that are created. Most managed services require 3."""
    min_insync: int = Field(1, ge=1)
    """Copies that must have a message before the broker acknowledges it. With 3 copies, 2 survive the loss of a broker and let
    writes continue meanwhile."""
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "lz4"
    """How producers compress batches."""
    rack: str = ""
    """Rack or availability zone of this process. Consumers then read from a copy in the same rack, if the brokers
    are set up for that."""
    retention_hours: int = Field(168, ge=26)
    """How long the log keeps messages. It must exceed the warm-up of the features, which is 24 h 30 min."""
    retention_bytes: int = Field(0, ge=0)
    """Most bytes that one partition of a topic keeps, beside `retention_hours`. Above this size, Kafka deletes the oldest
    messages. 0: the native stack derives the size from the free space at each `btc up`, so that the log
    grows by at most half of it; in containers, there is no limit."""

    @property
    def encrypted(self) -> bool:
        """Whether connections use TLS."""
        return self.security.endswith("ssl")

    @property
    def authenticated(self) -> bool:
        """Whether clients send a user and a password."""
        return self.security.startswith("sasl_")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Refuse settings if one of them would be silently ignored, and those that no broker accepts."""
        named_user = bool(self.user), bool(self.password.get_secret_value())
        if self.authenticated and named_user != (True, True):
            msg = f"BTC_KAFKA_SECURITY={self.security} needs BTC_KAFKA_USER and BTC_KAFKA_PASSWORD"
            raise ValueError(msg)
        if not self.authenticated and any(named_user):
            msg = (
                f"BTC_KAFKA_USER or BTC_KAFKA_PASSWORD is set, and BTC_KAFKA_SECURITY={self.security} sends neither: "
                "set it to sasl_ssl or sasl_plaintext"
            )
            raise ValueError(msg)
        if not self.encrypted and (self.ca_file or self.cert_file or self.key_file):
            msg = (
                f"BTC_KAFKA_CA_FILE, _CERT_FILE or _KEY_FILE is set, and BTC_KAFKA_SECURITY={self.security} does not "
                "encrypt: set it to ssl or sasl_ssl"
            )
            raise ValueError(msg)
        if self.min_insync > self.replication:
            msg = (
                f"BTC_KAFKA_MIN_INSYNC={self.min_insync} is more than BTC_KAFKA_REPLICATION={self.replication}, so that "
                "the brokers would refuse every message"
            )
            raise ValueError(msg)
        require_pair("KAFKA", self.cert_file, self.key_file, self.key_password.get_secret_value())
        _require_authority("KAFKA", self.ca_file)
        return self

    @model_validator(mode="after")
    def _has_token_endpoint(self) -> Self:
        """Refuse OAUTHBEARER without a token endpoint that protects the secret, and settings of tokens without OAUTHBEARER."""
        if not (self.authenticated and self.mechanism == "OAUTHBEARER"):
            if self.token_url or self.token_scope or self.token_extensions or self.token_ca_file:
                msg = (
                    "BTC_KAFKA_TOKEN_URL, _TOKEN_SCOPE, _TOKEN_EXTENSIONS or _TOKEN_CA_FILE is set, and no token is used: set "
                    "BTC_KAFKA_SECURITY to sasl_ssl and BTC_KAFKA_MECHANISM to OAUTHBEARER"
                )
                raise ValueError(msg)
            return self
        _refuse_secret_in("BTC_KAFKA_TOKEN_URL", self.token_url, "BTC_KAFKA_PASSWORD")
        address = urlsplit(self.token_url)
        if address.scheme != "https" and (address.scheme, address.hostname) not in LOOPBACK_HTTP:
            msg = (
                f"BTC_KAFKA_MECHANISM=OAUTHBEARER needs BTC_KAFKA_TOKEN_URL, which is {self.token_url!r}: it must begin with "
                "https://, because the client secret is sent there"
            )
            raise ValueError(msg)
        if self.token_ca_file and address.scheme == "http":
            msg = (
                "BTC_KAFKA_TOKEN_CA_FILE is set, and BTC_KAFKA_TOKEN_URL does not encrypt: it must begin with https://"
            )
            raise ValueError(msg)
        _require_authority("KAFKA_TOKEN", self.token_ca_file)
        return self


class QuestdbSettings(Section):
    """The time-series database."""

    http_url: str = "http://127.0.0.1:9000"
    """Address of the HTTP endpoint, for queries and writes; `https://…` encrypts both."""
    ca_file: str = ""
    """PEM file with the certificates of the authority that signed the server's certificate. Empty: those of the system."""
    pg_port: int = 8812
    """Port of the PostgreSQL wire protocol."""
    user: str = "admin"
    """User of the HTTP endpoint and of the PostgreSQL protocol."""
    password: SecretStr = SecretStr("")
    """Password of that user."""
    token: SecretStr = SecretStr("")
    """Bearer token of the HTTP endpoint, which is sent in place of user and password."""
    reader_user: str = "reader"
    """User of the PostgreSQL protocol who may only read, for Grafana and for people."""
    reader_password: SecretStr = SecretStr("")
    """Password of that user. While it is empty, the native stack creates no such user."""
    ttl_bronze_days: int = Field(30, ge=2)
    """How long a day of the bronze tables stays in QuestDB. A day is only dropped once its copy has been verified."""
    ttl_silver_days: int = Field(30, ge=2)
    """How long a day of the silver tables stays in QuestDB."""
    ttl_gold_days: int = Field(365, ge=2)
    """How long a day of the gold tables stays in QuestDB."""
    ttl_bars_days: int = Field(3_650, ge=30)
    """How long a day of `minute_bars` stays in QuestDB. A year takes 70 MB; models need long training windows."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Refuse an address that no client can use, and a secret in it."""
        _refuse_secret_in("BTC_QUESTDB_HTTP_URL", self.http_url, "BTC_QUESTDB_PASSWORD")
        scheme = urlsplit(self.http_url).scheme
        if scheme not in {"http", "https"}:
            msg = f"BTC_QUESTDB_HTTP_URL is {self.http_url}; it must begin with http:// or https://"
            raise ValueError(msg)
        if self.ca_file and scheme == "http":
            msg = "BTC_QUESTDB_CA_FILE is set, and BTC_QUESTDB_HTTP_URL does not encrypt: it must begin with https://"
            raise ValueError(msg)
        _require_authority("QUESTDB", self.ca_file)
        return self


class RedisSettings(Section):
    """The store of the newest features and forecasts."""

    url: str = "redis://127.0.0.1:6379/0"
    """Address of the server. `rediss://…` encrypts; `unix:///path/to/socket?db=0` is a little faster on the same machine."""
    sentinels: str = ""
    """Hosts and ports of Redis Sentinels, separated by commas. The host in `url` is then the name of the master that they watch,
    as in `redis://mymaster/0`, and clients follow it when it changes. Empty: there are none."""
    sentinel_password: SecretStr = SecretStr("")
    """Password of the Sentinels, if they have one."""
    user: str = ""
    """User of the server's access control list (ACL). Empty: the default user."""
    password: SecretStr = SecretStr("")
    """Password of the server, or of that user."""
    ca_file: str = ""
    """PEM file with the certificates of the authority that signed the server's certificate. Empty: those of the system."""
    cert_file: str = ""
    """PEM file with the client certificate, for a server that asks for one."""
    key_file: str = ""
    """PEM file with the key of the client certificate."""
    ttl_s: int = Field(300, ge=1)
    """How long a row stays when no newer one replaces it."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Refuse settings if one of them would be silently ignored, and a secret in the address."""
        _refuse_secret_in("BTC_REDIS_URL", self.url, "BTC_REDIS_PASSWORD")
        if self.user and not self.password.get_secret_value():
            msg = "BTC_REDIS_USER is set without BTC_REDIS_PASSWORD"
            raise ValueError(msg)
        if (self.ca_file or self.cert_file or self.key_file) and not self.url.startswith("rediss://"):
            msg = "BTC_REDIS_CA_FILE, _CERT_FILE or _KEY_FILE is set, and BTC_REDIS_URL does not encrypt: it must begin with rediss://"
            raise ValueError(msg)
        require_pair("REDIS", self.cert_file, self.key_file)
        _require_authority("REDIS", self.ca_file)
        return self

    @property
    def sentinel_addresses(self) -> list[tuple[str, int]]:
        """Host and port of each Sentinel."""
        parts = [each.strip().rpartition(":") for each in self.sentinels.split(",") if each.strip()]
        return [(host.strip("[]"), int(port)) for host, _, port in parts]

    @model_validator(mode="after")
    def _sentinels_are_usable(self) -> Self:
        """Refuse Sentinels without a port, and an address that names no master."""
        if self.sentinel_password.get_secret_value() and not self.sentinels:
            msg = "BTC_REDIS_SENTINEL_PASSWORD is set without BTC_REDIS_SENTINELS"
            raise ValueError(msg)
        if self.sentinels and not all(HOST_AND_PORT.fullmatch(each.strip()) for each in self.sentinels.split(",")):
            msg = f"BTC_REDIS_SENTINELS is {self.sentinels}; it must have a host and a port of each, as in a.example:26379,b.example:26379"
            raise ValueError(msg)
        address = urlsplit(self.url)
        if self.sentinels and (
            address.scheme not in {"redis", "rediss"} or not address.netloc or ":" in address.netloc
        ):
            msg = (
                f"BTC_REDIS_URL is {self.url}; with BTC_REDIS_SENTINELS it must hold the name of the master in place of a host "
                "and a port, as in redis://mymaster/0"
            )
            raise ValueError(msg)
        return self


class PostgresSettings(Section):
    """The database of Dagster's and MLflow's metadata."""

    host: str = "127.0.0.1"
    """Host of the server."""
    port: int = 5432
    """Port of the server."""
    user: str = "btc"
    """User of both databases."""
    password: SecretStr = SecretStr("")
    """Password of that user."""
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    """Whether connections are encrypted, in PostgreSQL's own words: `prefer` when the server offers it, `require` always,
    and `verify-full` also checks the server's certificate and name."""
    ca_file: str = ""
    """PEM file with the certificates of the authority that signed the server's certificate, for `verify-ca` and `verify-full`."""
    dagster_db: str = "dagster"
    """Name of Dagster's database."""
    mlflow_db: str = "mlflow"
    """Name of MLflow's database."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Refuse a check of the certificate without an authority, and an authority that would be ignored."""
        checks = self.sslmode.startswith("verify-")
        if checks and not self.ca_file:
            msg = f"BTC_POSTGRES_SSLMODE={self.sslmode} needs BTC_POSTGRES_CA_FILE; `system` uses the authorities of the machine"
            raise ValueError(msg)
        if self.ca_file and not checks:
            msg = f"BTC_POSTGRES_CA_FILE is set, and BTC_POSTGRES_SSLMODE={self.sslmode} checks no certificate: set it to verify-full"
            raise ValueError(msg)
        _require_authority("POSTGRES", "" if self.ca_file == "system" else self.ca_file)
        return self

    @property
    def tls_environment(self) -> dict[str, str]:
        """The encryption as variables of PostgreSQL's library, for programs that connect by themselves."""
        if self.sslmode == "prefer":  # the library's own default
            return {}
        values = {"PGSSLMODE": self.sslmode, "PGSSLROOTCERT": self.ca_file}
        return {name: value for name, value in values.items() if value}


class StoreSettings(Section):
    """The S3-compatible object store."""

    prefix: ClassVar[str] = "BTC_STORE"
    """How the names of the variables begin, for messages."""
    endpoint_url: str = "http://127.0.0.1:9010"
    """Address of the store. Empty: Amazon S3 in `region`."""
    region: str = "us-east-1"
    """Region, which signatures need; stores other than Amazon's accept any."""
    addressing: Literal["path", "virtual"] = "path"
    """Where the bucket is in an address: in the path, or in the name of the host (`virtual`), which Amazon's new buckets need."""
    access_key: str = "btc"
    """Access key id. Empty, together with `secret_key`: the usual places of AWS are searched for credentials, such as `profile`,
    a role of the machine or of the pod."""
    secret_key: SecretStr = SecretStr("")
    """Secret access key."""
    profile: str = ""
    """Profile in the files of AWS (`~/.aws/config`), used if `access_key` is empty."""
    ca_file: str = ""
    """PEM file with the certificates of the authority that signed the server's certificate. Empty: those of the system."""
    encryption: Literal["", "AES256", "aws:kms"] = ""
    """Encryption that clients request for each object: with the key of the store (`AES256`) or with a key of KMS. Empty: the
    default of the bucket."""
    kms_key: str = ""
    """Id of the key for `aws:kms`. Empty: the account's default key."""
    mlflow_bucket: str = "mlflow"
    """Bucket of MLflow's artifacts, such as model bundles."""
    lake_bucket: str = "data-lake"
    """Bucket of the copies of tables."""

    @property
    def place(self) -> str:
        """The address, as messages show it."""
        return self.endpoint_url or f"Amazon S3 in {self.region}"

    @property
    def authority(self) -> str | bool | None:
        """What a client verifies the server's certificate with, as boto3 takes it; None leaves it to AWS_CA_BUNDLE."""
        return self.ca_file or None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Refuse settings if one of them would be silently ignored, and a secret in the address."""
        name = self.prefix
        _refuse_secret_in(f"{name}_ENDPOINT_URL", self.endpoint_url, f"{name}_SECRET_KEY")
        if self.profile and self.access_key:
            msg = (
                f"{name}_PROFILE is {self.profile}, and {name}_ACCESS_KEY={self.access_key} would be used in its "
                f"place: set {name}_ACCESS_KEY to nothing"
            )
            raise ValueError(msg)
        if self.kms_key and self.encryption != "aws:kms":
            msg = f"{name}_KMS_KEY is set, and {name}_ENCRYPTION is not aws:kms"
            raise ValueError(msg)
        if self.ca_file and self.endpoint_url.startswith("http://"):
            msg = f"{name}_CA_FILE is set, and {name}_ENDPOINT_URL does not encrypt: it must begin with https://"
            raise ValueError(msg)
        _require_authority(name.removeprefix("BTC_"), self.ca_file)
        return self


class OffsiteSettings(StoreSettings):
    """The object store of `btc backup --to s3://BUCKET`, which holds a copy outside of the system."""

    prefix: ClassVar[str] = "BTC_OFFSITE"
    endpoint_url: str = ""
    """Address of the store. Empty: Amazon S3 in `region`."""
    access_key: str = ""
    """Access key id. Empty, together with `secret_key`: the usual places of AWS are searched for credentials."""

    @property
    def authority(self) -> str | bool | None:
        """As in the object store, but AWS_CA_BUNDLE does not count: it names the authority of the system's own store."""
        return self.ca_file or True
