"""Minute bars made from the stored trades, for the minutes of imported trades.

What does not belong here: bars of files (`bar_import`), and the bars of sealed days (`gold`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, column_ns, now_ns
from btc_core.days.bar_import import stored_bars
from btc_core.exchanges.history import TRADES, bars_of_trades
from btc_core.market.bars import bars_of_table
from btc_core.market.checked_bars import have_equal_values
from btc_core.stores.questdb import write_rows
from btc_core.tables.catalogue import MINUTE_BARS
from btc_core.tables.rows import minute_bars
from btc_core.tables.sql import of_symbol, within

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.stores.questdb import QuestDB

SOURCE = "bronze"
"""Value of the column `source` of bars that are made here."""
PIECE_NS = 7 * NS_PER_DAY
"""The trades of this time are read at once: at most some hundred MB of a busy market."""
FROM_STORED_TRADES = (SOURCE, "sealed")
"""Sources of bars that may be made from the stored trades again. All others came from elsewhere and stay."""


class BarChanges(msgspec.Struct, frozen=True):
    """How many bars were written."""

    new: int
    changed: int


def minutes_of(ts_ns: np.ndarray) -> np.ndarray:
    """The minutes of these times, each once, in ns."""
    return np.unique(ts_ns // NS_PER_MIN) * NS_PER_MIN


def update_bars(db: QuestDB, symbol: str, minutes: np.ndarray, may_create: np.ndarray) -> BarChanges:
    """Make the bars of some minutes (in ns, sorted) from the trades in bronze.

    A bar that was made from stored trades is made again if it has changed. A minute without a bar gets one where the
    mask `may_create` is true and the minute is over. Bars from the exchange or from files stay as they are.
    """
    is_over = minutes + NS_PER_MIN <= now_ns()
    minutes, may_create = minutes[is_over], may_create[is_over]
    pieces = minutes // PIECE_NS
    new: list[pa.Table] = []
    changed: list[pa.Table] = []
    for piece in np.unique(pieces).tolist():
        is_inside = pieces == piece
        for rows, is_stored in _bars_of_piece(db, symbol, minutes[is_inside], may_create[is_inside]):
            (changed if is_stored else new).append(rows)
    if new or changed:
        write_rows(db, MINUTE_BARS, pa.concat_tables([*new, *changed]))
    return BarChanges(sum(map(len, new)), sum(map(len, changed)))


def make_bars(db: QuestDB, symbol: str, ts_ns: np.ndarray, left_out_ns: np.ndarray) -> BarChanges:
    """Make the bars of the minutes of a file of trades with these times, once its trades are stored.

    A minute without a bar gets one only if all of its trades are known: not if trades at the times `left_out_ns` were
    left out, and not if the file may begin or end inside of it.
    """
    minutes = minutes_of(ts_ns)
    may_create = _whole_minutes(db, symbol, minutes, int(ts_ns[0]), int(ts_ns[-1]))
    return update_bars(db, symbol, minutes, may_create & ~np.isin(minutes, minutes_of(left_out_ns)))


def remake_bars(db: QuestDB, symbol: str, minutes: np.ndarray) -> None:
    """Write the bars of those minutes (in ns, sorted) that stored trades cover, whatever bars the minutes have.

    Trades cover a minute if there are trades in it and in both minutes beside it. A minute of another UTC day need not
    have trades.
    """
    for piece in np.unique(minutes // PIECE_NS).tolist():
        wanted = minutes[minutes // PIECE_NS == piece]
        trades = _stored_trades(db, symbol, int(wanted[0]) - NS_PER_MIN, int(wanted[-1]) + 2 * NS_PER_MIN)
        bars = bars_of_trades(trades)
        opens = bars["ts_ns"]
        is_covered = np.isin(opens, wanted)
        for beside, is_other_day in (
            (opens - NS_PER_MIN, opens % NS_PER_DAY == 0),
            (opens + NS_PER_MIN, (opens + NS_PER_MIN) % NS_PER_DAY == 0),
        ):
            is_covered &= np.isin(beside, opens) | is_other_day
        write_rows(db, MINUTE_BARS, minute_bars(bars[is_covered], symbol, SOURCE))


def _whole_minutes(db: QuestDB, symbol: str, minutes: np.ndarray, first_ns: int, last_ns: int) -> np.ndarray:
    """The mask of the minutes that a file covers wholly, if its trades go from `first_ns` to `last_ns`.

    The first or last minute counts as whole only at the border of a UTC day, where exchanges cut their files, or if
    stored trades continue it beyond the file.
    """
    is_whole = np.ones(len(minutes), bool)
    begin_ns = first_ns // NS_PER_MIN * NS_PER_MIN
    end_ns = last_ns // NS_PER_MIN * NS_PER_MIN + NS_PER_MIN
    if begin_ns % NS_PER_DAY and not _has_trades(db, symbol, begin_ns, first_ns):
        is_whole[minutes == begin_ns] = False
    if end_ns % NS_PER_DAY and not _has_trades(db, symbol, last_ns + 1, end_ns):
        is_whole[minutes == end_ns - NS_PER_MIN] = False
    return is_whole


def _has_trades(db: QuestDB, symbol: str, begin_ns: int, end_ns: int) -> bool:
    where = f"{of_symbol(symbol)} AND {within('ts_event', begin_ns, end_ns)}"
    return bool(db.execute(f"SELECT count() FROM bronze_trades WHERE {where}")[0][0])  # noqa: S608 - names of the catalogue


def _bars_of_piece(
    db: QuestDB, symbol: str, minutes: np.ndarray, may_create: np.ndarray
) -> Iterator[tuple[pa.Table, bool]]:
    """The bars to write of some minutes as rows of `minute_bars`, and whether they change stored bars."""
    rows = stored_bars(db, symbol, int(minutes[0]), int(minutes[-1]) + NS_PER_MIN)
    stored, sources = bars_of_table(rows), np.array(rows["source"].to_pylist(), str)
    is_ours = np.isin(sources, FROM_STORED_TRADES)
    has_bar, has_our_bar = np.isin(minutes, stored["ts_ns"]), np.isin(minutes, stored["ts_ns"][is_ours])
    wanted = minutes[has_our_bar | (may_create & ~has_bar)]
    if not len(wanted):
        return
    bars = bars_of_trades(_stored_trades(db, symbol, int(wanted[0]), int(wanted[-1]) + NS_PER_MIN))
    bars = bars[np.isin(bars["ts_ns"], wanted)]
    _, here, there = np.intersect1d(bars["ts_ns"], stored["ts_ns"], assume_unique=True, return_indices=True)
    yield minute_bars(np.delete(bars, here), symbol, SOURCE), False
    is_other = ~have_equal_values(bars[here], stored[there]) | (bars["trades"][here] != stored["trades"][there])
    for source in FROM_STORED_TRADES:
        yield minute_bars(bars[here][is_other & (sources[there] == source)], symbol, source), True


def _stored_trades(db: QuestDB, symbol: str, begin_ns: int, end_ns: int) -> np.ndarray:
    """Trades of bronze (dtype `exchanges.history.TRADES`) in a time range, in order of time and id."""
    rows = db.query(
        f"SELECT ts_event, trade_id, price, qty FROM bronze_trades WHERE {of_symbol(symbol)} "  # noqa: S608 - names of the catalogue
        f"AND {within('ts_event', begin_ns, end_ns)}"
    )
    trades = np.zeros(len(rows), TRADES)
    trades["ts_ns"] = column_ns(rows["ts_event"])
    for name in ("trade_id", "price", "qty"):
        trades[name] = rows[name].to_numpy()
    return trades[np.lexsort((trades["trade_id"], trades["ts_ns"]))]
