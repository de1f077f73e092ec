"""The order book of one symbol and its checksum.

Prices and quantities are integers, scaled by the precision of the pair. Integers are exact, hashable and fast to print.
What does not belong here: features of the book (`features.depth`), or subscriptions. The caller of `apply` subscribes again after a `ChecksumMismatch`.
"""

from __future__ import annotations

import zlib
from itertools import chain
from typing import TYPE_CHECKING

import msgspec

from btc_core.errors import BadFrame

if TYPE_CHECKING:
    from collections.abc import Iterable
    from decimal import Decimal

    from btc_core.market.frames import BookData, Level

CHECKSUM_LEVELS = 10
"""Levels of each side that the exchange's checksum covers."""
DEPTHS = (10, 25, 100, 500, 1_000)
"""Numbers of levels of each side that the exchange offers."""
MAX_DIGITS = 18
"""A number with more digits before the decimal point is refused: printing it would take too long."""
MAX_DECIMALS = 18
"""A level with more decimals is refused (`frames.MAX_PRECISION`)."""


class ChecksumMismatch(BadFrame):
    """The book differs from the exchange's book. The caller must subscribe again to get a new snapshot."""

    def __init__(self, symbol: str, expected: int, actual: int) -> None:
        super().__init__("book_checksum", f"{symbol}: the exchange sent the checksum {expected}, our book has {actual}")


class SavedBook(msgspec.Struct, frozen=True):
    """A book in a checkpoint; the levels are scaled integers, best first."""

    symbol: str
    depth: int
    price_precision: int
    qty_precision: int
    bids: list[tuple[int, int]]
    asks: list[tuple[int, int]]


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
        self._best_bids: list[tuple[int, int]] = []
        self._best_asks: list[tuple[int, int]] = []
        """The levels of each side, best first."""

    @classmethod
    def of_snapshot(cls, data: BookData) -> OrderBook:
        """Return an empty book with the precisions and the depth that the levels of a snapshot show.

        The exchange writes every price and quantity with all decimals of the pair, also if they are zeros.
        """
        levels = [*data.bids, *data.asks]
        precisions = [max((_decimals(number) for number in numbers), default=0) for numbers in (
            (level.price for level in levels), (level.qty for level in levels))]  # fmt: skip
        longest = max(len(data.bids), len(data.asks))
        depth = next((depth for depth in DEPTHS if depth >= longest), longest)
        return cls(data.symbol, depth, *precisions)

    @classmethod
    def load(cls, saved: SavedBook) -> OrderBook:
        """Return the book that `save` described."""
        book = cls(saved.symbol, saved.depth, saved.price_precision, saved.qty_precision)
        book._bids, book._asks = dict(saved.bids), dict(saved.asks)
        book._sort()
        return book

    def save(self) -> SavedBook:
        """Return everything that `load` needs to create the book again."""
        precisions = self._price_precision, self._qty_precision
        return SavedBook(self.symbol, self.depth, *precisions, list(self._best_bids), list(self._best_asks))

    def apply(self, data: BookData, *, snapshot: bool) -> None:
        """Apply one entry of a frame; raises `BadFrame` for a bad level and `ChecksumMismatch` for a wrong checksum."""
        if snapshot:
            self._bids.clear()
            self._asks.clear()
        self._update(self._bids, data.bids)
        self._update(self._asks, data.asks)
        self._sort()
        actual = self.checksum()
        if actual != data.checksum:
            raise ChecksumMismatch(self.symbol, data.checksum, actual)

    def checksum(self) -> int:
        """Return the CRC-32 of the ten best asks from low to high, followed by the ten best bids from high to low."""
        best = self._best_asks[:CHECKSUM_LEVELS] + self._best_bids[:CHECKSUM_LEVELS]
        return zlib.crc32(("%d%d" * len(best) % tuple(chain.from_iterable(best))).encode())

    def bids(self, levels: int | None = None) -> list[tuple[float, float]]:
        """Return (price, quantity) of the best bids, or of all, best first."""
        return self._unscaled(self._best_bids[:levels])

    def asks(self, levels: int | None = None) -> list[tuple[float, float]]:
        """Return (price, quantity) of the best asks, or of all, best first."""
        return self._unscaled(self._best_asks[:levels])

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

    def _sort(self) -> None:
        """Sort both sides, and drop the levels beyond the depth."""
        self._best_bids = sorted(self._bids.items(), reverse=True)
        self._best_asks = sorted(self._asks.items())
        for side, best in ((self._bids, self._best_bids), (self._asks, self._best_asks)):
            for price, _ in best[self.depth :]:
                del side[price]
            del best[self.depth :]

    def _unscaled(self, levels: list[tuple[int, int]]) -> list[tuple[float, float]]:
        price_unit, qty_unit = 10**self._price_precision, 10**self._qty_precision
        return [(price / price_unit, qty / qty_unit) for price, qty in levels]


def _decimals(number: Decimal) -> int:
    """Return the number of digits after the decimal point, at most `MAX_DECIMALS`; 0 for a number that is not finite."""
    exponent = number.as_tuple().exponent
    return min(max(0, -exponent), MAX_DECIMALS) if isinstance(exponent, int) else 0


def _scale(number: Decimal, precision: int) -> int:
    """Convert a decimal to an integer number of units of 10^−precision; raises `BadFrame` if that is not exact."""
    if not number.is_finite() or number.adjusted() >= MAX_DIGITS:
        raise BadFrame("bad_level", f"{number} is not a price or a quantity")
    scaled = number.scaleb(precision)
    whole = int(scaled)
    if whole != scaled:
        raise BadFrame("bad_precision", f"{number} has more than {precision} decimals")
    return whole
