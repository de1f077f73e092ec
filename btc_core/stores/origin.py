"""The marks that say whose data a store holds: simulated or live, of which home exchange, and from which address.

Each store has one mark. `stack.prepare` writes it at the first start, and every process compares the marks of its stores
with its settings before it reads or writes anything. A store that does not answer is checked again before the first write to it.
What does not belong here: the text of the mark (`ExchangeSettings.origin`), and models, each of which has its own mark (`btc_core.registry.bundles`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from btc_core.errors import ConfigError, ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from btc_core.settings import Settings
    from btc_core.stores.redis_connection import Client

LOG, TABLES, OBJECTS, NEWEST_ROWS = "log", "tables", "objects", "newest rows"
"""The stores: Kafka, QuestDB, both buckets of the object store, and Redis."""
TIMEOUT_S = 5.0
TOPIC_PREFIX = "origin-"
"""The log is marked by an empty topic whose name is the mark: creating it is atomic, and listing topics reads it."""
TABLE = "data_origin"
OBJECT_KEY = ".stack/origin"
REDIS_KEY = "origin"


@dataclass(frozen=True)
class Store:
    """One store and its mark."""

    place: str
    """What the store is and where, in the words of messages."""
    mark: str
    """Where the mark is, in the words of messages."""
    read: Callable[[], str]
    """Return the mark, or "" if there is none; raises `ServiceError` if the store does not answer."""
    write: Callable[[str], None]
    is_volatile: bool = False
    """Whether the store loses the mark with all its data when it restarts; a process that finds no mark then writes it."""


def claim(settings: Settings, *names: str) -> None:
    """Mark these stores as those of this stack; raises `ConfigError` if one has another mark, and `ServiceError`."""
    for store in _stores(settings, names):
        found = store.read()
        problem = _problem(settings, store, found)
        if problem:
            raise ConfigError(problem)
        if not found:
            store.write(settings.exchange.origin)


def check(settings: Settings, *names: str) -> list[str]:
    """Raise `ConfigError` if one of these stores holds other data; returns what could not be checked, and why.

    A store without a mark passes: it has not been prepared yet.
    """
    unchecked = []
    for store in _stores(settings, names):
        try:
            found = store.read()
            problem = _problem(settings, store, found)
            if store.is_volatile and not found:
                store.write(settings.exchange.origin)
        except ServiceError as error:
            unchecked.append(f"whose data the {store.place} holds could not be checked: {error}")
            continue
        if problem:
            raise ConfigError(problem)
    return unchecked


_checked: set[tuple[str, str]] = set()
"""The stores that this process has checked, with their addresses."""
_unchecked: dict[tuple[str, str], Settings] = {}
"""The stores that did not answer this process yet, with the settings that say whose data they may hold."""


def check_once(settings: Settings, *names: str) -> list[str]:
    """Check those of these stores that this process has not checked yet; raises and returns as `check`.

    A store that does not answer is checked again at the next call, by `check_again`, and before a write.
    """
    unchecked = []
    for name in names:
        store = name, _address(settings, name)
        if store in _checked:
            continue
        _unchecked[store] = settings
        problems = check(settings, name)
        if not problems:
            _checked.add(store)
            _unchecked.pop(store, None)  # another thread may have done it
        unchecked += problems
    return unchecked


def check_again() -> bool:
    """Check the stores that did not answer yet; whether all have been checked. Raises as `check`."""
    return not [
        problem for (name, _place), settings in list(_unchecked.items()) for problem in check_once(settings, name)
    ]


def before_write(name: str, address: str, error: type[ServiceError] = ServiceError) -> None:
    """Check the store at an address that did not answer before; without such a store this costs nothing.

    Raises `ConfigError` if it holds other data, and `error` while it does not answer.
    """
    settings = _unchecked.get((name, address))
    if settings is not None and (problems := check_once(settings, name)):
        raise error(problems[0])


def _address(settings: Settings, name: str) -> str:
    addresses = {
        LOG: settings.kafka.bootstrap,
        TABLES: settings.questdb.http_url,
        OBJECTS: settings.store.place,
        NEWEST_ROWS: settings.redis.url,
    }
    return addresses[name]


def _problem(settings: Settings, store: Store, found: str) -> str:
    """Why the mark `found` is not that of these settings; empty if it is, or if there is none."""
    wanted = settings.exchange.origin
    if found in {"", wanted}:
        return ""
    return (
        f"the {store.place} holds the data of {found!r}, and the settings are those of {wanted!r} (BTC_EXCHANGE_MODE, "
        "BTC_EXCHANGE_NAME or the first of BTC_EXCHANGE_MARKETS, BTC_EXCHANGE_WS_URL). Such data must not mix: set these settings back, "
        "or start with another data directory (`btc up --data-dir`; in containers, another project name). "
        f"docs/how-to/live-exchange.md says more. The mark is {store.mark}"
    )


def _stores(settings: Settings, names: Iterable[str]) -> list[Store]:
    makers = {LOG: _log, TABLES: _tables, OBJECTS: _buckets, NEWEST_ROWS: _newest_rows}
    return [store for name in names for store in makers[name](settings)]


def _log(settings: Settings) -> list[Store]:
    from btc_core.stores.kafka_topics import create_empty_topic, topics_with_prefix  # noqa: PLC0415 - the API needs no Kafka client

    def read() -> str:
        found = topics_with_prefix(settings.kafka, TOPIC_PREFIX, TIMEOUT_S)
        own = settings.exchange.origin
        others = sorted(set(found) - {f"{TOPIC_PREFIX}{own}"})
        return others[0].removeprefix(TOPIC_PREFIX) if others else own if found else ""

    def write(origin: str) -> None:
        create_empty_topic(settings.kafka, f"{TOPIC_PREFIX}{origin}")

    where = settings.kafka.bootstrap
    return [Store(f"log at {where}", f"a Kafka topic whose name begins with {TOPIC_PREFIX}", read, write)]


def _tables(settings: Settings) -> list[Store]:
    from btc_core.stores.questdb import QuestDB  # noqa: PLC0415 - loads pyarrow, which ingest and repair do not need

    def read() -> str:
        with QuestDB(settings.questdb, TIMEOUT_S) as db:
            if not db.execute(f"SELECT 1 FROM tables() WHERE table_name = '{TABLE}'"):  # noqa: S608 - a constant
                return ""
            found = db.execute(f"SELECT DISTINCT origin FROM {TABLE}")  # noqa: S608 - a constant
            return " and ".join(sorted(origin for (origin,) in found))

    def write(origin: str) -> None:
        with QuestDB(settings.questdb, TIMEOUT_S) as db:
            # A table without a timestamp has no write-ahead log, so the row is readable at once.
            db.execute(f"CREATE TABLE IF NOT EXISTS {TABLE} (origin STRING)")
            db.execute(f"INSERT INTO {TABLE} VALUES ('{origin}')")  # noqa: S608 - the mark has no quotes

    return [Store(f"database at {settings.questdb.http_url}", f"the table {TABLE}", read, write)]


def _buckets(settings: Settings) -> list[Store]:
    from btc_core.stores.s3 import ObjectStore  # noqa: PLC0415 - no worker needs the object store at its start

    def read(bucket: str) -> str:
        with ObjectStore(settings.store, bucket, TIMEOUT_S, TIMEOUT_S) as store:
            return (store.get(OBJECT_KEY) or b"").decode()

    def write(bucket: str, origin: str) -> None:
        with ObjectStore(settings.store, bucket, TIMEOUT_S, TIMEOUT_S) as store:
            store.put(OBJECT_KEY, origin.encode())

    where = settings.store.place
    return [
        Store(f"bucket {bucket} at {where}", f"the object {OBJECT_KEY}", partial(read, bucket), partial(write, bucket))
        for bucket in (settings.store.lake_bucket, settings.store.mlflow_bucket)
    ]


def _newest_rows(settings: Settings) -> list[Store]:
    from btc_core.stores.redis_connection import connect, explained  # noqa: PLC0415 - ingest and repair need no Redis

    where = settings.redis.url

    def call(action: Callable[[Client], Any]) -> Any:
        with connect(settings.redis, TIMEOUT_S) as client, explained(client):
            return action(client)

    def read() -> str:
        return (call(lambda client: client.get(REDIS_KEY)) or b"").decode()

    def write(origin: str) -> None:
        call(lambda client: client.set(REDIS_KEY, origin))

    return [Store(f"Redis at {where}", f"the key {REDIS_KEY}", read, write, is_volatile=True)]
