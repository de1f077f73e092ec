"""The bronze worker: the log in, what the exchange sent out to the bronze tables, as it was.

It alone writes dead letters for what it finds in the log, and gap marks.
What does not belong here: features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pandas as pd

from btc_core import metrics
from btc_core.clock import NS_PER_MIN, NS_PER_S, now_ns
from btc_core.errors import BadFrame
from btc_core.events import Event, events_of
from btc_core.fold import BAR, QUOTE, TRADE, WARM_UP_S
from btc_core.frames import BookFrame, StatusFrame, TickerFrame, decode, timestamp_ns
from btc_core.log import EVENTS, GAPS, Absent, decode_envelope
from btc_core.questdb_client import QuestDB
from streaming.gaps import Gap, TradeSequence
from streaming.publish import Publisher
from streaming.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.log import Envelope
    from btc_core.settings import Settings
    from streaming.worker import Record

GROUP = "bronze"

Row = dict[str, Any]


class BronzeHandler:
    """Turns messages into rows of five tables."""

    def __init__(self, settings: Settings) -> None:
        self._db = QuestDB(settings.questdb)
        self._publisher = Publisher(settings.kafka, "bronze")
        self._trades: dict[str, TradeSequence] = {}
        self._rows: dict[str, list[Row]] = {}
        self._kept = 0
        self._chunk_rows = settings.stream.batch_rows

    def reset(self) -> None:
        """Forget which trades have been seen, and rows that nobody has cut: their messages come again."""
        self._trades, self._rows, self._kept = {}, {}, 0

    def warm(self, messages: list[Record]) -> None:
        """Rebuild which trades have been seen."""
        for message in messages:
            try:
                envelope = decode_envelope(message.value)
                if envelope.channel == "absent":
                    self._give_up(envelope)
                elif envelope.channel == "trade":
                    for event in events_of(envelope):
                        if isinstance(event, Event):
                            self._sequence(event.symbol).take(event, envelope.ts_recv_ns, envelope.origin)
            except BadFrame:  # it was a dead letter when it was live
                continue

    def handle(self, messages: list[Record]) -> int:
        """Read every message into rows."""
        for message in messages:
            self._read(message, self._rows)
        self._kept += len(messages)
        return self._kept

    def cut(self) -> Callable[[], None]:
        """Rows of every table to write; the dead letters and notices of the same messages are waited for."""
        kept, self._rows, self._kept = self._rows, {}, 0
        chunks = [
            (table, rows[start : start + self._chunk_rows])
            for table, rows in kept.items()
            for start in range(0, len(rows), self._chunk_rows)
        ]

        def write() -> None:
            while chunks:
                table, rows = chunks[0]
                self._db.write(table, _frame(rows), "ts" if table == "minute_bars" else "ts_event")
                chunks.pop(0)
                _tell_delay(rows)
            self._publisher.flush()

        return write

    def _read(self, message: Record, rows: dict[str, list[Row]]) -> None:
        raw = message.value
        place = (EVENTS, message.partition, message.offset)
        try:
            envelope = decode_envelope(raw)
            if envelope.channel in ("book", "status"):
                self._read_other(envelope, place, rows)
            elif envelope.channel == "absent":
                for symbol, gap in self._give_up(envelope):
                    self._mark(symbol, gap, rows)
            for event in events_of(envelope):
                if isinstance(event, BadFrame):
                    self._publisher.dead_letter(event.reason, str(event), envelope.raw, place)
                else:
                    self._add(event, envelope, place, rows)
        except BadFrame as error:
            self._publisher.dead_letter(error.reason, str(error), raw, place)

    def _read_other(self, envelope: Envelope, place: tuple[str, int, int], rows: dict[str, list[Row]]) -> None:
        frame = decode(envelope.raw)
        if isinstance(frame, BookFrame):
            for item, data in enumerate(frame.data):
                row = {
                    "ts_event": timestamp_ns(data.timestamp, envelope.ts_recv_ns),
                    "ts_recv": envelope.ts_recv_ns,
                    "symbol": data.symbol,
                    "kind": frame.type,
                    "checksum": data.checksum,
                    "matches": envelope.book_ok is True,
                }
                rows.setdefault("bronze_book_checks", []).append(row | _place(place, item))
        elif isinstance(frame, StatusFrame):
            for item, status in enumerate(frame.data):
                row = {"ts_event": envelope.ts_recv_ns, "system": status.system, "version": status.version}
                rows.setdefault("bronze_status", []).append(row | _place(place, item))

    def _add(self, event: Event, envelope: Envelope, place: tuple[str, int, int], rows: dict[str, list[Row]]) -> None:
        times = {"ts_event": event.ts_event_ns, "ts_recv": envelope.ts_recv_ns, "symbol": event.symbol}
        if event.kind == QUOTE:
            rows.setdefault("bronze_ticks", []).append(times | _quote(envelope, event) | _place(place, event.item))
        elif event.kind == TRADE:
            new, gap = self._sequence(event.symbol).take(event, envelope.ts_recv_ns, envelope.origin)
            if gap is not None:
                self._mark(event.symbol, gap, rows)
            if new:
                row = times | _trade(event, envelope.origin) | _place(place, event.item)
                rows.setdefault("bronze_trades", []).append(row)
        elif event.kind == BAR and event.ts_event_ns + NS_PER_MIN <= envelope.ts_recv_ns:
            rows.setdefault("minute_bars", []).append(_bar(event, envelope.origin))

    def _give_up(self, envelope: Envelope) -> list[tuple[str, Gap]]:
        try:
            absent = msgspec.json.decode(envelope.raw, type=Absent)
        except msgspec.DecodeError as error:
            raise BadFrame("bad_envelope", f"absent trades: {error}") from None
        settled = self._sequence(absent.symbol).give_up(absent, envelope.ts_recv_ns)
        return [(absent.symbol, gap) for gap in settled]

    def _mark(self, symbol: str, gap: Gap, rows: dict[str, list[Row]]) -> None:
        """Write a gap down and tell the repair worker."""
        rows.setdefault("gap_marks", []).append(_gap_row(gap, symbol))
        self._publisher.publish(GAPS, symbol, msgspec.json.encode(gap.notice(symbol)), gap.changed_ns)

    def _sequence(self, symbol: str) -> TradeSequence:
        if symbol not in self._trades:
            self._trades[symbol] = TradeSequence(symbol)
        return self._trades[symbol]


def _place(place: tuple[str, int, int], item: int) -> Row:
    return {"kafka_partition": place[1], "kafka_offset": place[2], "frame_item": item}


def _quote(envelope: Envelope, event: Event) -> Row:
    frame = decode(envelope.raw)
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


def _tell_delay(rows: list[Row]) -> None:
    oldest_ns = rows[0].get("ts_recv")
    if oldest_ns is not None:
        metrics.STAGE_LATENCY.labels("bronze").observe((now_ns() - oldest_ns) / NS_PER_S)


_SYMBOLS = ("symbol", "side", "ord_type", "origin", "kind", "system", "state", "source")
_TIMES = ("ts_event", "ts_recv", "ts")
_INTS = ("kafka_partition", "frame_item")


def _frame(rows: list[Row]) -> pd.DataFrame:
    """Rows as a data frame with the types that QuestDB's columns have."""
    frame = pd.DataFrame(rows)
    for name in frame.columns:
        if name in _TIMES:
            frame[name] = pd.to_datetime(frame[name])
        elif name in _SYMBOLS:
            frame[name] = frame[name].astype("category")
        elif name in _INTS:
            frame[name] = frame[name].astype("int32")
    return frame


def build(settings: Settings) -> Worker:
    """The worker, ready to run; it looks back as far as the features do, to know every trade they know."""
    return Worker(settings, GROUP, EVENTS, BronzeHandler(settings), WARM_UP_S)
