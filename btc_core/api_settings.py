"""The settings of the HTTP API: where it listens, what it allows, and how it is reached through a proxy.

What does not belong here: what the API does with them (`serving`).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from btc_core.settings_section import Section

BASE_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")
"""A path as it may stand before every path of the API."""

ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:\d{1,5})?|https?://\[[0-9a-f:]+\](:\d{1,5})?")
"""An origin as browsers send it: in lower case, without a path."""

TOKEN_ENTRY = re.compile(r"([A-Za-z0-9._-]{1,64})=([A-Za-z0-9._~+/-]{16,}=*)")
"""A token with its name."""
TOKEN_VARIABLES = ("BTC_API_TOKEN", "BTC_API_ADMIN_TOKENS", "BTC_API_READ_TOKENS")
DEFAULT_TOKEN_NAME = "default"  # noqa: S105 - a name
"""The name of the token in `BTC_API_TOKEN`."""


@dataclass(frozen=True)
class NamedToken:
    """A token, whose it is, and what it is for."""

    name: str
    kind: Literal["read", "admin"]
    token: SecretStr


class ApiSettings(Section):
    """The HTTP API."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(5050, ge=1, le=65_535)
    """Port to listen on."""
    cert_file: str = ""
    """Certificate of the API with those of its authorities, as a PEM file. With it, the API speaks HTTPS on its port. Empty: HTTP."""
    key_file: str = ""
    """Key of the certificate, as a PEM file without a password. Both files are read again when they change, without a restart."""
    base_path: str = ""
    """Path under which a proxy serves the API, such as `/btc`, if the proxy passes it on. The API then answers with and without
    it. Empty: the API is at the root, or the proxy removes the path and sends it as `X-Forwarded-Prefix`."""
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    """Addresses and networks of proxies, separated by commas, such as `127.0.0.1,10.0.0.0/8`. Their `X-Forwarded-For`,
    `-Proto`, `-Host` and `-Prefix` say who asks for what; the same headers of anybody else are removed. Empty: nobody's count."""
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Origins whose pages may read the answers in a browser, separated by commas, such as `https://charts.example`. `*` lets pages
    of every origin read; only named origins may start admin actions. Empty: only the API's own pages."""
    token: SecretStr = SecretStr("")
    """An admin token with the name `default`, for `/retrain` and `/reload`. While there is no admin token, both answer 401. Tokens
    that change in the env file, or in a file that `BTC_API_TOKEN_FILE` and the like name, apply at once, without a restart."""
    admin_tokens: SecretStr = SecretStr("")
    """Further admin tokens as `NAME=TOKEN`, separated by commas, spaces or line breaks. A token has at least 16 characters. Its name
    is written to the audit log, and may be given twice while the token is replaced."""
    read_tokens: SecretStr = SecretStr("")
    """Tokens for reading, in the same form. If there is one, every path but `/healthz`, `/readyz` and `/metrics` needs a read token
    or an admin token. The process `alerts` uses the first one. Empty: everybody who reaches the API may read."""
    audit_log: str = ""
    """File to which admin actions and refused tokens are written, with mode 0600. The native stack sets it to `logs/audit.log` in its
    data directory. Empty: the log of the API."""
    audit_log_max_bytes: int = Field(10_000_000, ge=10_000)
    """Size from which a new file is begun. Ten old ones are kept."""
    threads: int = Field(4, ge=1)
    """Threads for requests that wait for QuestDB, MLflow or Dagster. Forecasts need none of them: the thread that reads
    requests answers them, or two further threads while Redis is slow."""
    max_body_bytes: int = Field(1_048_576, ge=1_024)
    """Largest body of a request; a larger one is answered with 413."""
    max_feature_age_s: float = Field(10.0, gt=0)
    """Largest age of the features behind a forecast; a request for an older forecast is answered with 503."""
    rate_limit_per_s: float = Field(0.0, ge=0)
    """Requests per second and client address, with bursts of as many at once; further ones are answered with 429. 0 sets no
    limit, which is appropriate on loopback."""
    max_streams: int = Field(500, ge=0)
    """Largest number of open `/v1/stream` connections. Each takes one of the open files that the system allows the process."""
    max_exports: int = Field(2, ge=1)
    """Largest number of `/v1/data` answers at the same time; further requests are answered with 503. Each takes a thread and
    about 250 MB of memory."""
    export_max_rows: int = Field(200_000_000, ge=1)
    """Most rows of one `/v1/data` answer; a request for more is answered with 422. The default is a year of feature rows of a
    market with six quotes and trades a second."""
    export_max_s: float = Field(3_600.0, gt=0)
    """Longest time that one `/v1/data` answer may take; a longer one is broken off."""
    stream_interval_ms: int = Field(250, ge=20)
    """Least time between two events of a stream. An event is 5 kB for each client."""

    @field_validator("trusted_proxies", "cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Split the text from the environment at its commas."""
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("base_path")
    @classmethod
    def _check_base_path(cls, value: str) -> str:
        """Remove a slash at the end, and refuse what is no path."""
        path = value.rstrip("/")
        if path and not BASE_PATH.fullmatch(path):
            msg = f"{value!r} must be a path such as /btc, of letters, digits and the characters . _ ~ - /"
            raise ValueError(msg)
        return path

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse what is no address, such as the name of a host."""
        for each in value:
            try:
                ipaddress.ip_network(each)
            except ValueError as error:
                msg = f"{each!r} must be an address such as 127.0.0.1, or a network such as 10.0.0.0/8 ({error})"
                raise ValueError(msg) from None
        return value

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse what no browser would send."""
        for each in value:
            if each != "*" and not ORIGIN.fullmatch(each):
                msg = f"{each!r} must be * or an origin such as https://charts.example or http://localhost:8080, without a path"
                raise ValueError(msg)
        return value

    @field_validator("admin_tokens", "read_tokens")
    @classmethod
    def _check_tokens(cls, value: SecretStr) -> SecretStr:
        """Refuse entries that are no named tokens, without repeating them."""
        for number, entry in enumerate(_entries(value), start=1):
            if not TOKEN_ENTRY.fullmatch(entry):
                msg = (
                    f"entry {number} must be NAME=TOKEN, such as grafana=… with the output of `openssl rand -hex 20`: a token has "
                    "at least 16 of the characters A-Z a-z 0-9 . _ ~ + / - and a name up to 64 of A-Z a-z 0-9 . _ -"
                )
                raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _tokens_differ(self) -> Self:
        """Refuse a token that is given twice, since it would be unclear whose it is and what it is for."""
        known: dict[str, NamedToken] = {}
        for each in self.named_tokens:
            other = known.setdefault(each.token.get_secret_value(), each)
            if other is not each:
                msg = (
                    f"{', '.join(TOKEN_VARIABLES)} have one token twice, as {other.name} ({other.kind}) and {each.name} ({each.kind}); "
                    "give each name a token of its own"
                )
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _certificate_has_key(self) -> Self:
        """Refuse one without the other. Whether they can serve is checked by the API and `btc doctor`: no worker needs them."""
        if bool(self.cert_file) != bool(self.key_file):
            msg = "BTC_API_CERT_FILE and BTC_API_KEY_FILE belong together, and only one of them is set"
            raise ValueError(msg)
        return self

    @property
    def url(self) -> str:
        """The address at which this machine reaches it. `btc_core.stores.api_connection` has the client for it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104 - it listens on all addresses
        return f"{'https' if self.cert_file else 'http'}://{host}:{self.port}"

    @property
    def named_tokens(self) -> tuple[NamedToken, ...]:
        """Every valid token."""
        found = [NamedToken(DEFAULT_TOKEN_NAME, "admin", self.token)] if self.token.get_secret_value() else []
        kinds: tuple[tuple[Literal["read", "admin"], SecretStr], ...] = (
            ("admin", self.admin_tokens),
            ("read", self.read_tokens),
        )
        for kind, value in kinds:
            for entry in _entries(value):
                name, _, token = entry.partition("=")
                found.append(NamedToken(name, kind, SecretStr(token)))
        return tuple(found)

    @property
    def reader_token(self) -> str:
        """The token with which our own processes read; empty if reading needs none."""
        return next((each.token.get_secret_value() for each in self.named_tokens if each.kind == "read"), "")


def _entries(value: SecretStr) -> list[str]:
    return value.get_secret_value().replace(",", " ").split()
