"""The order book of one symbol, and the exchange's checksum over it.

Prices and quantities are integers scaled by the pair's precision: exact, hashable and quick to print.
What does not belong here: subscriptions. A `ChecksumMismatch` tells the caller to subscribe anew.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from btc_core.errors import BadFrame

if TYPE_CHECKING:
    from collections.abc import Iterable
    from decimal import Decimal

    from btc_core.market.frames import BookData, Level

CHECKSUM_LEVELS = 10
MAX_DIGITS = 18
"""Digits before the point; printing a level must not cost more than a frame may."""


class ChecksumMismatch(BadFrame):
    """The book differs from the exchange's; it must be subscribed anew."""

    def __init__(self, symbol: str, expected: int, actual: int) -> None:
        super().__init__("book_checksum", f"{symbol}: exchange says {expected}, our book gives {actual}")


class OrderBook:
    """Bids and asks of one symbol to a fixed depth.

    `price_precision` and `qty_precision` are decimals of the pair (BTC/USD: 1 and 8).
    """

    def __init__(self, symbol: str, depth: int = 10, price_precision: int = 1, qty_precision: int = 8) -> None:
        self.symbol = symbol
        self.depth = depth
        self._price_precision = price_precision
        self._qty_precision = qty_precision
        self._bids: dict[int, int] = {}
        self._asks: dict[int, int] = {}

    def apply(self, data: BookData, *, snapshot: bool) -> None:
        """Apply one frame entry and verify its checksum; raises `ChecksumMismatch` when ours differs."""
        if snapshot:
            self._bids.clear()
            self._asks.clear()
        self._update(self._bids, data.bids)
        self._update(self._asks, data.asks)
        self._truncate()
        actual = self.checksum()
        if actual != data.checksum:
            raise ChecksumMismatch(self.symbol, data.checksum, actual)

    def checksum(self) -> int:
        """CRC-32 over the ten best asks from low to high, then the ten best bids from high to low."""
        asks = sorted(self._asks.items())[:CHECKSUM_LEVELS]
        bids = sorted(self._bids.items(), reverse=True)[:CHECKSUM_LEVELS]
        return zlib.crc32("".join(f"{price}{qty}" for price, qty in asks + bids).encode())

    def bids(self) -> list[tuple[float, float]]:
        """(price, quantity), best first."""
        return [self._unscale(level) for level in sorted(self._bids.items(), reverse=True)]

    def asks(self) -> list[tuple[float, float]]:
        """(price, quantity), best first."""
        return [self._unscale(level) for level in sorted(self._asks.items())]

    def _update(self, side: dict[int, int], levels: Iterable[Level]) -> None:
        for level in levels:
            price = _scale(level.price, self._price_precision)
            qty = _scale(level.qty, self._qty_precision)
            if price <= 0 or qty < 0:
                raise BadFrame("bad_level", f"{self.symbol}: price {level.price}, quantity {level.qty}")
            if qty == 0:
                side.pop(price, None)
            else:
                side[price] = qty

    def _truncate(self) -> None:
        for price in sorted(self._asks)[self.depth :]:
            del self._asks[price]
        for price in sorted(self._bids, reverse=True)[self.depth :]:
            del self._bids[price]

    def _unscale(self, level: tuple[int, int]) -> tuple[float, float]:
        price, qty = level
        return price / 10**self._price_precision, qty / 10**self._qty_precision


def _scale(number: Decimal, precision: int) -> int:
    """A decimal as an integer of its last place; what is no number or has more digits than the pair is a bad frame."""
    if not number.is_finite() or number.adjusted() >= MAX_DIGITS:
        raise BadFrame("bad_level", f"{number} is no price or quantity")
    scaled = number.scaleb(precision)
    whole = int(scaled)
    if whole != scaled:
        raise BadFrame("bad_precision", f"{number} has more than {precision} decimals")
    return whole
