"""The seal of a UTC day: whether the day is complete, and a hash of its bronze rows.

What does not belong here: proving what the stream computed of a day (`silver_proof`).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from btc_core.clock import NS_PER_DAY, NS_PER_S
from btc_core.names import TABLE_WRITERS
from btc_core.stores.kafka import first_group_behind
from btc_core.stores.questdb import applied
from btc_core.tables.catalogue import BRONZE_TICKS, BRONZE_TRADES, GAP_MARKS, MINUTE_BARS
from btc_core.tables.sql import of_symbol, on_day, within
from btc_core.utc_day import day_ns, day_of

if TYPE_CHECKING:
    from btc_core.settings import Settings
    from btc_core.stores.questdb import QuestDB

WRITTEN = ("bronze_ticks", "bronze_trades", "gap_marks", "silver_features")
"""Tables whose written rows must be readable before a day is sealed."""

_PRIME = 1_000_000_007
"""Columns are summed modulo this prime, so a sum stays far below 2^63 for any day."""
_LAST_IN_LOG = "max(CASE WHEN kafka_partition >= 0 THEN kafka_offset END)"
"""Fetched and imported trades have no partition, and their time in place of an offset."""
_CONTENTS = {
    BRONZE_TICKS: ("bid", "bid_qty", "ask", "ask_qty"),
    BRONZE_TRADES: ("price", "qty"),
}


class Seal(msgspec.Struct, frozen=True):
    """The state of a day at one moment; equal rows give equal ids."""

    day: str
    id: str
    rows: dict[str, int]
    last_offset: int
    """The highest log offset among its rows; −1 when none came from the log."""
    open_gaps: int


def seal_of(db: QuestDB, day: str) -> Seal:
    """The seal of a day's ticks and trades as they are now."""
    parts: list[str] = []
    rows: dict[str, int] = {}
    last_offset = -1
    for table, names in _CONTENTS.items():
        numbers = [f"cast(ts_event AS LONG) % {_PRIME}", f"kafka_offset % {_PRIME}"]
        numbers += [f"cast({name} * 100000000 AS LONG) % {_PRIME}" for name in names]
        sums = ", ".join(f"sum({number})" for number in numbers)
        aggregates = f"count(), max(kafka_offset), {sums}, {_LAST_IN_LOG}"
        *hashed, last = db.execute(f"SELECT {aggregates} FROM {table.name} WHERE {on_day(table, day)}")[0]  # noqa: S608 - names of the catalogue
        rows[table.name] = int(hashed[0])
        last_offset = max(last_offset, -1 if last is None else int(last))
        parts.append(repr(hashed))
    identity = hashlib.sha256("".join(parts).encode()).hexdigest()[:12]
    return Seal(day, identity, rows, last_offset, open_gaps(db, day))


def days_of_bars(db: QuestDB, symbol: str, since_ns: int, until_ns: int, source: str = "") -> set[str]:
    """The days of a time that have minute bars of a market, or have those of one source: `sealed` are made of sealed trades."""
    condition = f"{of_symbol(symbol)} AND {within('ts', since_ns, until_ns)}" + (source and f" AND source = '{source}'")
    days = db.execute(f"SELECT cast(ts AS LONG), count() FROM {MINUTE_BARS.name} WHERE {condition} SAMPLE BY 1d")  # noqa: S608 - names of the catalogue
    return {day_of(int(begin_ns)) for begin_ns, bars in days if bars}


def open_gaps(db: QuestDB, day: str) -> int:
    """The number of open gaps in the trades of a day."""
    return int(db.execute(f"SELECT count() FROM gap_marks WHERE state = 'open' AND {on_day(GAP_MARKS, day)}")[0][0])  # noqa: S608 - names of the catalogue


def sealing_blocker(settings: Settings, db: QuestDB, day: str, now: int) -> str:
    """What keeps a day from being sealed, in words; empty when nothing does.

    Raises `ServiceError` when a server that has to be asked does not answer.
    """
    end_ns = day_ns(day) + NS_PER_DAY
    settled_ns = end_ns + settings.seal.grace_s * NS_PER_S
    if now < settled_ns:
        return "the day and its grace are not over"
    behind = first_group_behind(settings.kafka, TABLE_WRITERS, settled_ns)
    if behind is not None:
        return str(behind)
    unread = [name for name in WRITTEN if not applied(db, name)]
    if unread:
        return f"rows of {', '.join(unread)} are written but not yet readable"
    gaps = open_gaps(db, day)
    if gaps and now < end_ns + settings.seal.gap_wait_h * 3_600 * NS_PER_S:
        return f"{gaps} gaps in the trades may still be repaired"
    return ""
