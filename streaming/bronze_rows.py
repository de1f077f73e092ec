"""Messages of the log as rows of the bronze tables, dead letters and gap notices. Pure: no server is used.

What does not belong here: writing or publishing any of them (`bronze`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from btc_core.errors import BadFrame, RefusedTrade
from btc_core.exchanges.decoding import events_of, frame_of
from btc_core.market.bars import bars_of_events
from btc_core.market.events import BarEvent, QuoteEvent, TradeEvent, check_time
from btc_core.market.frames import BookFrame, StatusFrame, timestamp_ns
from btc_core.market.messages import AbsentTrades, decode_absent, decode_envelope
from btc_core.names import EVENTS_TOPIC
from btc_core.tables import rows as table_rows
from btc_core.tables.catalogue import (
    BRONZE_BOOK_CHECKS,
    BRONZE_STATUS,
    BRONZE_TICKS,
    BRONZE_TRADE_CORRECTIONS,
    BRONZE_TRADES,
    GAP_MARKS,
    MINUTE_BARS,
)
from btc_core.tables.rows import BookCheck, Entry, Logged, StatusEvent
from streaming.gaps import SavedSequence, TradeSequence, mark_of, notice_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from btc_core.market.continuity import Gap
    from btc_core.market.events import Event
    from btc_core.market.messages import Envelope, GapNotice
    from btc_core.tables.form import Table
    from btc_core.tables.rows import GapMark
    from streaming.handler import Record

Place = tuple[str, int, int]
"""Topic, partition, offset."""


class Refused(msgspec.Struct, frozen=True):
    """A message, or an entry of one, that cannot be used; it becomes a dead letter."""

    reason: str
    message: str
    raw: bytes
    place: Place


class BronzeRows:
    """Rows to write, by table."""

    def __init__(self) -> None:
        self.ticks: list[Logged[QuoteEvent]] = []
        self.trades: list[Logged[TradeEvent]] = []
        self.corrections: list[Logged[TradeEvent]] = []
        self.bars: list[Logged[BarEvent]] = []
        self.book_checks: list[Logged[BookCheck]] = []
        self.status: list[Logged[StatusEvent]] = []
        self.gaps: list[GapMark] = []

    def tables(self, chunk_rows: int) -> Iterator[tuple[Table, pa.Table, int]]:
        """Chunks of at most `chunk_rows` rows: the table, the rows, and when the oldest of them was received (ns)."""
        tables: tuple[tuple[Table, Callable[[Any], pa.Table], Sequence[Any]], ...] = (
            (BRONZE_TICKS, table_rows.bronze_ticks, self.ticks),
            (BRONZE_TRADES, table_rows.bronze_trades, self.trades),
            (BRONZE_TRADE_CORRECTIONS, table_rows.bronze_trade_corrections, self.corrections),
            (MINUTE_BARS, _minute_bars, self.bars),
            (BRONZE_BOOK_CHECKS, table_rows.bronze_book_checks, self.book_checks),
            (BRONZE_STATUS, table_rows.bronze_status, self.status),
            (GAP_MARKS, table_rows.gap_marks, self.gaps),
        )
        for table, make, entries in tables:
            for start in range(0, len(entries), chunk_rows):
                chunk = entries[start : start + chunk_rows]
                yield table, make(chunk), chunk[0].ts_recv_ns


class BronzeReader:
    """Reads messages in the order of the log; the results gather in `rows`, `refused` and `notices`."""

    def __init__(self) -> None:
        self.rows = BronzeRows()
        self.refused: list[Refused] = []
        self.notices: list[GapNotice] = []
        self._sequences: dict[str, TradeSequence] = {}
        self._partitions: dict[str, int] = {}
        """The partition of each symbol."""

    def warm(self, message: Record) -> None:
        """Observe the trades of a message that was handled before, without making rows."""
        try:
            envelope = decode_envelope(message.value)
            place = (EVENTS_TOPIC, message.partition, message.offset)
            if envelope.channel == "absent":
                self._mark_absent(envelope)
            elif envelope.channel == "trade":
                for event in events_of(envelope):
                    if isinstance(event, TradeEvent):
                        self._partitions[event.symbol] = message.partition
                        self._sequence(event.symbol).warm(_logged(event, envelope, place))
                    elif isinstance(event, RefusedTrade):
                        self._settle_refused(event, envelope)
        except BadFrame:  # it became a dead letter when it was handled
            return

    def read(self, message: Record) -> None:
        """Make the rows, dead letters and gap notices of a message."""
        place = (EVENTS_TOPIC, message.partition, message.offset)
        raw = message.value
        try:
            envelope = decode_envelope(raw)
            if envelope.channel in ("book", "status"):
                self._read_book_or_status(envelope, place)
            elif envelope.channel == "absent":
                for symbol, gap in self._mark_absent(envelope):
                    self._report(symbol, gap, envelope.ts_recv_ns)
            for event in events_of(envelope):
                if isinstance(event, BadFrame):
                    self.refused.append(Refused(event.reason, str(event), envelope.raw, place))
                    if isinstance(event, RefusedTrade):
                        for gap in self._settle_refused(event, envelope):
                            self._report(event.symbol, gap, envelope.ts_recv_ns)
                else:
                    self._add_event(event, envelope, place)
        except BadFrame as error:
            self.refused.append(Refused(error.reason, str(error), raw, place))

    def save(self, partition: int) -> bytes:
        """The trade sequences of a partition's symbols, as `load` takes them."""
        symbols = [symbol for symbol in self._sequences if self._partitions.get(symbol) == partition]
        return msgspec.msgpack.encode([(partition, self._sequences[symbol].save()) for symbol in symbols])

    def load(self, saved: bytes) -> None:
        """Restore the trade sequences that `save` returned."""
        for partition, sequence in msgspec.msgpack.decode(saved, type=list[tuple[int, SavedSequence]]):
            self._partitions[sequence.symbol] = partition
            self._sequences[sequence.symbol] = TradeSequence.load(sequence)

    def remove_gauges(self) -> None:
        """Stop exporting the gauges of every symbol read so far."""
        for sequence in self._sequences.values():
            sequence.remove_gauges()

    def _read_book_or_status(self, envelope: Envelope, place: Place) -> None:
        frame = frame_of(envelope)
        if isinstance(frame, BookFrame):
            for item, data in enumerate(frame.data):
                ts_event_ns = timestamp_ns(data.timestamp, envelope.ts_recv_ns)
                check_time(ts_event_ns, envelope.ts_recv_ns, envelope.clock_offset_ns or 0)
                check = BookCheck(data.symbol, ts_event_ns, item, frame.type, data.checksum, envelope.book_ok is True)
                self.rows.book_checks.append(_logged(check, envelope, place))
        elif isinstance(frame, StatusFrame):
            for item, status in enumerate(frame.data):
                event = StatusEvent(envelope.ts_recv_ns, item, status.system, status.version, envelope.exchange)
                self.rows.status.append(_logged(event, envelope, place))

    def _add_event(self, event: Event, envelope: Envelope, place: Place) -> None:
        if isinstance(event, QuoteEvent):
            self.rows.ticks.append(_logged(event, envelope, place))
        elif isinstance(event, TradeEvent):
            self._partitions[event.symbol] = place[1]
            rows, gaps = self._sequence(event.symbol).take(_logged(event, envelope, place))
            for gap in gaps:
                self._report(event.symbol, gap, envelope.ts_recv_ns)
            self.rows.trades += rows.trades
            self.rows.corrections += rows.corrections
        else:
            self.rows.bars.append(_logged(event, envelope, place))

    def _mark_absent(self, envelope: Envelope) -> list[tuple[str, Gap]]:
        absent = decode_absent(envelope)
        return [(absent.symbol, gap) for gap in self._sequence(absent.symbol).mark_absent(absent)]

    def _settle_refused(self, trade: RefusedTrade, envelope: Envelope) -> list[Gap]:
        """Stop waiting for a trade that REST repeats in the form that we refuse; returns the gaps that are closed by this.

        A refused trade of the socket is not settled: REST may have it in a form that can be stored.
        """
        if envelope.origin != "rest":
            return []
        return self._sequence(trade.symbol).mark_absent(AbsentTrades(trade.symbol, trade.trade_id, trade.trade_id))

    def _report(self, symbol: str, gap: Gap, changed_ns: int) -> None:
        """Record a gap whose state changed, and notify the repair worker."""
        self.rows.gaps.append(mark_of(gap, symbol, changed_ns))
        self.notices.append(notice_of(gap, symbol, changed_ns))

    def _sequence(self, symbol: str) -> TradeSequence:
        if symbol not in self._sequences:
            self._sequences[symbol] = TradeSequence(symbol)
        return self._sequences[symbol]


def _logged(entry: Entry, envelope: Envelope, place: Place) -> Logged[Entry]:
    return Logged(entry, envelope.ts_recv_ns, envelope.origin, place[1], place[2])


def _minute_bars(logged: Sequence[Logged[BarEvent]]) -> pa.Table:
    """Rows of `minute_bars`, which models are trained on; the bars may be of several markets."""
    parts: dict[tuple[str, str], list[BarEvent]] = {}
    for each in logged:
        parts.setdefault((each.entry.symbol, each.origin), []).append(each.entry)
    return pa.concat_tables(table_rows.minute_bars(bars_of_events(bars), *market) for market, bars in parts.items())
