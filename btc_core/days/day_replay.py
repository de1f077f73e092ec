"""A day's bronze rows as events, in the order the stream folded them and in the order they belong, and their replay.

What does not belong here: comparing the rows with what is stored (`proof`).
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
"""Around the warm-up window and the day: the log is in the order of receipt, tables are in that of the exchange."""
CHUNK = 50_000
"""Events folded at a time: 40 MB of rows."""
_BAR_NS = 60 * NS_PER_S

LOGGED = np.dtype(
    [*((name, EVENT[name]) for name in EVENT.names or ()), ("recv_ns", "i8"), ("partition", "i4"), ("offset", "i8"),
     ("item", "i4"), ("trade_id", "i8")],
    align=True,
)  # fmt: skip
"""An event with its place in the log; partition −1 for a trade that never was in the log."""

_TIMES = "cast(ts_event AS LONG) AS ts_ns, cast(ts_recv AS LONG) AS recv_ns"
_PLACE = "kafka_partition, kafka_offset, frame_item"
_READS = {
    QUOTE: ("bronze_ticks", ", ".join(EVENT_FIELDS[QUOTE])),
    TRADE: ("bronze_trades", "price, qty, CASE WHEN side = 'buy' THEN 1.0 ELSE -1.0 END AS sign, trade_id"),
    BAR: ("bronze_bars", ", ".join(EVENT_FIELDS[BAR])),
}
"""The table of each kind of event, and the columns that make an event."""


def events_around(db: QuestDB, symbol: str, day: str) -> np.ndarray:
    """Everything that can bear on a day's rows: its events and those of the warm-up window before."""
    begin_ns = day_ns(day)
    return read_events(db, symbol, begin_ns - WARM_UP_S * NS_PER_S - MARGIN_NS, begin_ns + NS_PER_DAY + MARGIN_NS)


def read_events(db: QuestDB, symbol: str, begin_ns: int, end_ns: int) -> np.ndarray:
    """Events of bronze with an exchange time in a range, dtype `LOGGED`, in the order of the log."""
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
    """The events as the stream folded them, as they should be folded, and how many trades were late or imported.

    A trade is late when a higher trade_id came before it: it filled a gap.
    """
    placed, imported = events[events["partition"] >= 0], events[events["partition"] < 0]
    ids = np.where(placed["kind"] == TRADE, placed["trade_id"], np.iinfo(np.int64).min)
    before = np.concatenate([[np.iinfo(np.int64).min], np.maximum.accumulate(ids)[:-1]]) if len(ids) else ids
    late = (placed["kind"] == TRADE) & (ids < before)
    streamed = placed[~late]
    moved = np.concatenate([placed[late], _without_known(imported, placed)])
    if not len(moved):
        return streamed, streamed, 0
    place = np.concatenate([np.arange(len(streamed)) * 2, _places(streamed, moved)])
    everything = np.concatenate([streamed, moved])
    return streamed, everything[np.lexsort((everything["trade_id"], everything["ts_ns"], place))], len(moved)


def _without_known(imported: np.ndarray, placed: np.ndarray) -> np.ndarray:
    known = placed["trade_id"][placed["kind"] == TRADE]
    return imported[~np.isin(imported["trade_id"], known)]


def _places(streamed: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Where each moved trade belongs among the streamed events (at twice their index): before the next trade_id.

    Imported trades, and those after the last id, go by the fold's clock.
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
    """Fold events in their order; the quotes and trades from `begin_ns` up to before `end_ns` with their rows."""
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
    """Markets with bronze rows on a day."""
    begin_ns = day_ns(day)
    where = within("ts_event", begin_ns, begin_ns + NS_PER_DAY)
    found: set[str] = set()
    for name in ("bronze_ticks", "bronze_trades"):
        found |= {row[0] for row in db.execute(f"SELECT DISTINCT symbol FROM {name} WHERE {where}")}  # noqa: S608 - the same
    return sorted(found)
