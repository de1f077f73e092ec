"""A forecast computed again from frames: the frames to feature rows, the minutes to columns, and both to the forecast.

Every step is the code of the stream. What does not belong here: comparing the result with what was served
(`forecast_check`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core.clock import NS_PER_MIN, NS_PER_S
from btc_core.days.day_replay import MARGIN_NS
from btc_core.days.forecast_hours import Place
from btc_core.days.forecast_inputs import StatesInForce, bars_of
from btc_core.days.merkle import GrowingRoot, leaf_hash
from btc_core.errors import StoreError
from btc_core.exchanges.recorded_lines import envelope_line
from btc_core.features.catalogue import FEATURE_VERSION
from btc_core.features.depth import BOOK_MEMORY_S
from btc_core.features.engine import FeatureEngine, FoldedEvent, columns_of
from btc_core.features.live_minutes import LiveMinutes
from btc_core.market.events import TRADE
from btc_core.models.row_forecasts import Models, forecasts_of
from btc_core.tables import rows as table_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pyarrow as pa

    from btc_core.days.forecast_roots import LogRange
    from btc_core.exchanges.recorded_lines import RecordedMessage
    from btc_core.market.messages import ForecastRow

EMITTED_NS = 900 * NS_PER_S
"""How long before the row of a forecast feature rows are computed, by receipt: the minute columns read those of two minutes,
and the time of an event may be ten minutes ahead of its receipt."""
BOOKS_NS = BOOK_MEMORY_S * NS_PER_S + MARGIN_NS
"""How long before the row of a forecast the frames of order books matter, by receipt."""
BATCH_MESSAGES = 10_000


class ReplayedRows(msgspec.Struct, frozen=True):
    """The feature rows of a market up to one place."""

    ids: list[FoldedEvent]
    values: Any
    """All features, (rows, features)."""

    def silver(self) -> pa.Table:
        """The last row as `silver_features` has it."""
        return table_rows.silver_features(columns_of(self.ids[-1:]), self.values[-1:])


class LogCheck:
    """Compares the messages that pass through with the roots of the log, for each range that is read from its begin."""

    def __init__(self, ranges: Iterable[LogRange]) -> None:
        self._ranges = sorted(ranges, key=lambda each: each.first)
        self._growing = [GrowingRoot() for _ in self._ranges]
        self._first = -1
        self._at = 0
        self.messages = 0
        """Messages in ranges that were read from their begin."""

    def passing(self, messages: Iterable[RecordedMessage]) -> Iterator[RecordedMessage]:
        """The messages, each of which is added to the root of its range."""
        for message in messages:
            if self._first < 0:
                self._first = message.offset
            while self._at < len(self._ranges) and message.offset >= self._ranges[self._at].end:
                self._at += 1
            if self._at < len(self._ranges) and message.offset >= self._ranges[self._at].first >= self._first:
                line = envelope_line(message.envelope, message.partition, message.offset)
                self._growing[self._at].add(leaf_hash(line))
                self.messages += 1
            yield message

    @property
    def end(self) -> int:
        """The offset up to which messages have to be read, 0 without a range."""
        return self._ranges[-1].end if self._ranges else 0

    def compared(self) -> list[tuple[LogRange, bool]]:
        """The ranges that were read from their begin, and whether each has its root."""
        return [
            (each, growing.root().hex() == each.root)
            for each, growing in zip(self._ranges, self._growing, strict=True)
            if 0 <= self._first <= each.first
        ]


class WantedRow(msgspec.Struct, frozen=True):
    """The feature row that a replay looks for."""

    symbol: str
    place: Place
    received_ns: int
    leader: str


def replayed_rows(messages: Iterable[RecordedMessage], wanted: WantedRow, read_to: int = 0) -> ReplayedRows | None:
    """The feature rows up to the wanted one; None if the messages do not give it.

    Messages are read up to the offset `read_to`, if that is behind the place. Frames of order books that are too old to
    matter are not decoded, which takes most of the time of a busy market.
    """
    place = wanted.place
    engine = FeatureEngine(wanted.leader)
    ids: list[FoldedEvent] = []
    values: list[Any] = []
    emit, count, found = False, 0, False
    for message in _without_old_books(messages, wanted.received_ns - BOOKS_NS):
        if found:
            if message.offset + 1 >= read_to:
                break
            continue
        if not emit and message.envelope.ts_recv_ns >= wanted.received_ns - EMITTED_NS:
            engine.flush(emit=False)
            emit = True
        engine.push(message.envelope, message.partition, message.offset)
        count += 1
        found = message.offset >= place.offset
        if found or count % BATCH_MESSAGES == 0:
            for batch in engine.flush(emit=emit):
                if batch.symbol == wanted.symbol:
                    ids += batch.ids
                    values.append(batch.matrix())
            if found and message.offset + 1 >= read_to:
                break
    at = next((at for at, each in enumerate(ids) if (each.partition, each.offset, each.item) == place), None)
    if at is None:
        return None
    return ReplayedRows(ids[: at + 1], np.concatenate(values)[: at + 1])


def _without_old_books(messages: Iterable[RecordedMessage], since_ns: int) -> Iterator[RecordedMessage]:
    """The messages without the frames of order books that were received before a time."""
    return (each for each in messages if each.envelope.channel != "book" or each.envelope.ts_recv_ns >= since_ns)


def forecast_again(
    rows: ReplayedRows, minutes: pa.Table, state: pa.Table, models: Models, made_at_ns: int
) -> ForecastRow:
    """The forecast of the last row; raises `StoreError` if the row has no bid."""
    columns = columns_at(rows, minutes)
    tracked = StatesInForce(state).state(0)
    made = forecasts_of(rows.ids[-1:], FEATURE_VERSION, rows.values[-1:], columns, models, tracked, made_at_ns)
    if not made:
        raise StoreError("the replayed feature row has no bid, so there is no forecast of it")
    return made[0]


def columns_at(rows: ReplayedRows, minutes: pa.Table) -> Any:
    """The minute columns at the last row, (1, COLUMNS), from the minutes before the last two and the rows in these."""
    clocks_ns = np.maximum.accumulate([row.ts_event_ns for row in rows.ids])
    first = int(np.searchsorted(clocks_ns, (clocks_ns[-1] // NS_PER_MIN - 1) * NS_PER_MIN))
    live = LiveMinutes(bars_of(minutes), int(clocks_ns[first]))
    is_trade = [row.kind == TRADE for row in rows.ids[first:]]
    return live.columns(clocks_ns[first:].tolist(), np.ascontiguousarray(rows.values[first:]), is_trade)[-1:]
