"""The events of a stored day, in the order of the stream and with late trades in their place, and their replay.

What does not belong here: comparing replayed rows with stored ones (`silver_proof`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from btc_core.clock import NS_PER_DAY, NS_PER_S
from btc_core.days.trade_matching import pairs_of_ids
from btc_core.features.catalogue import ROW
from btc_core.features.fold import EMIT_NONE, EMIT_TICKS, fold
from btc_core.features.leader import LEADER_MEMORY_S
from btc_core.features.state import EVENT, EVENT_FIELDS, WARM_UP_S, new_state, slot_of
from btc_core.market.continuity import SAME_PERIOD_NS, TradeIntake
from btc_core.market.events import BAR, LEAD_QUOTE, LEAD_TRADE, QUOTE, TRADE, TradeEvent
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
     ("item", "i4"), ("trade_id", "i8"), ("is_correction", "?")],
    align=True,
)  # fmt: skip
"""An event with its place in the log. The partition is −1 for an imported trade, which never was in the log."""

_TIMES = "cast(ts_event AS LONG) AS ts_ns, cast(ts_recv AS LONG) AS recv_ns"
_PLACE = "kafka_partition, kafka_offset, frame_item"
_TRADE = "price, qty, CASE WHEN side = 'buy' THEN 1.0 ELSE -1.0 END AS sign, trade_id"
_CORRECTIONS = "bronze_trade_corrections"
_READS = (
    (QUOTE, "bronze_ticks", ", ".join(EVENT_FIELDS[QUOTE])),
    (TRADE, "bronze_trades", _TRADE),
    (TRADE, _CORRECTIONS, _TRADE),
    (BAR, "bronze_bars", ", ".join(EVENT_FIELDS[BAR])),
)
"""The kind of event of each table, and the columns that make an event."""


class DayOrders(msgspec.Struct, frozen=True):
    """The events around a day in two orders."""

    streamed: np.ndarray
    """As the stream folded them: in the order of the log, without late trades."""
    truth: np.ndarray
    """As they should be folded: every late or imported trade at its place."""
    moved_trades: int
    """The number of late and imported trades."""
    largest_move_s: float
    """The most that the place of a late trade disagrees with its time."""


def events_around(db: QuestDB, symbol: str, day: str) -> np.ndarray:
    """All events that can influence the rows of a day: those of the day and of the warm-up window before it."""
    begin_ns = day_ns(day)
    return read_events(db, symbol, begin_ns - WARM_UP_S * NS_PER_S - MARGIN_NS, begin_ns + NS_PER_DAY + MARGIN_NS)


def read_events(db: QuestDB, symbol: str, begin_ns: int, end_ns: int) -> np.ndarray:
    """Bronze events with an exchange time in a range, dtype `LOGGED`, in the order of the log."""
    parts = []
    for kind, table, columns in _READS:
        found = db.query(
            f"SELECT {_TIMES}, {columns}, {_PLACE} FROM {table} "  # noqa: S608 - names made here
            f"WHERE {of_symbol(symbol)} AND {within('ts_event', begin_ns, end_ns)}"
        )
        events = np.zeros(len(found), LOGGED)
        events["kind"] = kind
        events["is_correction"] = table == _CORRECTIONS
        for name, column in (("partition", "kafka_partition"), ("offset", "kafka_offset"), ("item", "frame_item")):
            events[name] = found[column].to_numpy()
        for name in EVENT_FIELDS[kind]:
            events[slot_of(kind, name)] = found[name].to_numpy()
        for name in ("ts_ns", "recv_ns", *(("trade_id",) if kind == TRADE else ())):
            events[name] = found[name].to_numpy()
        parts.append(events)
    events = np.concatenate(parts)
    return in_log_order(events)


def leader_events(db: QuestDB, leader: str, day: str) -> np.ndarray:
    """The events of the leading market that the stream handed to the other markets around a day, dtype `LOGGED`.

    Late trades of the leader are left out, as in the stream.
    """
    streamed = orders(events_around(db, leader, day)).streamed
    return for_followers(streamed[streamed["ts_ns"] >= day_ns(day) - LEADER_MEMORY_S * NS_PER_S - MARGIN_NS])


def for_followers(streamed: np.ndarray) -> np.ndarray:
    """The quotes and trades of the leader (dtype `LOGGED`) as the folds of other markets read them."""
    events: np.ndarray = streamed[gives_row(streamed)].copy()
    is_quote = events["kind"] == QUOTE
    mid = 0.5 * (events[slot_of(QUOTE, "bid")] + events[slot_of(QUOTE, "ask")])
    qty = events[slot_of(TRADE, "qty")].copy()
    events[slot_of(LEAD_QUOTE, "mid")] = np.where(is_quote, mid, qty)
    events["kind"] = np.where(is_quote, LEAD_QUOTE, LEAD_TRADE)
    return events


def in_log_order(events: np.ndarray) -> np.ndarray:
    """Return events (dtype `LOGGED`) in the order of the log; those of one place keep their order."""
    return events[np.lexsort((events["item"], events["offset"], events["partition"]))]


def orders(events: np.ndarray) -> DayOrders:
    """Order the events around a day (dtype `LOGGED`, in the order of the log).

    The decision about each trade is that of `TradeIntake`, which the stream uses. A trade is late if it filled a gap.
    """
    logged, imported = events[events["partition"] >= 0], events[events["partition"] < 0]
    folded, epochs = _decisions(logged)
    streamed = logged[folded]
    late = ~folded & ~logged["is_correction"]
    moved = np.concatenate([logged[late], _not_logged(imported, logged)])
    if not len(moved):
        return DayOrders(streamed, streamed, 0, 0.0)
    moved_epochs = np.concatenate([epochs[late], np.full(len(moved) - int(late.sum()), _NO_EPOCH)])
    places, move_ns = _places(streamed, epochs[folded], moved, moved_epochs)
    everything = np.concatenate([streamed, moved])
    place = np.concatenate([np.arange(len(streamed)) * 2, places])
    truth = everything[np.lexsort((everything["trade_id"], everything["ts_ns"], place))]
    return DayOrders(streamed, truth, len(moved), move_ns / NS_PER_S)


_NO_EPOCH = -1
"""The epoch of an event that is no trade, and of an imported trade."""


def _decisions(logged: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether the stream folded each event, and the epoch of each trade; an outlier has an epoch of its own."""
    folded = np.ones(len(logged), bool)
    epochs = np.full(len(logged), _NO_EPOCH)
    intake = TradeIntake()
    in_doubt = -1
    trades = np.flatnonzero(logged["kind"] == TRADE)
    names = ("ts_ns", "item", "trade_id", slot_of(TRADE, "price"), slot_of(TRADE, "qty"), "recv_ns")
    columns = zip(*(logged[name][trades].tolist() for name in names), strict=True)
    for at, (ts_ns, item, trade_id, price, qty, recv_ns) in zip(trades.tolist(), columns, strict=True):
        decision = intake.take(TradeEvent("", ts_ns, item, trade_id, price, qty, "", ""), recv_ns)
        is_correction = bool(logged["is_correction"][at])
        if decision.settled == "outlier" and in_doubt >= 0:
            epochs[in_doubt] = _NO_EPOCH - 1 - in_doubt
        if decision.folded or decision.in_doubt:
            in_doubt = at if decision.in_doubt and not is_correction else -1
        folded[at] = decision.folded and not is_correction
        epochs[at] = decision.epoch
    return folded, epochs


