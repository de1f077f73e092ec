"""The last day of minute bars as frames for the log, so that long windows are filled from the first quote on.

What does not belong here: months of history for training (`btc_assets.training_bars`), or when bars are fetched (`ingest`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from btc_core.exchanges.interface import Exchange

BARS_PER_FRAME = 200
"""Keeps a frame far below `BTC_STREAM_MAX_FRAME_BYTES`."""
FETCHED_DAYS = 2
"""The longest window of the features is one day; the other one is a margin."""


def recent_bars(exchange: Exchange, symbol: str) -> list[bytes]:
    """Closed minute bars of about the last day as frames of the channel `ohlc`; raises `ExchangeError`."""
    bars, _ = exchange.minute_bars(symbol, FETCHED_DAYS)
    starts = range(0, len(bars), BARS_PER_FRAME)
    return [exchange.bars_frame(symbol, bars[start : start + BARS_PER_FRAME]) for start in starts]
