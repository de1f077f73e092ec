"""What the log says, as rows of the bronze tables, dead letters and notices of gaps. Pure: no server is touched.

What does not belong here: writing any of it (`bronze`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from btc_core.clock import NS_PER_MIN
from btc_core.errors import BadFrame
from btc_core.exchanges.decoding import events_of, frame_of
from btc_core.market.bars import bars_of_events
from btc_core.market.events import BarEvent, QuoteEvent, TradeEvent, check_time
from btc_core.market.frames import BookFrame, StatusFrame, timestamp_ns
from btc_core.market.messages import Absent, decode_envelope
from btc_core.names import EVENTS_TOPIC
from btc_core.tables import rows as table_rows
from btc_core.tables.catalogue import (
    BRONZE_BOOK_CHECKS,
    BRONZE_STATUS,
    BRONZE_TICKS,
    BRONZE_TRADES,
    GAP_MARKS,
    MINUTE_BARS,
)
from btc_core.tables.rows import BookCheck, Entry, Logged, StatusEvent
from streaming.gaps import SavedSequence, TradeSequence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from btc_core.market.events import Event
    from btc_core.market.messages import Envelope, GapNotice
    from btc_core.tables.form import Table
    from btc_core.tables.rows import GapMark
    from streaming.gaps import Gap
    from streaming.worker import Record

Place = tuple[str, int, int]
"""Topic, partition, offset."""


class Refused(msgspec.Struct, frozen=True):
    """What could not be used."""

    reason: str
    message: str
    raw: bytes
    place: Place


class BronzeRows:
    """What the bronze tables are owed, table by table."""

    def __init__(self) -> None:
        self.ticks: list[Logged[QuoteEvent]] = []
        self.trades: list[Logged[TradeEvent]] = []
        self.bars: list[Logged[BarEvent]] = []
        self.book_checks: list[Logged[BookCheck]] = []
        self.status: list[Logged[StatusEvent]] = []
        self.gaps: list[GapMark] = []

    def tables(self, chunk_rows: int) -> Iterator[tuple[Table, pa.Table, int]]:
        """Rows to write, at most `chunk_rows` at a time: the table, the rows, and when the oldest was received (ns)."""
        made: tuple[tuple[Table, Callable[[Any], pa.Table], Sequence[Any]], ...] = (
            (BRONZE_TICKS, table_rows.bronze_ticks, self.ticks),
            (BRONZE_TRADES, table_rows.bronze_trades, self.trades),
            (MINUTE_BARS, _minute_bars, self.bars),
            (BRONZE_BOOK_CHECKS, table_rows.bronze_book_checks, self.book_checks),
            (BRONZE_STATUS, table_rows.bronze_status, self.status),
            (GAP_MARKS, table_rows.gap_marks, self.gaps),
        )
        for table, make, entries in made:
            for start in range(0, len(entries), chunk_rows):
                chunk = entries[start : start + chunk_rows]
                yield table, make(chunk), chunk[0].ts_recv_ns


class BronzeReader:
    """Messages in the order of the log; `take` hands over what has gathered."""

    def __init__(self) -> None:
        self.rows = BronzeRows()
        self.refused: list[Refused] = []
        self.notices: list[GapNotice] = []
        self._trades: dict[str, TradeSequence] = {}
        self._partitions: dict[str, int] = {}

    def warm(self, message: Record) -> None:
        """Take note of the trades in a message that was read before."""
        try:
            envelope = decode_envelope(message.value)
            if envelope.channel == "absent":
                self._give_up(envelope)
            elif envelope.channel == "trade":
                for event in events_of(envelope):
                    if isinstance(event, TradeEvent):
                        self._partitions[event.symbol] = message.partition
                        self._sequence(event.symbol).take(event, envelope.ts_recv_ns, envelope.origin)
        except BadFrame:  # it was a dead letter when it was live
            return

    def read(self, message: Record) -> None:
        """Make rows of a message."""
        place = (EVENTS_TOPIC, message.partition, message.offset)
        raw = message.value
        try:
            envelope = decode_envelope(raw)
            if envelope.channel in ("book", "status"):
                self._read_other(envelope, place)
            elif envelope.channel == "absent":
                for symbol, gap in self._give_up(envelope):
                    self._mark(symbol, gap)
            for event in events_of(envelope):
                if isinstance(event, BadFrame):
                    self.refused.append(Refused(event.reason, str(event), envelope.raw, place))
                else:
                    self._add(event, envelope, place)
        except BadFrame as error:
            self.refused.append(Refused(error.reason, str(error), raw, place))

    def save(self, partition: int) -> bytes:
        """Which trades of a partition have been seen, for `load`."""
        symbols = [symbol for symbol in self._trades if self._partitions.get(symbol) == partition]
        return msgspec.msgpack.encode([(partition, self._trades[symbol].save()) for symbol in symbols])

    def load(self, saved: bytes) -> None:
        """Go on as the reader that saved this would have."""
        for partition, one in msgspec.msgpack.decode(saved, type=list[tuple[int, SavedSequence]]):
            self._partitions[one.symbol] = partition
            self._trades[one.symbol] = TradeSequence.load(one)

    def remove_gauges(self) -> None:
        """Take back what the gauges say of the markets read so far."""
        for trades in self._trades.values():
            trades.remove_gauges()

    def _read_other(self, envelope: Envelope, place: Place) -> None:
        frame = frame_of(envelope)
        if isinstance(frame, BookFrame):
            for item, data in enumerate(frame.data):
                ts_event_ns = timestamp_ns(data.timestamp, envelope.ts_recv_ns)
                check_time(ts_event_ns, envelope.ts_recv_ns)
                check = BookCheck(data.symbol, ts_event_ns, item, frame.type, data.checksum, envelope.book_ok is True)
                self.rows.book_checks.append(_logged(check, envelope, place))
        elif isinstance(frame, StatusFrame):
            for item, status in enumerate(frame.data):
                event = StatusEvent(envelope.ts_recv_ns, item, status.system, status.version)
                self.rows.status.append(_logged(event, envelope, place))

    def _add(self, event: Event, envelope: Envelope, place: Place) -> None:
        if isinstance(event, QuoteEvent):
            self.rows.ticks.append(_logged(event, envelope, place))
        elif isinstance(event, TradeEvent):
            self._partitions[event.symbol] = place[1]
            new, gap = self._sequence(event.symbol).take(event, envelope.ts_recv_ns, envelope.origin)
            if gap is not None:
                self._mark(event.symbol, gap)
            if new:
                self.rows.trades.append(_logged(event, envelope, place))
        elif event.ts_event_ns + NS_PER_MIN <= envelope.ts_recv_ns:
            self.rows.bars.append(_logged(event, envelope, place))

    def _give_up(self, envelope: Envelope) -> list[tuple[str, Gap]]:
        try:
            absent = msgspec.json.decode(envelope.raw, type=Absent)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadFrame("bad_envelope", f"absent trades: {error}") from None
        settled = self._sequence(absent.symbol).give_up(absent, envelope.ts_recv_ns)
        return [(absent.symbol, gap) for gap in settled]

    def _mark(self, symbol: str, gap: Gap) -> None:
        """Write a gap down and tell the repair worker."""
        self.rows.gaps.append(gap.mark(symbol))
        self.notices.append(gap.notice(symbol))

    def _sequence(self, symbol: str) -> TradeSequence:
        if symbol not in self._trades:
            self._trades[symbol] = TradeSequence(symbol)
        return self._trades[symbol]


def _logged(entry: Entry, envelope: Envelope, place: Place) -> Logged[Entry]:
    return Logged(entry, envelope.ts_recv_ns, envelope.origin, place[1], place[2])


def _minute_bars(logged: Sequence[Logged[BarEvent]]) -> pa.Table:
    """Bars of the exchange as rows that models train on; the bars may be of several markets."""
    parts: dict[tuple[str, str], list[BarEvent]] = {}
    for each in logged:
        parts.setdefault((each.entry.symbol, each.origin), []).append(each.entry)
    return pa.concat_tables(table_rows.minute_bars(bars_of_events(bars), *market) for market, bars in parts.items())
