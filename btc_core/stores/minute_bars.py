"""Minute bars in QuestDB: reading what is stored, and which of them the forecast worker has used.

What does not belong here: what a bar is (`market.bars`), or how one becomes a row (`tables.rows`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from btc_core.clock import NS_PER_DAY, column_ns
from btc_core.market.bars import BARS, FILE_COLUMNS, bars_of_table
from btc_core.tables.proof_tables import FORECAST_MINUTES
from btc_core.tables.sql import of_symbol, within

if TYPE_CHECKING:
    import pyarrow as pa

    from btc_core.stores.questdb import QuestDB


def read_stored(db: QuestDB, symbol: str, days: float) -> np.ndarray:
    """Stored bars of the last `days` before the newest one, dtype `BARS`, oldest first."""
    newest = db.execute(f"SELECT cast(max(ts) AS LONG) FROM minute_bars WHERE {of_symbol(symbol)}")  # noqa: S608 - a quoted symbol
    if not newest or newest[0][0] is None:
        return np.empty(0, BARS)
    since_ns = int(newest[0][0]) - int(days * NS_PER_DAY)
    columns = ", ".join((*FILE_COLUMNS, "trades"))
    return bars_of_table(
        db.query(
            f"SELECT {columns} FROM minute_bars WHERE {of_symbol(symbol)} "  # noqa: S608 - a quoted symbol
            f"AND ts > cast({since_ns} AS TIMESTAMP_NS) ORDER BY ts"
        )
    )


def newest_recorded(rows: pa.Table) -> np.ndarray:
    """The row of each minute that was taken last (columns of `gold_forecast_minutes`), dtype `BARS`, oldest first.

    A minute that was unknown has NaN in its prices.
    """
    bars = bars_of_table(rows)
    order = np.lexsort((column_ns(rows["taken_at"]), bars["ts_ns"]))
    bars = bars[order]
    is_last = np.append(np.diff(bars["ts_ns"]) != 0, np.ones(min(1, len(bars)), bool))
    chosen: np.ndarray = bars[is_last]
    return chosen


def changed_minutes(db: QuestDB, symbol: str, bars: np.ndarray, until_ns: int) -> np.ndarray:
    """The minutes of `bars` (dtype `BARS`) that differ from those that the forecast worker has recorded.

    A minute that was recorded before `until_ns` and has no bar is among them, with NaN for its prices: after a long outage,
    the worker does not know the newest minutes of its last run unless they have been stored.
    """
    names = ", ".join((*FILE_COLUMNS, "taken_at"))
    since_ns = int(bars["ts_ns"][0]) if len(bars) else until_ns  # without bars, nothing is known to be lost
    recorded = newest_recorded(
        db.query(
            f"SELECT {names} FROM {FORECAST_MINUTES.name} WHERE {of_symbol(symbol)} "  # noqa: S608 - names of the catalogue
            f"AND {within('ts', since_ns, until_ns)}"
        )
    )
    place = np.searchsorted(recorded["ts_ns"], bars["ts_ns"])
    is_known = np.zeros(len(bars), bool)
    inside = np.flatnonzero(place < len(recorded))
    same = recorded[place[inside]]
    is_known[inside] = np.logical_and.reduce(
        [same[name] == bars[name][inside] for name in ("ts_ns", *FILE_COLUMNS[1:])]
    )
    lost = recorded[~np.isin(recorded["ts_ns"], bars["ts_ns"]) & ~np.isnan(recorded["close"])].copy()
    for name in FILE_COLUMNS[1:]:
        lost[name] = np.nan
    changed: np.ndarray = np.concatenate([bars[~is_known], lost])
    return changed


def count_stored(db: QuestDB, symbol: str) -> int:
    """The number of stored bars of a market."""
    return int(db.execute(f"SELECT count() FROM minute_bars WHERE {of_symbol(symbol)}")[0][0])  # noqa: S608 - a quoted symbol