def _not_logged(imported: np.ndarray, logged: np.ndarray) -> np.ndarray:
    """Imported trades that no trade of the log has: none has the same id at about the same time.

    The time matters because the exchange may have used the id before, in another numbering.
    """
    trades = logged[logged["kind"] == TRADE]
    here, there = pairs_of_ids(imported["trade_id"], trades["trade_id"])
    is_logged = np.zeros(len(imported), bool)
    is_logged[here[np.abs(imported["ts_ns"][here] - trades["ts_ns"][there]) <= SAME_PERIOD_NS]] = True
    return imported[~is_logged]


def _places(
    streamed: np.ndarray, epochs: np.ndarray, moved: np.ndarray, moved_epochs: np.ndarray
) -> tuple[np.ndarray, int]:
    """The place of each moved trade among the streamed events, whose places are twice their index.

    A trade is placed by its time, but between the lower and the higher ids of its epoch. Also returns the largest
    difference between the time of a trade and the time at its place, ns.
    """
    close_ns = streamed["ts_ns"] + np.where(streamed["kind"] == BAR, _BAR_NS, 0)
    close_ns = np.where(streamed["kind"] <= BAR, close_ns, 0)  # the others do not move the clock of the fold
    clock_ns = np.maximum.accumulate(close_ns) if len(streamed) else close_ns
    places = np.asarray(2 * np.searchsorted(clock_ns, moved["ts_ns"], side="right") - 1)
    for epoch in np.unique(moved_epochs[moved_epochs != _NO_EPOCH]).tolist():
        trades = np.flatnonzero(epochs == epoch)
        if not len(trades):
            continue
        of_epoch = np.flatnonzero(moved_epochs == epoch)
        following = np.searchsorted(streamed["trade_id"][trades], moved["trade_id"][of_epoch])
        last = len(trades) - 1
        lowest = np.where(following > 0, 2 * trades[np.clip(following - 1, 0, last)] + 1, -1)
        highest = np.where(following <= last, 2 * trades[np.minimum(following, last)] - 1, 2 * len(streamed))
        places[of_epoch] = np.clip(places[of_epoch], lowest, highest)
    if not len(streamed):
        return places, 0
    after = np.clip((places + 1) // 2, 0, len(streamed) - 1)
    before = np.clip(after - 1, 0, len(streamed) - 1)
    too_early, too_late = moved["ts_ns"] - clock_ns[after], clock_ns[before] - moved["ts_ns"]
    at_end, at_begin = places > 2 * (len(streamed) - 1), places < 0
    moves_ns = np.maximum(np.where(at_end, 0, too_early), np.where(at_begin, 0, too_late))
    return places, int(max(0, moves_ns[moved_epochs != _NO_EPOCH].max(initial=0)))


def replay(events: np.ndarray, begin_ns: int, end_ns: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Fold events in the given order, and yield the quotes and trades from `begin_ns` up to `end_ns` with their rows."""
    for part in by_partition(events):
        yield from _replay(part, begin_ns, end_ns)


def by_partition(events: np.ndarray) -> list[np.ndarray]:
    """The events of each partition, which are folded on their own, as in the stream.

    A market has several partitions only if `BTC_LEADER` or the number of partitions was changed.
    """
    logged = events["partition"][events["partition"] >= 0]
    if not len(logged) or logged.min() == logged.max():
        return [events]
    partitions = np.where(events["partition"] < 0, logged.min(), events["partition"])
    return [events[partitions == partition] for partition in np.unique(partitions)]


def _replay(events: np.ndarray, begin_ns: int, end_ns: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    inside = gives_row(events) & (events["ts_ns"] >= begin_ns) & (events["ts_ns"] < end_ns)
    wanted = np.flatnonzero(inside)
    if not len(wanted):
        return
    state = new_state()
    fold(state, for_fold(events[: wanted[0]]), np.empty(0, ROW), EMIT_NONE)
    for start in range(int(wanted[0]), int(wanted[-1]) + 1, CHUNK):
        stop = min(start + CHUNK, int(wanted[-1]) + 1)
        part = events[start:stop]
        ticks = gives_row(part)
        rows = np.empty(int(ticks.sum()), ROW)
        fold(state, for_fold(part), rows, EMIT_TICKS)
        yield part[inside[start:stop]], rows[inside[start:stop][ticks]]


def gives_row(events: np.ndarray) -> np.ndarray:
    """The mask of the quotes and trades."""
    return np.asarray((events["kind"] == QUOTE) | (events["kind"] == TRADE))


def for_fold(events: np.ndarray) -> np.ndarray:
    """The events as the fold reads them, dtype `EVENT`."""
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
        found |= {row[0] for row in db.execute(f"SELECT DISTINCT symbol FROM {name} WHERE {where}")}  # noqa: S608 - names made here
    return sorted(found)
