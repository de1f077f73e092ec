"""The proof that bronze holds what the log holds of a day: entries missing or different there are written again.

It also writes `bronze_bars`, the minute bars with their place in the log. A day that the log has forgotten is taken as
it is. What does not belong here: features (`proof`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from btc_core.clock import NS_PER_DAY, NS_PER_S
from btc_core.days.day_replay import MARGIN_NS
from btc_core.days.rows import arrow_schema, day_ns, in_form, within, write_rows
from btc_core.errors import BadFrame
from btc_core.exchanges.interface import frame_of
from btc_core.features.fold import BAR, QUOTE, WARM_UP_S
from btc_core.market.events import Event, events_of
from btc_core.market.frames import TickerFrame
from btc_core.market.messages import Envelope
from btc_core.stores.kafka import kept_since, read_all
from btc_core.tables.catalogue import BRONZE_BARS, BRONZE_TICKS, BRONZE_TRADES

if TYPE_CHECKING:
    from btc_core.settings import KafkaSettings
    from btc_core.stores.questdb import QuestDB
    from btc_core.tables.form import Table

Row = dict[str, Any]
Key = tuple[object, ...]
PIECE_ROWS = 50_000
"""Rows held before they are compared: some 60 MB."""
_QUOTE_COLUMNS = ("bid", "bid_qty", "ask", "ask_qty", "last", "volume", "vwap")
_COMPARED = {
    "bronze_ticks": ("ts_event", "bid", "bid_qty", "ask", "ask_qty"),
    "bronze_trades": ("ts_event", "price", "qty", "side"),
}


class _Seen(msgspec.Struct, frozen=True, gc=False):
    """An event with where it was; its row is made only when it must be written."""

    event: Event
    envelope: Envelope
    partition: int
    offset: int

    def compared(self) -> Key:
        """What the stored row must say, as `_COMPARED` names it."""
        event = self.event
        if event.kind == QUOTE:
            return event.ts_event_ns, event.a, event.b, event.c, event.d
        return event.ts_event_ns, event.a, event.b, _side(event)

    def row(self) -> Row:
        """The row as the bronze worker writes it."""
        event, envelope = self.event, self.envelope
        head: Row = {"ts_event": event.ts_event_ns, "ts_recv": envelope.ts_recv_ns, "symbol": event.symbol}
        place = {"kafka_partition": self.partition, "kafka_offset": self.offset, "frame_item": event.item}
        if event.kind == BAR:
            return head | dict(zip(("open", "high", "low", "close", "volume"), _numbers(event), strict=True)) | place
        return head | (_quote(envelope, event) if event.kind == QUOTE else _trade(envelope, event)) | place


class BronzeProof(msgspec.Struct, frozen=True, kw_only=True):
    """How a day's bronze compares with the log."""

    log_has_day: bool
    """False when the log has forgotten the day, or part of it: then nothing was compared."""
    rows: int = 0
    """Ticks and trades the log has of the day."""
    rows_missing: int = 0
    rows_different: int = 0
    bars: int = 0
    """Minute bars met in the log from the warm-up window on."""


