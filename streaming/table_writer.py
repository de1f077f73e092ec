"""Writing rows to a table when QuestDB refuses single rows for good: the others are written, and these become dead letters.

What does not belong here: retries while QuestDB is unavailable (`worker`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from btc_core.errors import RowsRefused
from btc_core.names import EVENTS_TOPIC
from btc_core.stores.questdb import QuestDB, append

if TYPE_CHECKING:
    from btc_core.service_settings import QuestdbSettings
    from btc_core.tables.form import Table
    from streaming.publisher import Publisher

log = logging.getLogger(__name__)

MAX_REFUSED_ROWS = 100
"""Rows of one write that may become dead letters. If QuestDB refuses more, the table or the code is wrong and not the rows:
the write fails and is tried again."""
REASON = "refused_row"

Refused = tuple[pa.Table, str]
"""One row, and why QuestDB refused it."""


class TableWriter:
    """Writes to tables; the dead letters of refused rows go to `publisher`, which the caller flushes."""

    def __init__(self, settings: QuestdbSettings, publisher: Publisher) -> None:
        self._db = QuestDB(settings)
        self._publisher = publisher

    def write(self, table: Table, rows: pa.Table) -> None:
        """Write rows, and return when QuestDB has acknowledged all that it accepts; raises `ServiceError`."""
        refused: list[Refused] = []
        self._write(table, rows, refused)
        for row, reason in refused:
            values = _values(row)
            log.error("QuestDB refused a row of %s, which becomes a dead letter: %s", table.name, reason)
            self._publisher.dead_letter(REASON, reason, msgspec.json.encode(values), _place(values))

    def _write(self, table: Table, rows: pa.Table, refused: list[Refused]) -> None:
        """Write rows; when QuestDB refuses them, write each half in the same way, and add single rows to `refused`."""
        try:
            append(self._db, table, rows)
        except RowsRefused as error:
            if len(rows) > 1:
                middle = len(rows) // 2
                self._write(table, rows[:middle], refused)
                self._write(table, rows[middle:], refused)
                return
            if len(refused) == MAX_REFUSED_ROWS:
                raise
            refused.append((rows, str(error)))


def _values(row: pa.Table) -> dict[str, Any]:
    """The values of one row by column, times as text with nanoseconds."""
    for place, field in enumerate(row.schema):
        if pa.types.is_timestamp(field.type):
            row = row.set_column(place, field.name, row.column(place).cast(pa.string()))
    (values,) = row.to_pylist()
    return dict(values)


def _place(row: dict[str, Any]) -> tuple[str, int, int]:
    """The place of the row's message in the log, if the row has it."""
    if "kafka_offset" not in row:
        return "", -1, -1
    return EVENTS_TOPIC, row["kafka_partition"], row["kafka_offset"]
