"""Whose each of the five servers is, by its address: the stack's own, or one that the user gives, such as a managed service.

A server is the stack's own while its address is 127.0.0.1, as a new `stack.env` has it. Every other address is that of a given
server; one on this machine is named by `localhost`. What does not belong here: waiting for it (`stack.given_servers`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from btc_core.errors import StackError
from stack.ports import HOST

if TYPE_CHECKING:
    from btc_core.settings import Settings

VARIABLES = {
    "questdb": ("BTC_QUESTDB_HTTP_URL", "BTC_QUESTDB_PG_PORT"),
    "kafka": ("BTC_KAFKA_BOOTSTRAP",),
    "valkey": ("BTC_REDIS_URL",),
    "postgres": ("BTC_POSTGRES_HOST", "BTC_POSTGRES_PORT"),
    "store": ("BTC_STORE_ENDPOINT_URL",),
}
"""By the name of the component: the settings of its address, of which the first decides whose server it is."""
_CONNECTIONS = {
    "KAFKA": "SECURITY MECHANISM USER TOKEN_URL TOKEN_SCOPE TOKEN_EXTENSIONS TOKEN_CA_FILE CA_FILE CERT_FILE KEY_FILE "
    "REPLICATION MIN_INSYNC RACK",
    "QUESTDB": "USER CA_FILE",
    "REDIS": "USER SENTINELS CA_FILE CERT_FILE KEY_FILE",
    "POSTGRES": "USER SSLMODE CA_FILE",
    "STORE": "REGION ADDRESSING ACCESS_KEY PROFILE CA_FILE ENCRYPTION KMS_KEY",
}
_CONTENTS = {"POSTGRES": "DAGSTER_DB MLFLOW_DB", "STORE": "LAKE_BUCKET MLFLOW_BUCKET"}
CONNECTION_VARIABLES = frozenset(
    f"BTC_{section}_{name}" for section, names in _CONNECTIONS.items() for name in names.split()
).union(*VARIABLES.values())
"""The settings that say how the five servers are reached, without secrets. They belong to the servers, and not to their data."""
ENCRYPTED = frozenset({"https", "rediss"})


def given_servers(settings: Settings) -> list[str]:
    """The names of the external servers.

    Raises `StackError` for an address that asks for encryption on 127.0.0.1, where the stack's own servers have none.
    """
    addresses = {
        "questdb": settings.questdb.http_url,
        "kafka": settings.kafka.bootstrap,
        "valkey": settings.redis.url,
        "postgres": settings.postgres.host,
        "store": settings.store.endpoint_url,
    }
    return [name for name, address in addresses.items() if _is_given(VARIABLES[name][0], address)]


def given_variables(settings: Settings) -> set[str]:
    """The variables of external servers: how they are reached, and the names of databases and buckets in them."""
    given = given_servers(settings)
    names = {variable for name in given for variable in VARIABLES[name]}
    for name in given:
        section = VARIABLES[name][0].split("_")[1]
        names |= {f"BTC_{section}_{each}" for each in f"{_CONNECTIONS[section]} {_CONTENTS.get(section, '')}".split()}
    return names


def _is_given(variable: str, address: str) -> bool:
    scheme, host = _scheme_and_host(address)
    if host == HOST and scheme in ENCRYPTED:
        msg = (
            f"{variable} is {address}, and {HOST} is the address of the stack's own server, which does not encrypt: write "
            "localhost for an external server on this machine"
        )
        raise StackError(msg)
    return scheme != "unix" and host != HOST


def _scheme_and_host(address: str) -> tuple[str, str]:
    """The parts of a URL, or of a host with or without a port. Several hosts are never those of the stack.

    >>> _scheme_and_host("https://questdb.example"), _scheme_and_host("127.0.0.1:9092"), _scheme_and_host("a:1,b:1")
    (('https', 'questdb.example'), ('', '127.0.0.1'), ('', 'a:1,b:1'))
    """
    if "://" in address:
        parts = urlsplit(address)
        return parts.scheme, parts.hostname or ""
    return "", address if "," in address else address.partition(":")[0]
