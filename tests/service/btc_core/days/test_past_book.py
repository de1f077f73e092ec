"""The order book of a past moment, read from a log of its own: the times of other tests would not be in their order there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from btc_core.clock import now_ns
from btc_core.days.past_book import book_at
from btc_core.errors import InvalidInput, StoreError
from btc_core.stores.kafka import read_all
from btc_core.stores.kafka_topics import ensure_topics
from btc_core.stores.s3 import ObjectStore
from tests.book_frames import BookTape
from tests.service.workers import publish

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.settings import Settings
    from stack.runtime import Stack

SYMBOL = "BTC/USD"


@pytest.fixture(scope="module")
def settings(own_stack: Stack) -> Settings:
    own_stack.up(only=("kafka", "store"))
    ensure_topics(own_stack.settings)
    return own_stack.settings


@pytest.fixture
def store(settings: Settings) -> Iterator[ObjectStore]:
    with ObjectStore(settings.store) as opened:
        yield opened


def test_the_book_of_a_moment_is_that_of_the_exchange_or_an_error(settings: Settings, store: ObjectStore) -> None:
    tape = BookTape(5, SYMBOL)
    tape.now_ns = now_ns()
    tape.run(300)
    publish(settings, SYMBOL, tape.envelopes)
    partition = next(place for _, place, _ in read_all(settings.kafka))
    for index in list(tape.sides)[5::20]:
        received_ns = tape.envelopes[index].ts_recv_ns
        book = book_at(settings, store, SYMBOL, partition, received_ns)
        assert ([*book.bids], [*book.asks]) == tape.sides[index]
        assert book.received_ns == received_ns
    with pytest.raises(InvalidInput, match="no order book of OTHER/USD was known"):
        book_at(settings, store, "OTHER/USD", partition, tape.now_ns)


def test_a_store_that_does_not_answer_is_no_missing_book(
    settings: Settings, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StoreError("the object store does not answer")

    monkeypatch.setattr(store, "get", refuse)
    with pytest.raises(StoreError, match="does not answer"):
        book_at(settings, store, SYMBOL, 0, now_ns())
