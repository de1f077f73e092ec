"""The pairs that the simulated exchange lists: names, precision, typical price.

What does not belong here: how prices move (`market`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from btc_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

QTY_DECIMALS = 8
"""Quantities are integers of 1e-8 of the base asset ("lots") everywhere in this package."""

LOTS_PER_UNIT = 10**QTY_DECIMALS


class Pair(msgspec.Struct, frozen=True):
    """One listed pair; prices are integers of `10 ** -price_decimals` ("ticks") everywhere in this package."""

    symbol: str
    rest_name: str
    rest_key: str
    price_decimals: int
    base_price: float
    """Level around which the generated market moves, in the quote currency."""

    @property
    def ticks_per_unit(self) -> int:
        """Ticks in one unit of the quote currency."""
        return 10**self.price_decimals  # type: ignore[no-any-return]

    def price_text(self, price_ticks: int) -> str:
        """The price as the WebSocket prints it.

        >>> BTC_USD.price_text(600_001)
        '60000.1'
        """
        whole, part = divmod(price_ticks, self.ticks_per_unit)
        return f"{whole}.{part:0{self.price_decimals}d}"


def qty_text(qty_lots: int) -> str:
    """The quantity as the exchange prints it.

    >>> qty_text(37_711)
    '0.00037711'
    """
    whole, part = divmod(qty_lots, LOTS_PER_UNIT)
    return f"{whole}.{part:08d}"


BTC_USD = Pair("BTC/USD", "XBTUSD", "XXBTZUSD", 1, 60_000.0)

PAIRS = {
    pair.symbol: pair
    for pair in (
        BTC_USD,
        Pair("ETH/USD", "ETHUSD", "XETHZUSD", 2, 3_000.0),
        Pair("SOL/USD", "SOLUSD", "SOLUSD", 2, 150.0),
        Pair("XRP/USD", "XRPUSD", "XXRPZUSD", 5, 0.6),
        Pair("LTC/USD", "LTCUSD", "XLTCZUSD", 2, 80.0),
        Pair("ADA/USD", "ADAUSD", "ADAUSD", 6, 0.4),
        Pair("BCH/USD", "BCHUSD", "BCHUSD", 2, 400.0),
        Pair("LINK/USD", "LINKUSD", "LINKUSD", 5, 15.0),
    )
}


def choose(symbols: Iterable[str]) -> tuple[Pair, ...]:
    """The pairs of these WebSocket symbols, in order; raises `ConfigError` for one that is not listed."""
    chosen = []
    for symbol in symbols:
        if symbol not in PAIRS:
            msg = f"the simulator does not list {symbol!r}; it lists {', '.join(PAIRS)}"
            raise ConfigError(msg)
        chosen.append(PAIRS[symbol])
    return tuple(chosen)
