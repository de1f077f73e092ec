"""What the log says, as rows of the bronze tables, dead letters and notices of gaps. Pure: no server is touched.

What does not belong here: writing any of it (`bronze`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from btc_core.clock import NS_PER_MIN
from btc_core.errors import BadFrame
from btc_core.exchanges.interface import frame_of
from btc_core.features.fold import BAR, QUOTE, TRADE
from btc_core.market.events import Event, check_time, events_of
from btc_core.market.frames import BookFrame, StatusFrame, TickerFrame, timestamp_ns
from btc_core.market.messages import Absent, decode_envelope
from btc_core.names import EVENTS_TOPIC
from streaming.gaps import SavedSequence, TradeSequence

if TYPE_CHECKING:
    from btc_core.market.messages import Envelope, GapNotice
    from streaming.gaps import Gap
    from streaming.worker import Record

Row = dict[str, Any]
Place = tuple[str, int, int]
"""Topic, partition, offset."""


class Refused(msgspec.Struct, frozen=True):
    """What could not be used."""

    reason: str
    message: str
    raw: bytes
    place: Place


class BronzeReader:
    """Messages in the order of the log; `take` hands over what has gathered."""

    def __init__(self) -> None:
        self.rows: dict[str, list[Row]] = {}
        """By table."""
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
                    if isinstance(event, Event):
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

    def untell(self) -> None:
        """Take back what the gauges say of the markets read so far."""
        for trades in self._trades.values():
            trades.untell()

    def _add_row(self, table: str, row: Row) -> None:
        self.rows.setdefault(table, []).append(row)

    def _read_other(self, envelope: Envelope, place: Place) -> None:
        frame = frame_of(envelope)
        if isinstance(frame, BookFrame):
            for item, data in enumerate(frame.data):
                ts_event_ns = timestamp_ns(data.timestamp, envelope.ts_recv_ns)
                check_time(ts_event_ns, envelope.ts_recv_ns)
                row = {
                    "ts_event": ts_event_ns,
                    "ts_recv": envelope.ts_recv_ns,
                    "symbol": data.symbol,
                    "kind": frame.type,
                    "checksum": data.checksum,
                    "matches": envelope.book_ok is True,
                }
                self._add_row("bronze_book_checks", row | _place(place, item))
        elif isinstance(frame, StatusFrame):
            for item, status in enumerate(frame.data):
                row = {"ts_event": envelope.ts_recv_ns, "system": status.system, "version": status.version}
                self._add_row("bronze_status", row | _place(place, item))

    def _add(self, event: Event, envelope: Envelope, place: Place) -> None:
        times = {"ts_event": event.ts_event_ns, "ts_recv": envelope.ts_recv_ns, "symbol": event.symbol}
        if event.kind == QUOTE:
            self._add_row("bronze_ticks", times | _quote(envelope, event) | _place(place, event.item))
        elif event.kind == TRADE:
            self._partitions[event.symbol] = place[1]
            new, gap = self._sequence(event.symbol).take(event, envelope.ts_recv_ns, envelope.origin)
            if gap is not None:
                self._mark(event.symbol, gap)
            if new:
                self._add_row("bronze_trades", times | _trade(event, envelope.origin) | _place(place, event.item))
        elif event.kind == BAR and event.ts_event_ns + NS_PER_MIN <= envelope.ts_recv_ns:
            self._add_row("minute_bars", _bar(event, envelope.origin))

    def _give_up(self, envelope: Envelope) -> list[tuple[str, Gap]]:
        try:
            absent = msgspec.json.decode(envelope.raw, type=Absent)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadFrame("bad_envelope", f"absent trades: {error}") from None
        settled = self._sequence(absent.symbol).give_up(absent, envelope.ts_recv_ns)
        return [(absent.symbol, gap) for gap in settled]

    def _mark(self, symbol: str, gap: Gap) -> None:
        """Write a gap down and tell the repair worker."""
        self._add_row("gap_marks", _gap_row(gap, symbol))
        self.notices.append(gap.notice(symbol))

    def _sequence(self, symbol: str) -> TradeSequence:
        if symbol not in self._trades:
            self._trades[symbol] = TradeSequence(symbol)
        return self._trades[symbol]


def _place(place: Place, item: int) -> Row:
    return {"kafka_partition": place[1], "kafka_offset": place[2], "frame_item": item}


def _quote(envelope: Envelope, event: Event) -> Row:
    frame = frame_of(envelope)
    if not isinstance(frame, TickerFrame):  # events_of gave a quote, so this is one
        raise BadFrame("bad_envelope", f"a quote in a frame of channel {envelope.channel}")
    quote = frame.data[event.item]
    names = ("bid", "bid_qty", "ask", "ask_qty", "last", "volume", "vwap")
    return {name: getattr(quote, name) for name in names}


def _trade(event: Event, origin: str) -> Row:
    return {
        "trade_id": event.trade_id,
        "price": event.a,
        "qty": event.b,
        "side": "buy" if event.c > 0 else "sell",
        "ord_type": event.ord_type,
        "origin": origin,
    }


def _bar(event: Event, origin: str) -> Row:
    return {
        "ts": event.ts_event_ns,
        "symbol": event.symbol,
        "open": event.a,
        "high": event.b,
        "low": event.c,
        "close": event.d,
        "volume": event.e,
        "trades": -1,
        "source": origin,
    }


def _gap_row(gap: Gap, symbol: str) -> Row:
    return {
        "ts_event": gap.before_ns,
        "symbol": symbol,
        "first_id": gap.first_id,
        "last_id": gap.last_id,
        "ts_recv": gap.changed_ns,
        "missing": gap.missing,
        "absent": gap.absent,
        "state": gap.state,
    }
