"""Forecasts that were already published for rows that a worker handles again after a restart.

A forecast that was served is kept: a later forecast of the same row would overwrite it in the tables, because their keys
are the place of the row in the log, and it would be judged although nobody saw it in time.
What does not belong here: making forecasts (`forecaster`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from btc_core.clock import NS_PER_S
from btc_core.market.messages import ForecastRow, RowId
from btc_core.names import PREDICTIONS_TOPIC
from btc_core.stores.kafka import read_topic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from btc_core.clock import Clock
    from btc_core.service_settings import KafkaSettings

log = logging.getLogger(__name__)

CHUNK_NS = 120 * NS_PER_S
"""The least receive time that one read of the topic covers. A read takes about 0.1 s, and its forecasts stay in memory:
100 MB at 800 rows a second."""
MARGIN_NS = 10 * NS_PER_S
"""How far the receive times of neighbouring rows of a partition may be out of order, and two of our clocks apart."""

Place = tuple[str, int, int, int]
"""Market, and partition, offset and item in `market.events`."""


class _Partition(msgspec.Struct):
    """What has been read of one partition since it was assigned."""

    until_ns: int
    """The topic has been read up to this receive time."""
    end_ns: int
    """Later forecasts are our own."""
    found: dict[Place, tuple[int, bytes]] = {}
    """The receive time and the message of each forecast."""


class PublishedForecasts:
    """Looks up published forecasts by row; reads the topic only for rows from before the worker took the partition over.

    The topic has as many partitions as that of the features, so a symbol has the same number in both.
    """

    def __init__(self, kafka: KafkaSettings, clock: Clock) -> None:
        self._kafka = kafka
        self._clock = clock
        self._places = msgspec.msgpack.Decoder(RowId)
        self._forecasts = msgspec.msgpack.Decoder(ForecastRow)
        self._partitions: dict[int, _Partition] = {}

    def forget(self) -> None:
        """Read the topic again. The partitions were reassigned, so another worker may have published forecasts meanwhile."""
        self._partitions.clear()

    def load(self, number: int, rows: Sequence[RowId]) -> None:
        """Read what was published for the next rows of a partition; raises `ServiceError`."""
        received = [row.ts_recv_ns for row in rows]
        first_ns, last_ns = min(received) - MARGIN_NS, max(received) + MARGIN_NS
        part = self._partitions.get(number)
        if part is None:
            part = self._partitions[number] = _Partition(first_ns, self._clock.now_ns() + MARGIN_NS)
        part.found = {place: kept for place, kept in part.found.items() if kept[0] >= first_ns}
        begin_ns, end_ns = max(part.until_ns, first_ns), min(part.end_ns, max(part.until_ns + CHUNK_NS, last_ns))
        if part.until_ns >= min(part.end_ns, last_ns) or begin_ns >= end_ns:
            return
        for value, _partition, _offset in read_topic(self._kafka, PREDICTIONS_TOPIC, begin_ns, end_ns, (number,)):
            try:
                row = self._places.decode(value)
            except msgspec.DecodeError as error:
                log.warning("%s[%d]: a message is not a forecast: %s", PREDICTIONS_TOPIC, number, error)
                continue
            part.found.setdefault(place_of(row), (row.ts_recv_ns, value))
        part.until_ns = end_ns

    def get(self, number: int, row: RowId) -> ForecastRow | None:
        """Return the first forecast that was published of a row, if `load` found one."""
        kept = self._partitions[number].found.get(place_of(row))
        if kept is None:
            return None
        try:
            found = self._forecasts.decode(kept[1])
        except msgspec.DecodeError as error:  # an older version of the project wrote it
            log.warning("the published forecast of %s cannot be read and is made again: %s", row, error)
            return None
        return found.with_all_levels() if found.is_of_these_horizons else None


def place_of(row: RowId) -> Place:
    """The place of a row in the log."""
    return row.symbol, row.partition, row.offset, row.item
