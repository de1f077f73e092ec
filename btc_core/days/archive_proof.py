"""The proof that the archive of a day is complete: its quotes and trades compared with the bronze rows, place by place.

What does not belong here: making the archive (`log_archive`), or comparing bronze with the log (`bronze_proof`).
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from btc_core.clock import NS_PER_DAY, NS_PER_S
from btc_core.days.log_archive import archived_days, read_archive
from btc_core.errors import BadFrame
from btc_core.exchanges.decoding import events_of
from btc_core.market.events import QuoteEvent, TradeEvent
from btc_core.tables.catalogue import BRONZE_TICKS, BRONZE_TRADE_CORRECTIONS, BRONZE_TRADES
from btc_core.tables.sql import within
from btc_core.utc_day import day_ns, day_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from btc_core.days.log_archive import LogArchive
    from btc_core.settings import Settings
    from btc_core.stores.questdb import QuestDB
    from btc_core.stores.s3 import ObjectStore
    from btc_core.tables.form import Table

_MAX_ITEMS = 1 << 16
_TRADE_TABLES = (BRONZE_TRADES, BRONZE_TRADE_CORRECTIONS)
PIECE = 10_000
"""The number of trades that are looked up by their ids in one statement."""


ARCHIVE_SLACK_S = 3_600
"""How long after the last moment at which a day is sealed its archive may still be missing. Sealing a busy day takes
minutes, and a run that failed is repeated after five."""


class ArchiveProof(msgspec.Struct, frozen=True, kw_only=True):
    """The result of comparing the archive of a day with the bronze rows that were received on it."""

    quotes: int
    """Quotes in the archive."""
    bronze_quotes: int
    trades: int
    """Trades in the archive, among them those that the exchange sent more than once."""
    repeated_trades: int
    """Trades in the archive that repeat one whose row has another place in the log."""
    bronze_trades: int
    """Rows of trades and of corrected trades."""
    missing_in_archive: int
    """Bronze rows whose message is not in the archive."""
    missing_in_bronze: int
    """Quotes and trades in the archive that have no bronze row."""

    @property
    def is_complete(self) -> bool:
        """Whether the archive and bronze have the same quotes and trades."""
        return self.missing_in_archive == self.missing_in_bronze == 0


class _Places:
    """The quotes and trades of one partition of an archive, 24 bytes each at most."""

    def __init__(self) -> None:
        self.quotes = array("q")
        self.trades = array("q")
        self.trade_times_ns = array("q")
        self.trade_ids = array("q")
        self.symbols: list[str] = []
        """The symbol of each trade. Equal symbols share one string."""

    def collect(self, store: ObjectStore, archive: LogArchive, partition: int) -> None:
        names: dict[str, str] = {}
        for message in read_archive(store, archive, partition):
            try:
                for event in events_of(message.envelope):
                    if isinstance(event, QuoteEvent):
                        self.quotes.append(message.offset * _MAX_ITEMS + event.item)
                    elif isinstance(event, TradeEvent):
                        self.trades.append(message.offset * _MAX_ITEMS + event.item)
                        self.trade_times_ns.append(event.ts_event_ns)
                        self.trade_ids.append(event.trade_id)
                        self.symbols.append(names.setdefault(event.symbol, event.symbol))
            except BadFrame:  # the workers refused it, too
                continue


def prove_archive(db: QuestDB, store: ObjectStore, archive: LogArchive) -> ArchiveProof:
    """Compare the archive of a day with bronze.

    Each quote of the archive must have a row at its place in the log, and each row a quote. A trade of the archive may have
    its row at another place, because the exchange repeats trades when a connection begins. Imported rows do not count.
    Raises `StoreError` for a damaged archive.
    """
    quotes = trades = repeated = bronze_quotes = bronze_trades = missing_in_archive = missing_in_bronze = 0
    for partition in (each.partition for each in archive.partitions):
        places = _Places()
        places.collect(store, archive, partition)
        archived_quotes, archived_trades = np.asarray(places.quotes), np.asarray(places.trades)
        quote_rows = _stored_places(db, BRONZE_TICKS, archive.day, partition)
        trade_rows = np.concatenate([_stored_places(db, table, archive.day, partition) for table in _TRADE_TABLES])
        unmatched = np.flatnonzero(~np.isin(archived_trades, trade_rows))
        without_row = _without_row(db, places, unmatched)
        quotes += len(archived_quotes)
        bronze_quotes += len(quote_rows)
        trades += len(archived_trades)
        bronze_trades += len(trade_rows)
        repeated += len(unmatched) - without_row
        missing_in_archive += int((~np.isin(quote_rows, archived_quotes)).sum())
        missing_in_archive += int((~np.isin(trade_rows, archived_trades)).sum())
        missing_in_bronze += int((~np.isin(archived_quotes, quote_rows)).sum()) + without_row
    return ArchiveProof(
        quotes=quotes,
        bronze_quotes=bronze_quotes,
        trades=trades,
        repeated_trades=repeated,
        bronze_trades=bronze_trades,
        missing_in_archive=missing_in_archive,
        missing_in_bronze=missing_in_bronze,
    )


def rows_from_log(db: QuestDB, day: str) -> int:
    """The number of quotes and trades in bronze that were received from the exchange on a day."""
    counts = (
        db.execute(f"SELECT count() FROM {table.name} WHERE kafka_partition >= 0 AND {_received_on(day)}")  # noqa: S608 - names of the catalogue
        for table in (BRONZE_TICKS, *_TRADE_TABLES)
    )
    return sum(int(rows[0][0]) for rows in counts)


def days_without_archive(settings: Settings, db: QuestDB, store: ObjectStore, now: int) -> list[str]:
    """The days that the log may still hold whole, that should be archived by now, and that have no archive; oldest first.

    Days without quotes and trades from the exchange need none.
    """
    hours_kept = min(settings.kafka.retention_hours, settings.backup.log_days * 24)
    due_ns = now - round(settings.seal.gap_wait_h * 3_600 + settings.seal.grace_s + ARCHIVE_SLACK_S) * NS_PER_S
    first = max(settings.seal.first_day, day_of(now - hours_kept * 3_600 * NS_PER_S + NS_PER_DAY - 1))
    days = [day_of(ns) for ns in range(day_ns(first), due_ns - NS_PER_DAY + 1, NS_PER_DAY)]
    archived = set(archived_days(store))
    return [day for day in days if day not in archived and rows_from_log(db, day)]


def _received_on(day: str) -> str:
    begin_ns = day_ns(day)
    return within("ts_recv", begin_ns, begin_ns + NS_PER_DAY)


def _stored_places(db: QuestDB, table: Table, day: str, partition: int) -> np.ndarray:
    """The places of the rows of one partition that were received on a day."""
    rows = db.query(
        f"SELECT kafka_offset, frame_item FROM {table.name} "  # noqa: S608 - names of the catalogue
        f"WHERE kafka_partition = {partition} AND {_received_on(day)}"
    )
    return np.asarray(rows["kafka_offset"].to_numpy().astype(np.int64) * _MAX_ITEMS + rows["frame_item"].to_numpy())


def _without_row(db: QuestDB, places: _Places, unmatched: np.ndarray) -> int:
    """How many of these trades have no row with their symbol, id and time at any place."""
    missing = 0
    by_time = unmatched[np.argsort(np.asarray(places.trade_times_ns)[unmatched])] if len(unmatched) else unmatched
    for start in range(0, len(by_time), PIECE):
        chosen = by_time[start : start + PIECE].tolist()
        keys = [(places.symbols[at], places.trade_times_ns[at], places.trade_ids[at]) for at in chosen]
        stored = _stored_trades(db, keys)
        missing += sum(key not in stored for key in keys)
    return missing


def _stored_trades(db: QuestDB, keys: Iterable[tuple[str, int, int]]) -> set[tuple[str, int, int]]:
    """Symbol, time and id of the stored trades in the time range of these keys."""
    times = [ts_ns for _, ts_ns, _ in keys]
    found: set[tuple[str, int, int]] = set()
    for table in _TRADE_TABLES:
        rows = db.query(
            f"SELECT symbol, cast(ts_event AS LONG) AS ts_ns, trade_id FROM {table.name} "  # noqa: S608 - names of the catalogue
            f"WHERE {within('ts_event', min(times), max(times) + 1)}"
        )
        found.update(zip(*(rows[name].to_pylist() for name in ("symbol", "ts_ns", "trade_id")), strict=True))
    return found
