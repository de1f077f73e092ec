"""The order book of one symbol and its checksum.

Prices and quantities are integers, scaled by the precision of the pair. Integers are exact, hashable and fast to print.
What does not belong here: subscriptions. The caller of `apply` subscribes again after a `ChecksumMismatch`.
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
"""A number with more digits before the decimal point is refused: printing it would take too long."""


class ChecksumMismatch(BadFrame):
    """The book differs from the exchange's book. The caller must subscribe again to get a new snapshot."""

    def __init__(self, symbol: str, expected: int, actual: int) -> None:
        super().__init__("book_checksum", f"{symbol}: the exchange sent the checksum {expected}, our book has {actual}")


class OrderBook:
    """Bids and asks of one symbol to a fixed depth.

    `price_precision` and `qty_precision` are the pair's numbers of decimals (BTC/USD: 1 and 8).
    """

    def __init__(self, symbol: str, depth: int = 10, price_precision: int = 1, qty_precision: int = 8) -> None:
        self.symbol = symbol
        self.depth = depth
        self._price_precision = price_precision
        self._qty_precision = qty_precision
        self._bids: dict[int, int] = {}
        self._asks: dict[int, int] = {}

    def apply(self, data: BookData, *, snapshot: bool) -> None:
        """Apply one entry of a frame; raises `BadFrame` for a bad level and `ChecksumMismatch` for a wrong checksum."""
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
        """Return the CRC-32 of the ten best asks from low to high, followed by the ten best bids from high to low."""
        asks = sorted(self._asks.items())[:CHECKSUM_LEVELS]
        bids = sorted(self._bids.items(), reverse=True)[:CHECKSUM_LEVELS]
        return zlib.crc32("".join(f"{price}{qty}" for price, qty in asks + bids).encode())

    def bids(self) -> list[tuple[float, float]]:
        """Return (price, quantity) of each bid, best first."""
        return [self._unscale(level) for level in sorted(self._bids.items(), reverse=True)]

    def asks(self) -> list[tuple[float, float]]:
        """Return (price, quantity) of each ask, best first."""
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
    """Convert a decimal to an integer number of units of 10^−precision; raises `BadFrame` if that is not exact."""
    if not number.is_finite() or number.adjusted() >= MAX_DIGITS:
        raise BadFrame("bad_level", f"{number} is not a price or a quantity")
    scaled = number.scaleb(precision)
    whole = int(scaled)
    if whole != scaled:
        raise BadFrame("bad_precision", f"{number} has more than {precision} decimals")
    return whole
