"""The levels of a book around a quote, for the generated market and for recordings without a book.

What does not belong here: which levels a client is sent (`websocket.channels`), or the arithmetic (`kernels`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from btc_core.clock import NS_PER_US
from exchange_simulator.market import kernels
from exchange_simulator.market.generated import qty_scale, symbol_seed

if TYPE_CHECKING:
    from exchange_simulator.market.events import Quote
    from exchange_simulator.pairs import Pair

MAX_LEVELS = 1_000
"""The number of levels on each side, which is the largest depth that a client can subscribe to."""

BookSides = tuple[dict[int, int], dict[int, int]]
"""Bids and asks, each from the best price outward: price in ticks -> quantity in lots."""


class BookGenerator:
    """Books whose best levels are the quote; the other levels depend only on price and time."""

    def __init__(self, pair: Pair, seed: int) -> None:
        self._seed = symbol_seed(pair, seed)
        self._qty_scale = qty_scale(pair)
        self._levels = np.empty((MAX_LEVELS, 2), np.int64)

    def sides(self, quote: Quote, depth: int) -> BookSides:
        """The `depth` best levels of each side at `quote`."""
        both = []
        time_us = quote.ts_ns // NS_PER_US
        for side, best, best_qty in ((-1, quote.bid, quote.bid_qty), (1, quote.ask, quote.ask_qty)):
            levels = self._levels[:depth]
            count = kernels.book_side(self._seed, time_us, side, best, best_qty, self._qty_scale, levels)
            both.append(dict(levels[:count].tolist()))
        return both[0], both[1]
