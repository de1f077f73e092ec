"""Reading minute bars from a file of an exchange or a data vendor, checked row by row.

What does not belong here: opening the file (`market_files`), the checks of bars (`market.checked_bars`), or storing
bars (`bar_import`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from btc_core.clock import NS_PER_MIN, now_ns
from btc_core.days.bad_rows import BadRows
from btc_core.days.file_columns import A_TIME, FileForm, key_of, numbers, times, whole_numbers
from btc_core.days.file_names import CURRENCIES, OTHER_NAMES, check_market
from btc_core.days.market_files import open_market_file
from btc_core.days.row_checks import RowChecks, first_market
from btc_core.market.bars import BARS, PRICES
from btc_core.market.checked_bars import (
    bar_faults,
    check_interval,
    describe,
    interval_name,
    repeats,
    runs_of_longer_bars,
)
from btc_core.tables.rows import UNKNOWN_TRADES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from btc_core.days.market_files import Block

_VALUES = (*PRICES, "volume")
_REQUIRED = ("time", *_VALUES)
_NAMES = {
    "time": ("ts", "opentime", "time", "timestamp", "unix", "datetime", "date", "indexlevel0", ""),
    "open": ("open",),
    "high": ("high",),
    "low": ("low",),
    "close": ("close",),
    "volume": ("volume",),
    "trades": ("trades", "count", "tradecount", "numberoftrades"),
    "market": ("symbol", "pair", "market"),
}
"""The names that files use for each column, in the form of `key_of` and in order of preference."""
_HEADLESS = {
    6: _REQUIRED,
    7: (*_REQUIRED, "trades"),
    8: ("time", *PRICES, "vwap", "volume", "trades"),
    12: (*_REQUIRED, "close time", "quote volume", "trades"),
}
"""The columns of files without a header by their number: 7 is Kraken's OHLCVT, 8 has a mean price, 12 is Binance's."""
FORMS = (
    "A file of minute bars has the columns time, open, high, low, close and volume by name, or no header and Kraken's "
    "7 columns (time,open,high,low,close,volume,trades) or Binance's 12; numbers have a point before their decimals and "
    "nothing between their thousands"
)
_FORM = FileForm(_NAMES, _REQUIRED, _HEADLESS, FORMS)


class BarFile(msgspec.Struct, frozen=True):
    """The minute bars of a file."""

    bars: np.ndarray
    """Dtype `BARS`, sorted, one for each minute."""
    rows: int
    """The number of rows in the file."""
    repeated: int
    """Rows that repeat another one."""
    bad: BadRows
    """Rows that were left out."""


def read_bar_file(path: Path, symbol: str | None = None, *, skip_bad_rows: bool = False) -> BarFile:
    """Read and check the minute bars of a file; without a symbol, the market of its first row is the right one.

    Raises `InvalidInput` that names the file, the rows and the fault: when the file is of another market or of longer
    bars, when it cannot be read, and, unless bad rows are skipped, when a row is bad.
    """
    file = open_market_file(path, symbol)
    if symbol is not None:
        check_market(file.file_names, symbol)
    parts = [_Part(np.empty(0, np.int64), np.empty(0, BARS), np.empty(0, np.int64))]
    rows = 0
    with file.blocks() as blocks:
        places = _FORM.places(file, volume=_base_volume(file.names, symbol))
        for block in blocks:
            if symbol is None and "market" in places:
                symbol = first_market(block.columns[places["market"]])
            parts.append(_bars_of(block, places, symbol, file.bad))
            rows += len(block.numbers)
    check_interval(np.concatenate([part.opens for part in parts]), file.label, file.named_interval_min)
    bars, numbered, repeated = _without_repeats(parts, file.bad)
    bars = _without_longer_bars(bars, numbered, file.bad)
    rows += file.malformed_lines
    file.bad.refuse(file.label, rows, FORMS, are_skipped=skip_bad_rows)
    return BarFile(bars, rows, repeated, file.bad)


class _Part(msgspec.Struct, frozen=True):
    """What one block gave."""

    opens: np.ndarray
    """The times that could be read, also those of bad bars."""
    bars: np.ndarray
    """The good bars."""
    numbers: np.ndarray
    """Their rows in the file."""


def _base_volume(names: Sequence[str], symbol: str | None) -> int | None:
    """The column of the volume in the base asset, where a file names the asset: `Volume BTC` and not `Volume USD`."""
    assets = {place: key_of(name).removeprefix("volume").upper() for place, name in enumerate(names)
              if key_of(name).startswith("volume")}  # fmt: skip
    assets = {place: OTHER_NAMES.get(asset, asset) for place, asset in assets.items()}
    base, _, quote = (symbol or "").partition("/")
    named = [place for place, asset in assets.items() if asset == base]
    others = [place for place, asset in assets.items() if asset not in (*CURRENCIES, quote)]
    return next(iter(named or others), None)


def _bars_of(block: Block, places: dict[str, int], symbol: str | None, bad: BadRows) -> _Part:
    checks = RowChecks(block.numbers, bad)
    raw = {name: block.columns[place] for name, place in places.items()}
    if "market" in raw and symbol is not None:
        checks.market(raw["market"], symbol)
    bars = np.zeros(len(block.numbers), BARS)
    opens = times(raw["time"])
    bars["ts_ns"] = checks.values("time", raw["time"], opens, A_TIME)
    for name in _VALUES:
        bars[name] = checks.values(name, raw[name], numbers(raw[name]), "a number")
    bars["trades"] = UNKNOWN_TRADES
    if "trades" in raw:
        counts = whole_numbers(raw["trades"])
        values = checks.values("trades", raw["trades"], counts, "a whole number", is_optional=True)
        bars["trades"] = np.where(counts.is_missing, UNKNOWN_TRADES, values)
    for fault, mask in bar_faults(bars, now_ns() - NS_PER_MIN, symbol).items():
        checks.refuse(fault, mask, lambda row: describe(bars[row]))
    is_read = ~opens.is_missing & ~opens.is_unreadable
    return _Part(opens.values[is_read], bars[checks.is_good], block.numbers[checks.is_good])


def _without_repeats(parts: list[_Part], bad: BadRows) -> tuple[np.ndarray, np.ndarray, int]:
    """The bars in order of time, one for each minute, their rows, and the number of repeats.

    All rows of a minute with different bars are bad.
    """
    bars = np.concatenate([part.bars for part in parts])
    order = np.argsort(bars["ts_ns"], kind="stable")
    bars, numbered = bars[order], np.concatenate([part.numbers for part in parts])[order]
    equal, conflicting = repeats(bars)
    places = np.flatnonzero(conflicting)
    bad.add(
        "another row of the same minute has other values",
        numbered[places].tolist(),
        lambda place: describe(bars[places[place]]),
    )
    is_kept = ~equal & ~conflicting
    return bars[is_kept], numbered[is_kept], int(equal.sum())


def _without_longer_bars(bars: np.ndarray, numbered: np.ndarray, bad: BadRows) -> np.ndarray:
    """The bars (sorted by time) without those of a part of the file that holds longer bars."""
    is_kept = np.ones(len(bars), bool)
    for interval, is_longer in runs_of_longer_bars(bars["ts_ns"]).items():
        longer = bars[is_longer]
        fault = f"the row is in a part of {interval_name(interval)}, and minute bars are needed"
        bad.add(fault, numbered[is_longer].tolist(), partial(_describe_one, longer))
        is_kept &= ~is_longer
    return bars[is_kept]


def _describe_one(bars: np.ndarray, place: int) -> str:
    return describe(bars[place])
