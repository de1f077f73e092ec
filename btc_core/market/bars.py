"""Minute bars: what one is, reading them from files, in the table.

What does not belong here: features of bars (`replay`), or asking the exchange for them (`exchange_rest`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from btc_core.clock import NS_PER_MIN, NS_PER_S
from btc_core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from btc_core.market.events import BarEvent


PRICES = ("open", "high", "low", "close")
FILE_COLUMNS = ("ts", *PRICES, "volume")
BARS = np.dtype(
    [("ts_ns", "i8"), *((name, "f8") for name in PRICES), ("volume", "f8"), ("trades", "i8")],
    align=True,
)
"""One-minute bars: open of the bar in ns, prices in USD, volume in BTC, number of trades (−1 when unknown)."""


def bars_of_events(events: Sequence[BarEvent]) -> np.ndarray:
    """Bars of events, dtype `BARS`, in their order; how many trades they had is not known."""
    columns = [
        (event.ts_event_ns, event.open, event.high, event.low, event.close, event.volume, -1) for event in events
    ]
    return np.array(columns, BARS)


def bars_from(numbers: npt.NDArray[np.float64], name: str) -> np.ndarray:
    """Bars of rows `time_s, open, high, low, close, volume, trades`, dtype `BARS`, sorted, without repeats.

    Raises `InvalidInput` that names the source and the first bar that cannot be: it would sit in every later window.
    """
    bars = np.zeros(len(numbers), BARS)
    bars["ts_ns"] = numbers[:, 0].astype(np.int64) * NS_PER_S
    for column, field in enumerate((*PRICES, "volume", "trades"), start=1):
        bars[field] = numbers[:, column]
    return sorted_bars(bars, name)


def sorted_bars(bars: np.ndarray, name: str) -> np.ndarray:
    """Checked, in order of time, the first of those with the same time; raises `InvalidInput`."""
    problems = {
        "is not on a whole minute": bars["ts_ns"] % NS_PER_MIN != 0,
        "has a price that is not above zero": ~np.all([bars[field] > 0 for field in PRICES], axis=0),
        "has a price that is not finite": ~np.all([np.isfinite(bars[field]) for field in PRICES], axis=0),
        "has a volume below zero or none": ~(bars["volume"] >= 0),
        "has its high below its low": bars["high"] < bars["low"],
    }
    for what, wrong in problems.items():
        if wrong.any():
            row = int(wrong.argmax())
            msg = f"{name}: bar {row + 1} (at {bars['ts_ns'][row]} ns) {what}; {int(wrong.sum())} such bars"
            raise InvalidInput(msg)
    return bars[np.unique(bars["ts_ns"], return_index=True)[1]]


def parse_csv(text: str, name: str) -> np.ndarray:
    """Bars of lines `time,open,high,low,close,volume,trades` (time in s, no header), as `bars_from`."""
    lines = text.split()
    try:
        numbers = np.array([line.split(",") for line in lines], np.float64).reshape(len(lines), 7)
    except ValueError as error:
        msg = f"{name}: not CSV of 7 numbers a line (time,open,high,low,close,volume,trades): {error}"
        raise InvalidInput(msg) from error
    return bars_from(numbers, name)


def read_bars(file: Path) -> np.ndarray:
    """Minute bars of a Parquet file (`ts, open, high, low, close, volume`) or a published CSV, as `sorted_bars`.

    Raises `InvalidInput` naming the file and what is wrong with it.
    """
    if not file.is_file():
        msg = f"{file} is not a file"
        raise InvalidInput(msg)
    if file.suffix != ".parquet":
        return parse_csv(file.read_text(), str(file))
    try:
        table = pq.read_table(file)
    except pa.ArrowInvalid as error:
        msg = f"{file}: not a Parquet file: {error}"
        raise InvalidInput(msg) from error
    missing = [name for name in FILE_COLUMNS if name not in table.column_names]
    if missing:
        msg = f"{file}: columns {', '.join(missing)} are missing; it has {', '.join(table.column_names)}"
        raise InvalidInput(msg)
    if not pa.types.is_timestamp(table["ts"].type):
        msg = f"{file}: ts is {table['ts'].type}; it must be a timestamp, the open of the bar"
        raise InvalidInput(msg)
    return sorted_bars(from_table(table), str(file))


def from_table(table: pa.Table) -> np.ndarray:
    """Bars of an Arrow table with the columns of `minute_bars`, dtype `BARS`, in its order."""
    bars = np.zeros(len(table), BARS)
    bars["ts_ns"] = table["ts"].cast(pa.timestamp("ns")).cast(pa.int64()).to_numpy()
    for name in FILE_COLUMNS[1:]:
        bars[name] = table[name].cast(pa.float64()).to_numpy()
    bars["trades"] = table["trades"].to_numpy() if "trades" in table.column_names else -1
    return bars
