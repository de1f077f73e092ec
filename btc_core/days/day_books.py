"""The events of order books around a day, from the log or from the archives of the days.

Bronze has no order books: a row for each of their frames would take more room than all quotes and trades. The proof of a
day therefore reads the frames themselves, with the reader that the stream uses.
What does not belong here: what the events do to features (`features.depth`), or comparing rows (`silver_proof`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from btc_core.clock import NS_PER_DAY, NS_PER_S
from btc_core.days.archive_proof import rows_from_log
from btc_core.days.day_replay import LOGGED, MARGIN_NS
from btc_core.days.log_archive import messages_between, read_manifest
from btc_core.errors import BadFrame
from btc_core.exchanges.decoding import frame_of
from btc_core.features.book_reader import BookReader
from btc_core.features.depth import BOOK_MEMORY_S
from btc_core.market.frames import BookFrame
from btc_core.stores.kafka import kept_since, read_all
from btc_core.utc_day import day_ns, day_of, days_between

if TYPE_CHECKING:
    from collections.abc import Iterable

    from btc_core.features.state import PackedEvent
    from btc_core.market.messages import Envelope
    from btc_core.service_settings import KafkaSettings
    from btc_core.stores.questdb import QuestDB
    from btc_core.stores.s3 import ObjectStore

NO_BOOKS = np.zeros(0, LOGGED)
_PIECE = 100_000
"""Events that are collected before they become an array: a list takes five times as much memory."""


def books_around(db: QuestDB, kafka: KafkaSettings, store: ObjectStore, day: str) -> dict[str, np.ndarray] | None:
    """The events of all order books that can influence the rows of a day, dtype `LOGGED`, by symbol.

    Returns None if neither the log nor the archives hold all messages of that time.
    """
    begin_ns = day_ns(day) - BOOK_MEMORY_S * NS_PER_S - MARGIN_NS
    end_ns = day_ns(day) + NS_PER_DAY + MARGIN_NS
    if kept_since(kafka, begin_ns):
        return book_events(read_all(kafka, begin_ns, end_ns))
    for each in days_between(day_of(begin_ns), day_of(end_ns)):
        if read_manifest(store, each) is None and rows_from_log(db, each):
            return None
    return book_events(messages_between(store, begin_ns, end_ns))


def book_events(messages: Iterable[tuple[Envelope, int, int]]) -> dict[str, np.ndarray]:
    """The events of the order books in messages (envelope, partition, offset), in their order, by symbol."""
    collected: dict[str, _Collected] = {}
    for envelope, partition, offset in messages:
        if envelope.channel != "book":
            continue
        try:
            frame = frame_of(envelope)
        except BadFrame:  # the stream refused it, too
            continue
        if not isinstance(frame, BookFrame):
            continue
        for data in frame.data:
            book = collected.setdefault(data.symbol, _Collected())
            try:
                events = book.reader.read(data, frame.type, envelope)
            except BadFrame:
                events = book.reader.lose()
            book.add(events, envelope.ts_recv_ns, partition, offset)
    return {symbol: book.events() for symbol, book in collected.items()}


class _Collected:
    """The reader and the events of one book."""

    def __init__(self) -> None:
        self.reader = BookReader()
        self._rows: list[tuple[float, ...]] = []
        self._parts: list[np.ndarray] = []

    def add(self, events: Iterable[PackedEvent], recv_ns: int, partition: int, offset: int) -> None:
        self._rows.extend((*event, recv_ns, partition, offset, 0, 0, False) for event in events)
        if len(self._rows) >= _PIECE:
            self._close_part()

    def events(self) -> np.ndarray:
        self._close_part()
        return np.concatenate([NO_BOOKS, *self._parts])

    def _close_part(self) -> None:
        self._parts.append(np.array(self._rows, LOGGED))
        self._rows = []
