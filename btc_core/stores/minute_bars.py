"""Minute bars in QuestDB: reading what is stored.

What does not belong here: what a bar is (`market.bars`), or how one becomes a row (`tables.rows`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from btc_core.clock import NS_PER_DAY
from btc_core.market.bars import BARS, FILE_COLUMNS, bars_of_table
from btc_core.tables.sql import of_symbol

if TYPE_CHECKING:
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


def count_stored(db: QuestDB, symbol: str) -> int:
    """The number of stored bars of a market."""
    return int(db.execute(f"SELECT count() FROM minute_bars WHERE {of_symbol(symbol)}")[0][0])  # noqa: S608 - a quoted symbol
