"""External servers, such as managed services. The stack waits for them, but neither starts nor stops them.

What does not belong here: which servers are external (`stack.server_addresses`), and the checks (`stack.service_checks`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stack import prepare, service_checks
from stack.component import Component
from stack.server_addresses import VARIABLES

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.settings import Settings

WAIT_S = 60.0
"""How long `btc up` waits for the answer of an external server."""


@dataclass(frozen=True)
class _Server:
    """What the stack does with one of the five servers when it is external."""

    title: str
    address: Callable[[Settings], str]
    """The address as people see it."""
    answers: Callable[[Settings], None]
    """Raises when the server does not answer, or refuses the user."""
    problem: Callable[[Settings], str]
    """Why the processes cannot work with the server; "" when they can."""
    prepare: Callable[[Settings], None]
    """Creates what the processes need in it."""


def _create_nothing(_settings: Settings) -> None:
    pass


SERVERS = {
    "questdb": _Server(
        title="external QuestDB, time-series database",
        address=lambda settings: settings.questdb.http_url,
        answers=service_checks.questdb_answers,
        problem=service_checks.questdb_problem,
        prepare=prepare.tables,
    ),
    "kafka": _Server(
        title="external Kafka, the log",
        address=lambda settings: settings.kafka.bootstrap,
        answers=service_checks.kafka_answers,
        problem=service_checks.kafka_problem,
        prepare=prepare.topics,
    ),
    "valkey": _Server(
        title="external Redis, newest features and forecasts",
        address=lambda settings: settings.redis.url,
        answers=service_checks.redis_answers,
        problem=service_checks.redis_problem,
        prepare=_create_nothing,
    ),
    "postgres": _Server(
        title="external PostgreSQL, metadata of Dagster and MLflow",
        address=lambda settings: f"{settings.postgres.host}:{settings.postgres.port}",
        answers=service_checks.postgres_answers,
        problem=service_checks.postgres_problem,
        prepare=prepare.databases,
    ),
    "store": _Server(
        title="external S3 object store",
        address=lambda settings: settings.store.place,
        answers=service_checks.store_answers,
        problem=service_checks.store_problem,
        prepare=prepare.buckets,
    ),
}
"""By the name of the component."""


def given_component(settings: Settings, name: str) -> Component:
    """The component that stands for an external server."""
    server = SERVERS[name]
    return Component(
        name=name,
        title=server.title,
        command=(),
        given_by=VARIABLES[name][0],
        url=server.address(settings),
        check=lambda: server.answers(settings),
        work_check=lambda: service_checks.require(server.problem(settings)),
        when_healthy=lambda: server.prepare(settings),
        after_forecasts=name == "postgres",
        start_timeout_s=WAIT_S,
    )
