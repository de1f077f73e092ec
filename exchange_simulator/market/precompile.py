"""Compiles the functions of the generated market in another process.

A process that compiles keeps the memory of the compiler, 90 MB, until it ends; one that reads compiled functions from
numba's cache does not. What does not belong here: the functions (`kernels`, `volatility`).
"""

from __future__ import annotations

import multiprocessing

from exchange_simulator.market.generated import EPOCH_MIN, GeneratedMarket
from exchange_simulator.market.order_book import BookGenerator
from exchange_simulator.pairs import PAIRS


def compile_elsewhere() -> None:
    """Return when every function is in numba's cache. Call it before this process starts threads."""
    child = multiprocessing.get_context("fork").Process(target=_call_all)
    child.start()
    child.join()


def _call_all() -> None:
    pair = PAIRS["BTC/USD"]
    market, at_min = GeneratedMarket(pair), EPOCH_MIN + 1
    market.trades(at_min)
    market.minute_bars(at_min, at_min + 1)
    BookGenerator(pair, 1).sides(market.quotes(at_min)[0], 10)
