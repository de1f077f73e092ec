"""The last day of minute bars, as frames for the log, so that long windows are covered from the first quote on.

What does not belong here: months of history for training (`btc_assets.training_bars`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from btc_core.exchanges.interface import Exchange

BARS_PER_FRAME = 200
"""Keeps a frame far below the bound on its size."""
NEEDED_DAYS = 2
"""The longest window is one day."""


def recent_bars(exchange: Exchange, symbol: str) -> list[bytes]:
    """Closed minute bars of about the last day as frames of the channel `ohlc`; raises `ExchangeError`."""
    bars, _ = exchange.minute_bars(symbol, NEEDED_DAYS)
    starts = range(0, len(bars), BARS_PER_FRAME)
    return [exchange.bars_frame(symbol, bars[start : start + BARS_PER_FRAME]) for start in starts]
