"""What happens on a market: trades and quotes, the bars computed from them, and the interface of the past that REST reads.

What does not belong here: where any of it comes from (`generated`, `recordings`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


ALL_TRADES = 10**9
"""The `count` of a request for all trades of a span: more than any span holds."""


class Trade(NamedTuple):
    """One trade: price in ticks, quantity in lots, `buy` and `market` describe the taker's order."""

    ts_ns: int
    trade_id: int
    price: int
    qty: int
    buy: bool
    market: bool


class Quote(NamedTuple):
    """The best bid and ask from `ts_ns` on: prices in ticks, quantities in lots."""

    ts_ns: int
    bid: int
    bid_qty: int
    ask: int
    ask_qty: int


class Bar(NamedTuple):
    """One bar: prices in ticks, volume in lots, `value` is the sum of price times quantity."""

    start_min: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    trades: int
    value: float


class Bars(NamedTuple):
    """Minute bars, one row for each minute, also for a minute without trades. The columns are those of `Bar`."""

    start_min: NDArray[np.int64]
    columns: NDArray[np.int64]
    """Open, high, low, close, volume, trades; all zero where a minute has no trades."""
    value: NDArray[np.float64]


class Tape(Protocol):
    """The past trades of one symbol. `until_ns` is the present: a tape returns nothing later than that."""

    def trades_since(self, since_ns: int, count: int, until_ns: int) -> list[Trade]:
        """The first `count` trades after `since_ns`, up to and including `until_ns`."""
        ...

    def last_trades(self, count: int, until_ns: int) -> list[Trade]:
        """The newest `count` trades up to and including `until_ns`, oldest first."""
        ...

    def minute_bars(self, first_min: int, end_min: int) -> Bars:
        """Bars of the minutes [first_min, end_min), counted since 1970, without minutes before the tape begins."""
        ...
