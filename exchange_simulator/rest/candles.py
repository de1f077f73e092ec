"""Minute bars as REST prints them: candles of any interval, and the lines of the published history.

What does not belong here: which bars are asked for (`api`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from btc_core.clock import NS_PER_MIN
from exchange_simulator.units import qty_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from exchange_simulator.market.events import Bars, Trade
    from exchange_simulator.pairs import Pair


def history_lines(pair: Pair, bars: Bars) -> str:
    """Bars as lines of Kraken's OHLCVT files: time in s, open, high, low, close, volume, trades. Empty bars are left out."""
    price = pair.price_text
    return "".join(
        f"{minute * 60},{price(first)},{price(high)},{price(low)},{price(last)},{qty_text(volume)},{count}\n"
        for minute, (first, high, low, last, volume, count) in zip(
            bars.start_min.tolist(), bars.columns.tolist(), strict=True
        )
        if count
    )


def candle_rows(pair: Pair, bars: Bars, open_minute: list[Trade], interval_min: int) -> list[list[Any]]:
    """Candles of an interval as rows of the OHLC answer, from closed minutes and the trades of the open minute.

    A row is time in s, open, high, low, close, VWAP, volume, trades. Candles without trades are left out.
    """
    minutes, columns, value = _with_open_minute(bars, open_minute)
    keep = columns[:, 5] > 0
    minutes, columns, value = minutes[keep], columns[keep], value[keep]
    if not len(minutes):
        return []
    starts = minutes // interval_min * interval_min
    first = np.flatnonzero(np.r_[True, starts[1:] != starts[:-1]])
    last = np.r_[first[1:], len(minutes)] - 1
    high, low = np.maximum.reduceat(columns[:, 1], first), np.minimum.reduceat(columns[:, 2], first)
    volume, count = np.add.reduceat(columns[:, 4], first), np.add.reduceat(columns[:, 5], first)
    total = np.add.reduceat(value, first)
    rows = []
    for i, start in enumerate(starts[first].tolist()):
        vwap = int(total[i] / volume[i])
        prices = (columns[first[i], 0], high[i], low[i], columns[last[i], 3], vwap)
        texts = [pair.price_text(int(price)) for price in prices]
        rows.append([start * 60, *texts, qty_text(int(volume[i])), int(count[i])])
    return rows


def _with_open_minute(
    bars: Bars, trades: list[Trade]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Minutes, columns and values of the bars and of one more bar that these trades make."""
    if not trades:
        return bars.start_min, bars.columns, bars.value
    prices = [trade.price for trade in trades]
    volume = sum(trade.qty for trade in trades)
    row = [prices[0], max(prices), min(prices), prices[-1], volume, len(trades)]
    value = sum(float(trade.price) * trade.qty for trade in trades)
    return (
        np.append(bars.start_min, trades[0].ts_ns // NS_PER_MIN),
        np.vstack([bars.columns, np.array([row], np.int64)]),
        np.append(bars.value, value),
    )
