"""The proof of a day's bronze rows: a comparison with the log that rewrites missing and different rows.

It also writes `bronze_bars`, the minute bars with their place in the log. A day that the log no longer holds is compared
with its archive, and not at all if it has none. Nothing is written before everything has been compared; if too many rows differ, nothing is written at all.
What does not belong here: features (`silver_proof`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa

from btc_core.clock import NS_PER_DAY, NS_PER_S
from btc_core.days.day_replay import MARGIN_NS
from btc_core.days.log_archive import messages_between, read_manifest
from btc_core.days.stored_days import read_rows
from btc_core.errors import BadFrame
from btc_core.exchanges.decoding import events_of
from btc_core.features.state import WARM_UP_S
from btc_core.market.events import BarEvent, QuoteEvent, TradeEvent
from btc_core.names import EVENTS_TOPIC
from btc_core.stores.kafka import kept_since, offset_ranges, read_all
from btc_core.stores.questdb import write_rows
from btc_core.tables import rows as table_rows
from btc_core.tables.catalogue import BRONZE_BARS, BRONZE_TICKS, BRONZE_TRADE_CORRECTIONS, BRONZE_TRADES
from btc_core.tables.rows import Logged
from btc_core.tables.sql import within
from btc_core.tables.trade_recorder import TradeRecorder
from btc_core.utc_day import day_ns

if TYPE_CHECKING:
    from btc_core.days.replaced import Keep
    from btc_core.market.messages import Envelope
    from btc_core.service_settings import KafkaSettings
    from btc_core.stores.questdb import QuestDB
    from btc_core.stores.s3 import ObjectStore
    from btc_core.tables.form import Table

Key = tuple[object, ...]
MAX_DIFFERENT_SHARE = 0.01
"""The largest share of a day's rows that a proof replaces unasked. Rows are written once and never changed, so only damage
makes them differ; many different rows mean that this log is not the one that they came from."""
FEW_ROWS = 100
"""Up to this many different rows are always replaced."""
PIECE_ROWS = 50_000
"""The number of rows that are compared at a time: about 60 MB."""
_IDENTITY = {
    BRONZE_TICKS.name: ("symbol", "kafka_offset", "frame_item"),
    BRONZE_TRADES.name: ("ts_event", "symbol", "trade_id"),
    BRONZE_TRADE_CORRECTIONS.name: ("ts_event", "symbol", "trade_id", "price", "qty"),
}
"""The columns that identify a row of a day: a quote's place in the log, or what the table of a trade distinguishes."""
_COMPARED = {
    BRONZE_TICKS.name: ("ts_event", "bid", "bid_qty", "ask", "ask_qty"),
    BRONZE_TRADES.name: ("price", "qty", "side"),
    BRONZE_TRADE_CORRECTIONS.name: ("side",),
}
_ALL_TRADES = 2**62
"""The proof remembers every trade, so it also finds repeats and corrections that a worker had forgotten."""


class BronzeProof(msgspec.Struct, frozen=True, kw_only=True):
    """The result of comparing the bronze rows of a day with the log."""

    log_has_day: bool
    """Whether the log still holds the whole day and has messages of it, or its archive does. If not, nothing was compared."""
    nothing_compared: str = ""
    """Why nothing was compared; empty if something was."""
    rows: int = 0
    """Ticks and trades of the day in the log."""
    rows_missing: int = 0
    rows_different: int = 0
    bars: int = 0
    """Minute bars in the log since the beginning of the warm-up window."""
    refusal: str = ""
    """Why nothing was written; empty if everything that was missing or different was written."""


