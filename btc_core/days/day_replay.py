"""The events of a stored day, in the order of the stream and in the order of the trade ids, and their replay.

What does not belong here: comparing replayed rows with stored ones (`silver_proof`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from btc_core.clock import NS_PER_DAY, NS_PER_S
from btc_core.features.catalogue import ROW
from btc_core.features.fold import EMIT_NONE, EMIT_TICKS, fold
from btc_core.features.state import EVENT, EVENT_FIELDS, WARM_UP_S, new_state, slot_of
from btc_core.market.events import BAR, QUOTE, TRADE
from btc_core.tables.sql import of_symbol, within
from btc_core.utc_day import day_ns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.stores.questdb import QuestDB

MARGIN_NS = 1_200 * NS_PER_S
"""A margin around the warm-up window and the day. The log is ordered by receipt, and tables are ordered by exchange time."""
CHUNK = 50_000
"""The number of events folded at a time: 40 MB of rows."""
_BAR_NS = 60 * NS_PER_S

LOGGED = np.dtype(
    [*((name, EVENT[name]) for name in EVENT.names or ()), ("recv_ns", "i8"), ("partition", "i4"), ("offset", "i8"),
     ("item", "i4"), ("trade_id", "i8")],
    align=True,
)  # fmt: skip
"""An event with its place in the log. The partition is −1 for an imported trade, which never was in the log."""

_TIMES = "cast(ts_event AS LONG) AS ts_ns, cast(ts_recv AS LONG) AS recv_ns"
_PLACE = "kafka_partition, kafka_offset, frame_item"
_READS = {
    QUOTE: ("bronze_ticks", ", ".join(EVENT_FIELDS[QUOTE])),
    TRADE: ("bronze_trades", "price, qty, CASE WHEN side = 'buy' THEN 1.0 ELSE -1.0 END AS sign, trade_id"),
    BAR: ("bronze_bars", ", ".join(EVENT_FIELDS[BAR])),
}
"""The table of each kind of event, and the columns that make an event."""


def events_around(db: QuestDB, symbol: str, day: str) -> np.ndarray:
    """All events that can influence the rows of a day: those of the day and of the warm-up window before it."""
    begin_ns = day_ns(day)
    return read_events(db, symbol, begin_ns - WARM_UP_S * NS_PER_S - MARGIN_NS, begin_ns + NS_PER_DAY + MARGIN_NS)


def read_events(db: QuestDB, symbol: str, begin_ns: int, end_ns: int) -> np.ndarray:
    """Bronze events with an exchange time in a range, dtype `LOGGED`, in the order of the log."""
    parts = []
    for kind, (table, columns) in _READS.items():
        found = db.query(
            f"SELECT {_TIMES}, {columns}, {_PLACE} FROM {table} "  # noqa: S608 - names made here
            f"WHERE {of_symbol(symbol)} AND {within('ts_event', begin_ns, end_ns)}"
        )
        events = np.zeros(len(found), LOGGED)
        events["kind"] = kind
        for name, column in (("partition", "kafka_partition"), ("offset", "kafka_offset"), ("item", "frame_item")):
            events[name] = found[column].to_numpy()
        for name in EVENT_FIELDS[kind]:
            events[slot_of(kind, name)] = found[name].to_numpy()
        for name in ("ts_ns", "recv_ns", *(("trade_id",) if kind == TRADE else ())):
            events[name] = found[name].to_numpy()
        parts.append(events)
    events = np.concatenate(parts)
    return events[np.lexsort((events["item"], events["offset"], events["partition"]))]


def orders(events: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """The events as the stream folded them, as they should be folded, and the number of late or imported trades.

    A trade is late when a trade with a higher id came before it, that is, when it filled a gap.
    """
    logged, imported = events[events["partition"] >= 0], events[events["partition"] < 0]
    ids = np.where(logged["kind"] == TRADE, logged["trade_id"], np.iinfo(np.int64).min)
    before = np.concatenate([[np.iinfo(np.int64).min], np.maximum.accumulate(ids)[:-1]]) if len(ids) else ids
    late = (logged["kind"] == TRADE) & (ids < before)
    streamed = logged[~late]
    moved = np.concatenate([logged[late], _not_logged(imported, logged)])
    if not len(moved):
        return streamed, streamed, 0
    place = np.concatenate([np.arange(len(streamed)) * 2, _places(streamed, moved)])
    everything = np.concatenate([streamed, moved])
    return streamed, everything[np.lexsort((everything["trade_id"], everything["ts_ns"], place))], len(moved)


def _not_logged(imported: np.ndarray, logged: np.ndarray) -> np.ndarray:
    """Imported trades whose id no trade of the log has."""
    known = logged["trade_id"][logged["kind"] == TRADE]
    return imported[~np.isin(imported["trade_id"], known)]


def _places(streamed: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """The place of each moved trade among the streamed events, whose places are twice their index.

    A late trade goes before the next higher trade id. Imported trades, and trades after the last id, are placed by time.
    """
    close_ns = streamed["ts_ns"] + np.where(streamed["kind"] == BAR, _BAR_NS, 0)
    clock_ns = np.maximum.accumulate(close_ns) if len(streamed) else close_ns
    by_time = 2 * np.searchsorted(clock_ns, moved["ts_ns"], side="right") - 1
    trades = np.flatnonzero(streamed["kind"] == TRADE)
    if not len(trades):
        return np.asarray(by_time)
    following = np.searchsorted(streamed["trade_id"][trades], moved["trade_id"])
    known = (moved["partition"] >= 0) & (following < len(trades))
    return np.where(known, 2 * trades[np.minimum(following, len(trades) - 1)] - 1, by_time)


def replay(events: np.ndarray, begin_ns: int, end_ns: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Fold events in the given order, and yield the quotes and trades from `begin_ns` up to `end_ns` with their rows."""
    inside = (events["kind"] != BAR) & (events["ts_ns"] >= begin_ns) & (events["ts_ns"] < end_ns)
    wanted = np.flatnonzero(inside)
    if not len(wanted):
        return
    state = new_state()
    fold(state, _for_fold(events[: wanted[0]]), np.empty(0, ROW), EMIT_NONE)
    for start in range(int(wanted[0]), int(wanted[-1]) + 1, CHUNK):
        stop = min(start + CHUNK, int(wanted[-1]) + 1)
        part = events[start:stop]
        ticks = part["kind"] != BAR
        rows = np.empty(int(ticks.sum()), ROW)
        fold(state, _for_fold(part), rows, EMIT_TICKS)
        yield part[inside[start:stop]], rows[inside[start:stop][ticks]]


def _for_fold(events: np.ndarray) -> np.ndarray:
    plain = np.zeros(len(events), EVENT)
    for name in EVENT.names or ():
        plain[name] = events[name]
    return plain


def symbols_on(db: QuestDB, day: str) -> list[str]:
    """The markets that have bronze rows on a day."""
    begin_ns = day_ns(day)
    where = within("ts_event", begin_ns, begin_ns + NS_PER_DAY)
    found: set[str] = set()
    for name in ("bronze_ticks", "bronze_trades"):
        found |= {row[0] for row in db.execute(f"SELECT DISTINCT symbol FROM {name} WHERE {where}")}  # noqa: S608 - names of the catalogue
    return sorted(found)
