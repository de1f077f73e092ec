"""Past trades from an exchange's REST API, page by page, and the minute bars of trades.

What does not belong here: the form of a request (the adapters), or when to send it (`btc_assets.training_bars`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from btc_core.clock import NS_PER_MIN, to_ns
from btc_core.exchanges.adapters import exchange_for
from btc_core.exchanges.rest import next_page_ns, retry_when_rate_limited
from btc_core.market.bars import BARS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.exchange_settings import ExchangeSettings

TRADES = np.dtype([("trade_id", "i8"), ("ts_ns", "i8"), ("price", "f8"), ("qty", "f8")], align=True)
"""Trades to make bars from. REST rounds their times, so they cannot replace the trades of the WebSocket."""


def trades_between(settings: ExchangeSettings, symbol: str, begin_ns: int, end_ns: int) -> Iterator[np.ndarray]:
    """Yield pages of trades (dtype `TRADES`) from `begin_ns` to before `end_ns`, oldest first, each trade once.

    The adapter pauses between two requests, and longer while the exchange limits the rate. Raises `ExchangeError`.
    """
    exchange = exchange_for(settings, symbol)
    since_ns, last_id = begin_ns - 1, -1
    while True:
        rows, newest_ns = retry_when_rate_limited(
            partial(exchange.trades_since, symbol, since_ns), exchange.rest_pause_s
        )
        page = np.array([(row.trade_id, to_ns(row.timestamp), row.price, row.qty) for row in rows], TRADES)
        wanted = page[(page["trade_id"] > last_id) & (page["ts_ns"] < end_ns)]
        if len(wanted):
            last_id = int(wanted["trade_id"].max())
            yield wanted
        next_ns = next_page_ns(since_ns, newest_ns)
        if not rows or next_ns is None or newest_ns >= end_ns:
            return
        since_ns = next_ns


def bars_of_trades(trades: np.ndarray) -> np.ndarray:
    """Make minute bars (dtype `BARS`) from sorted trades (dtype `TRADES`); a minute without trades has no bar."""
    minutes = trades["ts_ns"] // NS_PER_MIN
    first = np.unique(minutes, return_index=True)[1]
    bars = np.zeros(len(first), BARS)
    if not len(first):
        return bars
    bars["ts_ns"] = minutes[first] * NS_PER_MIN
    bars["open"] = trades["price"][first]
    bars["close"] = trades["price"][np.append(first[1:], len(trades)) - 1]
    bars["high"] = np.maximum.reduceat(trades["price"], first)
    bars["low"] = np.minimum.reduceat(trades["price"], first)
    bars["volume"] = np.add.reduceat(trades["qty"], first)
    bars["trades"] = np.diff(np.append(first, len(trades)))
    return bars
