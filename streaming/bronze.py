"""The bronze worker: reads the log and writes what the exchange sent to the bronze tables, unchanged.

It is the only worker that writes gap marks, and dead letters for messages of the log.
What does not belong here: what is in a row (`bronze_rows`), or features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from btc_core import metrics
from btc_core.clock import NS_PER_S, now_ns
from btc_core.features.state import WARM_UP_S
from btc_core.names import EVENTS_TOPIC, GAPS_TOPIC, WorkerName
from streaming.bronze_rows import BronzeReader, BronzeRows
from streaming.handler import WorkerSpec
from streaming.publisher import Publisher
from streaming.table_writer import TableWriter
from streaming.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.settings import Settings
    from streaming.handler import Record

GROUP = WorkerName.BRONZE
STATE_VERSION = "1"
"""Version of the saved state. Raise it when the fields of `SavedSequence` or their meaning change."""


class BronzeHandler:
    """Writes the rows that `BronzeReader` makes, and publishes its dead letters and gap notices."""

    def __init__(self, settings: Settings) -> None:
        self._publisher = Publisher(settings.kafka, GROUP)
        self._tables = TableWriter(settings.questdb, self._publisher)
        self._reader = BronzeReader()
        self._kept_messages = 0
        self._chunk_rows = settings.stream.batch_rows

    def reset(self) -> None:
        """Forget which trades have been seen, and rows not yet drained: their messages come again."""
        self._reader.remove_gauges()
        self._reader, self._kept_messages = BronzeReader(), 0

    def warm(self, messages: list[Record]) -> None:
        """Rebuild which trades have been seen."""
        for message in messages:
            self._reader.warm(message)

    def save(self, partition: int) -> bytes:
        """Which trades of the partition have been seen."""
        return self._reader.save(partition)

    def load(self, state: bytes) -> None:
        """Restore which trades have been seen."""
        self._reader.load(state)

    def handle(self, messages: list[Record]) -> int:
        """Read messages into rows; publish dead letters and gap notices at once. Returns the messages kept by now."""
        reader = self._reader
        for message in messages:
            reader.read(message)
        for refused in reader.refused:
            self._publisher.dead_letter(refused.reason, refused.message, refused.raw, refused.place)
        for notice in reader.notices:
            self._publisher.publish(GAPS_TOPIC, notice.symbol, msgspec.json.encode(notice), notice.seen_ns)
        reader.refused.clear()
        reader.notices.clear()
        self._kept_messages += len(messages)
        return self._kept_messages

    def drain(self) -> Callable[[], None]:
        """The kept rows as a write; it also waits until Kafka has acknowledged the dead letters and gap notices."""
        rows, self._reader.rows, self._kept_messages = self._reader.rows, BronzeRows(), 0
        chunks = list(rows.tables(self._chunk_rows))

        def write() -> None:
            while chunks:
                table, chunk, oldest_ns = chunks[0]
                self._tables.write(table, chunk)
                chunks.pop(0)
                metrics.STAGE_LATENCY.labels("bronze").observe((now_ns() - oldest_ns) / NS_PER_S)
            self._publisher.flush()

        return write


def build(settings: Settings) -> Worker:
    """The worker, ready to run. Its warm-up is as long as that of the features, so both know the same trades."""
    spec = WorkerSpec(GROUP, EVENTS_TOPIC, WARM_UP_S, STATE_VERSION, eager=False)
    return Worker(settings, spec, BronzeHandler(settings))


def run(settings: Settings) -> None:
    """Run the worker until SIGTERM."""
    build(settings).run_as_process()
