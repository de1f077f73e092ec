"""Minute bars as numpy arrays: their dtype, their checks, and reading them from files, tables and events.

What does not belong here: features of bars (`features.bar_features`), or requesting bars from an exchange (`exchanges`).
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
"""One-minute bars: the time of the open in ns, prices in USD, volume in BTC, number of trades (−1 if unknown)."""


def bars_of_events(events: Sequence[BarEvent]) -> np.ndarray:
    """Convert events to bars of dtype `BARS` in the same order. The number of trades is unknown (−1)."""
    columns = [
        (event.ts_event_ns, event.open, event.high, event.low, event.close, event.volume, -1) for event in events
    ]
    return np.array(columns, BARS)


def bars_of_rows(numbers: npt.NDArray[np.float64], name: str) -> np.ndarray:
    """Convert rows `time_s, open, high, low, close, volume, trades` to bars of dtype `BARS`, as `sorted_bars`."""
    bars = np.zeros(len(numbers), BARS)
    bars["ts_ns"] = numbers[:, 0].astype(np.int64) * NS_PER_S
    for column, field in enumerate((*PRICES, "volume", "trades"), start=1):
        bars[field] = numbers[:, column]
    return sorted_bars(bars, name)


def sorted_bars(bars: np.ndarray, name: str) -> np.ndarray:
    """Check bars and sort them by time; of several bars with the same time, keep the first.

    Raises `InvalidInput` with the name of the source and the first impossible bar. Such a bar would distort the
    features of every window that contains it.
    """
    problems = {
        "is not on a whole minute": bars["ts_ns"] % NS_PER_MIN != 0,
        "has a price that is not above zero": ~np.all([bars[field] > 0 for field in PRICES], axis=0),
        "has a price that is not finite": ~np.all([np.isfinite(bars[field]) for field in PRICES], axis=0),
        "has a volume that is negative or not a number": ~(bars["volume"] >= 0),
        "has its high below its low": bars["high"] < bars["low"],
    }
    for problem, is_bad in problems.items():
        if is_bad.any():
            row = int(is_bad.argmax())
            msg = (
                f"{name}: bar {row + 1} (at {bars['ts_ns'][row]} ns) {problem} ({int(is_bad.sum())} such bars in total)"
            )
            raise InvalidInput(msg)
    return bars[np.unique(bars["ts_ns"], return_index=True)[1]]


def parse_csv(text: str, name: str) -> np.ndarray:
    """Read bars from CSV lines `time,open,high,low,close,volume,trades` (time in s, no header), as `sorted_bars`."""
    lines = text.split()
    try:
        numbers = np.array([line.split(",") for line in lines], np.float64).reshape(len(lines), 7)
    except ValueError as error:
        msg = f"{name}: each line must have 7 numbers (time,open,high,low,close,volume,trades): {error}"
        raise InvalidInput(msg) from error
    return bars_of_rows(numbers, name)


def read_bars(file: Path) -> np.ndarray:
    """Read minute bars from a Parquet file (`ts, open, high, low, close, volume`) or from a CSV file, as `sorted_bars`.

    Raises `InvalidInput` with the name of the file and the problem.
    """
    if not file.is_file():
        msg = f"{file} is not a file"
        raise InvalidInput(msg)
    if file.suffix != ".parquet":
        return parse_csv(file.read_text(), str(file))
    try:
        table = pq.read_table(file)
    except pa.ArrowInvalid as error:
        msg = f"{file} is not a Parquet file: {error}"
        raise InvalidInput(msg) from error
    missing = [name for name in FILE_COLUMNS if name not in table.column_names]
    if missing:
        msg = f"{file}: columns {', '.join(missing)} are missing; it has {', '.join(table.column_names)}"
        raise InvalidInput(msg)
    if not pa.types.is_timestamp(table["ts"].type):
        msg = f"{file}: ts has the type {table['ts'].type}; it must be a timestamp, the time of the bar's open"
        raise InvalidInput(msg)
    return sorted_bars(bars_of_table(table), str(file))


def bars_of_table(table: pa.Table) -> np.ndarray:
    """Convert an Arrow table with the columns of the table `minute_bars` to bars of dtype `BARS` in the same order."""
    bars = np.zeros(len(table), BARS)
    bars["ts_ns"] = table["ts"].cast(pa.timestamp("ns")).cast(pa.int64()).to_numpy()
    for name in FILE_COLUMNS[1:]:
        bars[name] = table[name].cast(pa.float64()).to_numpy()
    bars["trades"] = table["trades"].to_numpy() if "trades" in table.column_names else -1
    return bars
