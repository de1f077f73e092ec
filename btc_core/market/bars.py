"""Minute bars as numpy arrays: their dtype, and bars of tables and events.

What does not belong here: checks of bars (`checked_bars`), bars of files (`days.bar_files`), features of bars
(`features.bar_features`), or requesting bars from an exchange (`exchanges`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Sequence

    from btc_core.market.events import BarEvent


PRICES = ("open", "high", "low", "close")
FILE_COLUMNS = ("ts", *PRICES, "volume")
BARS = np.dtype(
    [("ts_ns", "i8"), *((name, "f8") for name in PRICES), ("volume", "f8"), ("trades", "i8")],
    align=True,
)
"""One-minute bars: the time of the open in ns, prices in USD, volume in BTC, number of trades (−1 if unknown)."""


def bars_of_events(events: Sequence[BarEvent]) -> np.ndarray:
    """Convert events to bars of dtype `BARS` in the same order. The number of trades is unknown (−1)."""
    columns = [
        (event.ts_event_ns, event.open, event.high, event.low, event.close, event.volume, -1) for event in events
    ]
    return np.array(columns, BARS)


def bars_of_table(table: pa.Table) -> np.ndarray:
    """Convert an Arrow table with the columns of the table `minute_bars` to bars of dtype `BARS` in the same order."""
    bars = np.zeros(len(table), BARS)
    bars["ts_ns"] = table["ts"].cast(pa.timestamp("ns")).cast(pa.int64()).to_numpy()
    for name in FILE_COLUMNS[1:]:
        bars[name] = table[name].cast(pa.float64()).to_numpy()
    bars["trades"] = table["trades"].to_numpy() if "trades" in table.column_names else -1
    return bars
