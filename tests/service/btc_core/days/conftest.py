"""The servers that a day passes through, and a client of QuestDB."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from btc_core.stores.kafka_topics import ensure_topics
from btc_core.stores.questdb import QuestDB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from btc_core.settings import Settings


@pytest.fixture(scope="module")
def stream(own_servers: Callable[..., Settings]) -> Settings:
    settings = own_servers("questdb", "kafka", "valkey", "store")
    ensure_topics(settings)
    return settings


@pytest.fixture
def db(stream: Settings) -> Iterator[QuestDB]:
    with QuestDB(stream.questdb) as client:
        yield client
