"""Whether the servers answer that the system runs on: the metric `btc_server_up`, which a thread of the API sets.

The API has the addresses of all servers, and it judges the alerts. Each check is small and writes nothing: `btc doctor` tries what
the processes do. What does not belong here: Dagster, whose daemon has a metric of its own (`system_gauges`).
"""

from __future__ import annotations

import logging
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from btc_core.errors import BtcError, ServiceError
from btc_core.metrics import SERVER_UP
from btc_core.names import EVENTS_TOPIC
from btc_core.stores import origin, redis_connection
from btc_core.stores.kafka_connection import connection, explain
from btc_core.stores.questdb import QuestDB
from btc_core.stores.s3 import ObjectStore
from btc_core.stores.shared_http import shared_client
from serving.metrics import START_S
from serving.worker_metrics import addresses_by_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.clock import Clock
    from btc_core.settings import Settings

PERIOD_S = 15.0
TIMEOUT_S = 5.0
SSL_REQUEST = struct.pack("!ii", 8, 80_877_103)
"""The message that asks PostgreSQL for encryption. It answers with one byte before anybody has to prove who they are."""

_logger = logging.getLogger("serving")


class ServerWatch:
    """Asks each server again and again, and keeps the connections that are expensive to make."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._since_s = clock.monotonic_s()
        self._problems: dict[str, str] = {}
        """What was wrong with each server at the last look; it has an entry once its value is known."""
        self._db = QuestDB(settings.questdb, TIMEOUT_S)
        self._checks: dict[str, Callable[[], object]] = {
            "questdb": lambda: self._db.execute("SELECT 1"),
            "kafka": self._ask_kafka,
            "valkey": self._ask_redis,
            "postgres": self._ask_postgres,
            "store": lambda: self._store.modified_ns(origin.OBJECT_KEY),
            "mlflow": self._ask_mlflow,
            **{
                name: partial(_connect, address)
                for name, address in addresses_by_name(settings.metrics.servers).items()
            },
        }
        self._pool = ThreadPoolExecutor(len(self._checks), "servers")

    @cached_property
    def _store(self) -> ObjectStore:
        return ObjectStore(self._settings.store, connect_timeout_s=TIMEOUT_S, read_timeout_s=TIMEOUT_S)

    @cached_property
    def _kafka(self) -> AdminClient:
        return AdminClient({**connection(self._settings.kafka, "api"), "log_level": 0})

    @property
    def names(self) -> tuple[str, ...]:
        """The servers that are asked."""
        return tuple(self._checks)

    def problem_of(self, name: str) -> str:
        """Why a server cannot be used now; empty if it can."""
        return _problem(self._checks[name])

    def problems(self) -> dict[str, str | None]:
        """Why each server cannot be used: "" if it can, None if it has not answered yet."""
        return {name: self._problems.get(name) for name in self._checks}

    def start(self) -> None:
        """Look from a thread that ends with the process."""
        threading.Thread(target=self._run, name="servers", daemon=True).start()

    def look(self) -> None:
        """Ask every server once, all at the same time."""
        is_start = self._clock.monotonic_s() - self._since_s < START_S
        for name, problem in zip(self._checks, self._pool.map(_problem, self._checks.values()), strict=True):
            if problem and is_start and name not in self._problems:
                continue  # it may start later than the API
            if bool(problem) != bool(self._problems.get(name)):
                _logger.warning("the server %s %s", name, f"does not answer: {problem}" if problem else "answers again")
            self._problems[name] = problem
            SERVER_UP.labels(name).set(not problem)

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            self.look()
            pause.wait(PERIOD_S)

    def _ask_kafka(self) -> None:
        try:
            self._kafka.list_topics(EVENTS_TOPIC, timeout=TIMEOUT_S)
        except KafkaException as error:
            raise ServiceError(explain(self._settings.kafka, error.args[0])) from error

    def _ask_redis(self) -> None:
        with redis_connection.connect(self._settings.redis, TIMEOUT_S) as client, redis_connection.explained(client):
            client.ping()

    def _ask_postgres(self) -> None:
        place = self._settings.postgres.host, self._settings.postgres.port
        with socket.create_connection(place, TIMEOUT_S) as asked:
            asked.sendall(SSL_REQUEST)
            if asked.recv(1) not in {b"S", b"N"}:
                raise ServiceError(f"what listens at {place[0]}:{place[1]} is not PostgreSQL")

    def _ask_mlflow(self) -> None:
        shared_client().get(f"{self._settings.mlflow.url}/health", timeout=TIMEOUT_S).raise_for_status()


def _connect(address: str) -> None:
    """Connect to `HOST:PORT` or to the path of a socket; raises `OSError`."""
    host, _, port = address.rpartition(":")
    if host:
        socket.create_connection((host, int(port)), TIMEOUT_S).close()
        return
    with socket.socket(socket.AF_UNIX) as asked:
        asked.settimeout(TIMEOUT_S)
        asked.connect(address)


def _problem(check: Callable[[], object]) -> str:
    """Why a server cannot be used; empty if it can."""
    try:
        check()
    except BtcError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - each client has a tree of errors of its own, and none may end the watch
        return f"{type(error).__name__}: {error}"
    return ""