class _Comparison:
    """Compares the rows of one day, as the log has them, with the tables piece by piece."""

    def __init__(self, db: QuestDB, begin_ns: int) -> None:
        self._db = db
        self._begin_ns, self._end_ns = begin_ns, begin_ns + NS_PER_DAY
        self._bars: list[Logged[BarEvent]] = []
        self._ticks: list[Logged[QuoteEvent]] = []
        self._trades: list[Logged[TradeEvent]] = []
        self._corrections: list[Logged[TradeEvent]] = []
        self._recorders: dict[str, TradeRecorder] = {}
        self._unwritten: list[tuple[Table, pa.Table]] = []
        """Rows that are missing or different; a whole day takes about 50 MB."""
        self.rows = self.missing = self.different = self.bars = 0

    def take(self, envelope: Envelope, partition: int, offset: int) -> None:
        for event in events_of(envelope):
            if isinstance(event, BadFrame):
                continue
            place = (envelope.ts_recv_ns, envelope.origin, partition, offset)
            if isinstance(event, BarEvent):
                self._bars.append(Logged(event, *place))
            elif isinstance(event, TradeEvent):
                self._take_trade(Logged(event, *place))
            elif self._begin_ns <= event.ts_event_ns < self._end_ns:
                self._ticks.append(Logged(event, *place))
        if len(self._bars) + len(self._ticks) + len(self._trades) >= PIECE_ROWS:
            self.settle()

    def _take_trade(self, logged: Logged[TradeEvent]) -> None:
        recorder = self._recorders.setdefault(logged.entry.symbol, TradeRecorder(remembered=_ALL_TRADES))
        _, rows = recorder.take(logged)
        for found, chosen in ((rows.trades, self._trades), (rows.corrections, self._corrections)):
            chosen += [each for each in found if self._begin_ns <= each.entry.ts_event_ns < self._end_ns]

    def settle(self) -> None:
        """Compare the rows taken since the last call, and remember those that are missing or different."""
        if self._bars:
            self._unwritten.append((BRONZE_BARS, table_rows.bronze_bars(self._bars)))
        self.bars += len(self._bars)
        if self._ticks:
            self._compare(BRONZE_TICKS, table_rows.bronze_ticks(self._ticks))
        if self._trades:
            self._compare(BRONZE_TRADES, _last_of_each_key(BRONZE_TRADES, table_rows.bronze_trades(self._trades)))
        if self._corrections:
            self._compare(BRONZE_TRADE_CORRECTIONS, table_rows.bronze_trade_corrections(self._corrections))
        self._bars, self._ticks, self._trades, self._corrections = [], [], [], []

    def write(self, keep: Keep) -> None:
        """Write the rows that are missing or different, after storing the rows that they replace."""
        for table, rows in self._unwritten:
            if table is not BRONZE_BARS:
                keep(table, self._replaced_rows(table, rows))
            write_rows(self._db, table, rows)

    def _replaced_rows(self, table: Table, fresh: pa.Table) -> pa.Table:
        """The whole stored rows that `fresh` replaces."""
        stored = read_rows(self._db, table, _span(fresh))
        keys = set(_tuples(fresh, table.keys))
        return stored.filter(pa.array([key in keys for key in _tuples(stored, table.keys)], pa.bool_()))

    def _compare(self, table: Table, expected: pa.Table) -> None:
        identity, compared = _IDENTITY[table.name], _COMPARED[table.name]
        names = tuple(dict.fromkeys((*identity, *compared)))
        rows = self._db.query(f"SELECT {', '.join(names)} FROM {table.name} WHERE {_span(expected)}")  # noqa: S608 - names of the catalogue
        stored = dict(zip(_tuples(rows, identity), _tuples(rows, compared), strict=True))
        found = [stored.get(key) for key in _tuples(expected, identity)]
        wrong = [here != there for here, there in zip(_tuples(expected, compared), found, strict=True)]
        if any(wrong):
            self._unwritten.append((table, expected.filter(pa.array(wrong, pa.bool_()))))
        self.rows += len(expected)
        self.missing += found.count(None)
        self.different += sum(wrong) - found.count(None)


def _span(rows: pa.Table) -> str:
    """The condition for the times of the rows."""
    times = rows["ts_event"].cast(pa.int64()).to_numpy()
    return within("ts_event", int(times.min()), int(times.max()) + 1)


def _last_of_each_key(table: Table, rows: pa.Table) -> pa.Table:
    """The last row of each key: the row of an outlier comes twice, the second time with its mark."""
    last = {key: place for place, key in enumerate(_tuples(rows, table.keys))}
    return rows.take(sorted(last.values()))


def _tuples(rows: pa.Table, names: tuple[str, ...]) -> list[Key]:
    """The values of some columns, row by row; times as nanoseconds."""
    columns = (rows[name] for name in names)
    values = (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column for column in columns)
    return list(zip(*(column.to_pylist() for column in values), strict=True))


def prove_bronze(  # noqa: PLR0913 - what is compared, and how
    db: QuestDB,
    kafka: KafkaSettings,
    day: str,
    keep: Keep,
    *,
    insist: bool = False,
    store: ObjectStore | None = None,
) -> BronzeProof:
    """Compare a day of bronze with the log and write what is missing or different; raises `ServiceError`.

    If the log does not hold the day, its archive in `store` takes the place of the log. A log that begins after the day holds
    nothing of it. `keep` stores the old rows before they are replaced. If too many rows differ, nothing is written and
    `BronzeProof.refusal` says why; `insist` writes them nevertheless.
    """
    begin_ns = day_ns(day)
    since_ns = begin_ns - MARGIN_NS
    warm_ns = since_ns - WARM_UP_S * NS_PER_S
    end_ns = begin_ns + NS_PER_DAY + MARGIN_NS
    is_kept = kept_since(kafka, since_ns)
    if is_kept and any(each.begin < each.end for each in offset_ranges(kafka, EVENTS_TOPIC, since_ns, end_ns)):
        messages = read_all(kafka, warm_ns, end_ns)
    elif store is not None and read_manifest(store, day) is not None:
        messages = messages_between(store, warm_ns, end_ns)
    else:
        why = (
            "the log has no message of the day, and it has no archive"
            if is_kept
            else "the log has dropped the day, and it has no archive"
        )
        return BronzeProof(log_has_day=False, nothing_compared=f"{day}: {why}, so nothing was compared")
    comparison = _Comparison(db, begin_ns)
    for envelope, partition, offset in messages:
        if envelope.channel == "ohlc" or envelope.ts_recv_ns >= since_ns:
            try:
                comparison.take(envelope, partition, offset)
            except BadFrame:  # the workers refused it, too
                continue
    comparison.settle()
    refusal = ""
    share = comparison.different / max(1, comparison.rows)
    if comparison.different > FEW_ROWS and share > MAX_DIFFERENT_SHARE and not insist:
        refusal = (
            f"{day}: the log has other values for {comparison.different} of {comparison.rows} stored quotes and trades "
            f"({share:.0%}); at most {MAX_DIFFERENT_SHARE:.0%} are plausible"
        )
    else:
        comparison.write(keep)
    return BronzeProof(
        log_has_day=True,
        rows=comparison.rows,
        rows_missing=comparison.missing,
        rows_different=comparison.different,
        bars=comparison.bars,
        refusal=refusal,
    )