class _Comparison:
    """Rows of one day as the log has them, compared with the tables piece by piece."""

    def __init__(self, db: QuestDB, begin_ns: int) -> None:
        self._db = db
        self._begin_ns, self._end_ns = begin_ns, begin_ns + NS_PER_DAY
        self._bars: list[_Seen] = []
        self._ticks: dict[Key, _Seen] = {}
        self._trades: dict[Key, _Seen] = {}
        self._seen: set[Key] = set()
        self.rows = self.missing = self.different = self.bars = 0

    def take(self, envelope: Envelope, partition: int, offset: int) -> None:
        for event in events_of(envelope):
            if isinstance(event, BadFrame):
                continue
            seen = _Seen(event, envelope, partition, offset)
            if event.kind == BAR:
                self._bars.append(seen)
            elif not self._begin_ns <= event.ts_event_ns < self._end_ns:
                continue
            elif event.kind == QUOTE:
                self._ticks[event.symbol, offset, event.item] = seen
            elif (event.symbol, event.trade_id) not in self._seen:  # the first time counts, as for the workers
                self._seen.add((event.symbol, event.trade_id))
                self._trades[event.symbol, event.trade_id] = seen
        if len(self._bars) + len(self._ticks) + len(self._trades) >= PIECE_ROWS:
            self.settle()

    def settle(self) -> None:
        """Compare and write what was taken since the last time."""
        write_rows(self._db, BRONZE_BARS, _table(self._bars, BRONZE_BARS))
        self.bars += len(self._bars)
        for table, found in ((BRONZE_TICKS, self._ticks), (BRONZE_TRADES, self._trades)):
            if not found:
                continue
            stored = self._stored(table, found)
            absent = [seen for key, seen in found.items() if key not in stored]
            changed = [seen for key, seen in found.items() if key in stored and stored[key] != seen.compared()]
            write_rows(self._db, table, _table([*absent, *changed], table))
            self.rows += len(found)
            self.missing += len(absent)
            self.different += len(changed)
        self._bars, self._ticks, self._trades = [], {}, {}

    def _stored(self, table: Table, found: dict[Key, _Seen]) -> dict[Key, Key]:
        """Compared values by what identifies a row: place for ticks, trade_id for trades."""
        identity = ("symbol", "trade_id") if table is BRONZE_TRADES else ("symbol", "kafka_offset", "frame_item")
        compared = _COMPARED[table.name]
        names = tuple(dict.fromkeys((*identity, *compared)))
        times = [seen.event.ts_event_ns for seen in found.values()]
        rows = self._db.query(
            f"SELECT {', '.join(names)} FROM {table.name} WHERE {within('ts_event', min(times), max(times) + 1)}"  # noqa: S608 - names of the catalogue
        )
        values = {
            name: rows[name].cast(pa.int64()).to_pylist()
            if pa.types.is_timestamp(rows[name].type)
            else rows[name].to_pylist()
            for name in names
        }
        keys = zip(*(values[name] for name in identity), strict=True)
        return dict(zip(keys, zip(*(values[name] for name in compared), strict=True), strict=True))


def _numbers(event: Event) -> tuple[float, ...]:
    return event.a, event.b, event.c, event.d, event.e


def _side(event: Event) -> str:
    return "buy" if event.c > 0 else "sell"


def _quote(envelope: Envelope, event: Event) -> Row:
    frame = frame_of(envelope)
    entry = frame.data[event.item] if isinstance(frame, TickerFrame) else None
    return {name: getattr(entry, name) for name in _QUOTE_COLUMNS}


def _trade(envelope: Envelope, event: Event) -> Row:
    row = {"trade_id": event.trade_id, "price": event.a, "qty": event.b, "side": _side(event)}
    return row | {"ord_type": event.ord_type, "origin": envelope.origin}


def prove_bronze(db: QuestDB, kafka: KafkaSettings, day: str) -> BronzeProof:
    """Compare a day of bronze with the log and write what is missing or different; raises `ServiceError`."""
    begin_ns = day_ns(day)
    since_ns = begin_ns - MARGIN_NS
    if not kept_since(kafka, since_ns):
        return BronzeProof(log_has_day=False)
    comparison = _Comparison(db, begin_ns)
    warm_ns = since_ns - WARM_UP_S * NS_PER_S
    for envelope, partition, offset in read_all(kafka, warm_ns, begin_ns + NS_PER_DAY + MARGIN_NS):
        if envelope.channel == "ohlc" or envelope.ts_recv_ns >= since_ns:
            try:
                comparison.take(envelope, partition, offset)
            except BadFrame:  # a dead letter, as it was when it was live
                continue
    comparison.settle()
    return BronzeProof(
        log_has_day=True,
        rows=comparison.rows,
        rows_missing=comparison.missing,
        rows_different=comparison.different,
        bars=comparison.bars,
    )


def _table(seen: list[_Seen], table: Table) -> pa.Table:
    schema = arrow_schema(table)
    rows = [each.row() for each in seen]
    columns = {name: pa.array([row[name] for row in rows], schema.field(name).type) for name in schema.names}
    return in_form(pa.table(columns, schema=schema), table)
