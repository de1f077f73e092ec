"""The order books of one connection, kept only to verify the exchange's checksums.

What does not belong here: how a book and its checksum are computed (`btc_core.market.book`), or subscribing (`ingest`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from btc_core import metrics
from btc_core.errors import BadFrame
from btc_core.market.book import ChecksumMismatch, OrderBook

if TYPE_CHECKING:
    from btc_core.market.frames import BookFrame, InstrumentFrame

log = logging.getLogger(__name__)

DEPTH = 10
"""Levels of each side: the depth that ingest subscribes to."""
DEFAULT_PRECISION = (1, 8)
"""Decimals of price and quantity of BTC/USD, for a book that comes before the exchange's list of pairs."""


class OrderBooks:
    """One book per symbol. After a mismatch a book is wrong until its next snapshot."""

    def __init__(self) -> None:
        self._books: dict[str, OrderBook] = {}
        self._mismatched: set[str] = set()
        self._precision: dict[str, tuple[int, int]] = {}

    def clear(self) -> None:
        """Forget every book, for a new connection; precisions stay."""
        self._books.clear()
        self._mismatched.clear()

    def set_precisions(self, frame: InstrumentFrame) -> None:
        """Remember the decimals of every pair."""
        for pair in frame.data.pairs:
            self._precision[pair.symbol] = (pair.price_precision, pair.qty_precision)

    def apply(self, frame: BookFrame) -> tuple[bool, list[str]]:
        """Apply a frame; returns whether all its checksums match, and the symbols that have to be subscribed again."""
        matches = True
        mismatched = []
        for data in frame.data:
            book = self._books.get(data.symbol)
            if frame.type == "snapshot":
                precision = self._precision.get(data.symbol, DEFAULT_PRECISION)
                book = self._books[data.symbol] = OrderBook(data.symbol, DEPTH, *precision)
                self._mismatched.discard(data.symbol)
            if book is None or data.symbol in self._mismatched:
                matches = False
                continue
            try:
                book.apply(data, snapshot=frame.type == "snapshot")
            except (ChecksumMismatch, BadFrame) as error:
                matches = False
                log.warning("%s; subscribing to this book again", error)
                metrics.BOOK_MISMATCHES.labels(data.symbol).inc()
                self._mismatched.add(data.symbol)
                mismatched.append(data.symbol)
        return matches, mismatched
