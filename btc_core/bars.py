"""Minute bars in files and tables.

What does not belong here: features of bars (`replay.bar_features`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from btc_core.clock import NS_PER_MIN
from btc_core.errors import InvalidInput
from btc_core.exchange_rest import parse_csv
from btc_core.replay import BARS

if TYPE_CHECKING:
    from pathlib import Path

PRICES = ("open", "high", "low", "close")
COLUMNS = ("ts", *PRICES, "volume")


def read_bars(file: Path) -> np.ndarray:
    """Minute bars of a Parquet file (`ts, open, high, low, close, volume`) or a published CSV, dtype `BARS`, sorted.

    Raises `InvalidInput` naming the file, the row and what is wrong with it.
    """
    if not file.is_file():
        msg = f"{file} is not a file"
        raise InvalidInput(msg)
    bars = _read_parquet(file) if file.suffix == ".parquet" else parse_csv(file.read_bytes(), str(file))
    bars = bars[np.argsort(bars["ts_ns"], kind="stable")]
    _check(bars, file)
    return bars


def _read_parquet(file: Path) -> np.ndarray:
    try:
        table = pq.read_table(file, columns=list(COLUMNS))
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        msg = f"{file}: not a Parquet file with the columns {', '.join(COLUMNS)}: {error}"
        raise InvalidInput(msg) from error
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        msg = f"{file}: the columns {', '.join(missing)} are missing; it has {', '.join(table.column_names)}"
        raise InvalidInput(msg)
    if not pa.types.is_timestamp(table["ts"].type):
        msg = f"{file}: ts is {table['ts'].type}, it must be a timestamp"
        raise InvalidInput(msg)
    bars = np.zeros(len(table), BARS)
    bars["ts_ns"] = table["ts"].cast(pa.timestamp("ns")).cast(pa.int64()).to_numpy()
    for name in COLUMNS[1:]:
        bars[name] = table[name].cast(pa.float64()).to_numpy()
    return bars


def _check(bars: np.ndarray, file: Path) -> None:
    """Every bar starts on a minute of its own and has possible prices."""
    problems = {
        "is not on a whole minute": bars["ts_ns"] % NS_PER_MIN != 0,
        "repeats the minute before": np.diff(bars["ts_ns"], prepend=bars["ts_ns"][:1] - NS_PER_MIN) == 0,
        "has a price that is not above zero": ~np.all([bars[name] > 0 for name in PRICES], axis=0),
        "has a volume below zero or none": ~(bars["volume"] >= 0),
        "has its high below its low": bars["high"] < bars["low"],
    }
    for what, bad in problems.items():
        if bad.any():
            row = int(bad.argmax())
            msg = f"{file}: bar {row + 1} (ts {bars['ts_ns'][row]} ns) {what}; {int(bad.sum())} such bars"
            raise InvalidInput(msg)


def bars_table(bars: np.ndarray, symbol: str, source: str) -> pa.Table:
    """Bars as rows of the table `minute_bars`."""
    columns = {
        "ts": pa.array(bars["ts_ns"], pa.timestamp("ns", tz="UTC")),
        "symbol": pa.array([symbol] * len(bars)).dictionary_encode(),
        **{name: pa.array(np.ascontiguousarray(bars[name])) for name in COLUMNS[1:]},
        "trades": pa.array(np.full(len(bars), -1)),
        "source": pa.array([source] * len(bars)).dictionary_encode(),
    }
    return pa.table(columns)
