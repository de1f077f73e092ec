"""The last day of minute bars, as frames for the log, so that long windows are covered from the first quote on.

What does not belong here: months of history for training (`btc_assets.history`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from btc_core.clock import from_ns
from btc_core.exchange_rest import minute_bars

if TYPE_CHECKING:
    import numpy as np

    from btc_core.settings import ExchangeSettings

BARS_PER_FRAME = 200
"""Keeps a frame far below the bound on its size."""
NEEDED_DAYS = 2
"""The longest window is one day."""


def recent_bars(settings: ExchangeSettings, symbol: str) -> list[bytes]:
    """Closed minute bars of about the last day as frames of the channel `ohlc`; raises `ExchangeError`."""
    bars, _ = minute_bars(settings, symbol, NEEDED_DAYS)
    return [ohlc_frame(symbol, bars[start : start + BARS_PER_FRAME]) for start in range(0, len(bars), BARS_PER_FRAME)]


def ohlc_frame(symbol: str, bars: np.ndarray) -> bytes:
    """Bars (dtype `bars.BARS`) as the socket would send them."""
    data = [
        {
            "symbol": symbol,
            "open": float(bar["open"]),
            "high": float(bar["high"]),
            "low": float(bar["low"]),
            "close": float(bar["close"]),
            "volume": float(bar["volume"]),
            "interval_begin": from_ns(int(bar["ts_ns"])),
            "interval": 1,
        }
        for bar in bars
    ]
    return msgspec.json.encode({"channel": "ohlc", "type": "snapshot", "data": data})
