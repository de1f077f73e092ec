"""The bronze worker: the log in, what the exchange sent out to the bronze tables, as it was.

It alone writes dead letters for what it finds in the log, and gap marks.
What does not belong here: what is in a row (`bronze_rows`), or features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from btc_core import metrics
from btc_core.clock import NS_PER_S, now_ns
from btc_core.features.state import WARM_UP_S
from btc_core.names import EVENTS_TOPIC, GAPS_TOPIC, WorkerName
from btc_core.stores.questdb import QuestDB, append
from streaming.bronze_rows import BronzeReader, BronzeRows
from streaming.publish import Publisher
from streaming.worker import Role, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.settings import Settings
    from streaming.worker import Record

GROUP = WorkerName.BRONZE
STATE_VERSION = "1"
"""Of `SavedSequence`: raise it when what it holds or means changes."""


class BronzeHandler:
    """Turns messages into rows of the bronze tables."""

    def __init__(self, settings: Settings) -> None:
        self._db = QuestDB(settings.questdb)
        self._publisher = Publisher(settings.kafka, GROUP)
        self._reader = BronzeReader()
        self._kept = 0
        self._chunk_rows = settings.stream.batch_rows

    def reset(self) -> None:
        """Forget which trades have been seen, and rows that nobody has drained: their messages come again."""
        self._reader.remove_gauges()
        self._reader, self._kept = BronzeReader(), 0

    def warm(self, messages: list[Record]) -> None:
        """Rebuild which trades have been seen."""
        for message in messages:
            self._reader.warm(message)

    def save(self, partition: int) -> bytes:
        """Which trades have been seen."""
        return self._reader.save(partition)

    def load(self, state: bytes) -> None:
        """The same again."""
        self._reader.load(state)

    def handle(self, messages: list[Record]) -> int:
        """Read every message into rows; what cannot be used and what is missing is told at once."""
        reader = self._reader
        for message in messages:
            reader.read(message)
        for refused in reader.refused:
            self._publisher.dead_letter(refused.reason, refused.message, refused.raw, refused.place)
        for notice in reader.notices:
            self._publisher.publish(GAPS_TOPIC, notice.symbol, msgspec.json.encode(notice), notice.seen_ns)
        reader.refused.clear()
        reader.notices.clear()
        self._kept += len(messages)
        return self._kept

    def drain(self) -> Callable[[], None]:
        """Rows of every table to write; the dead letters and notices of the same messages are waited for."""
        kept, self._reader.rows, self._kept = self._reader.rows, BronzeRows(), 0
        chunks = list(kept.tables(self._chunk_rows))

        def write() -> None:
            while chunks:
                table, rows, oldest_ns = chunks[0]
                append(self._db, table, rows)
                chunks.pop(0)
                metrics.STAGE_LATENCY.labels("bronze").observe((now_ns() - oldest_ns) / NS_PER_S)
            self._publisher.flush()

        return write


def build(settings: Settings) -> Worker:
    """The worker, ready to run; it looks back as far as the features do, to know every trade they know."""
    return Worker(settings, Role(GROUP, EVENTS_TOPIC, WARM_UP_S, STATE_VERSION, eager=False), BronzeHandler(settings))
