"""The order books that ingest keeps to verify the exchange's checksums."""

from __future__ import annotations

import zlib
from decimal import Decimal

import pytest

from btc_core.market.frames import BookData, BookFrame, Level
from streaming.order_books import OrderBooks

pytestmark = pytest.mark.unit

BTC, ETH = "BTC/USD", "ETH/USD"


def book(symbol: str, checksum: int | None = None) -> BookData:
    """One level on each side: an ask of 1 at 2.0 and a bid of 1 at 1.0; by default with the right checksum."""
    right = zlib.crc32(b"20" + b"100000000" + b"10" + b"100000000")
    bid, ask = Level(Decimal("1.0"), Decimal(1)), Level(Decimal("2.0"), Decimal(1))
    return BookData(symbol, [bid], [ask], right if checksum is None else checksum)


def test_a_mismatched_book_is_reported_once_and_trusted_again_after_its_next_snapshot() -> None:
    books = OrderBooks()
    assert books.apply(BookFrame("snapshot", [book(BTC), book(ETH)])) == (True, [])
    assert books.apply(BookFrame("update", [book(BTC, checksum=1), book(ETH)])) == (False, [BTC])
    assert books.apply(BookFrame("update", [book(BTC)])) == (False, []), "it is already being subscribed again"
    assert books.apply(BookFrame("update", [book(ETH)])) == (True, [])
    assert books.apply(BookFrame("snapshot", [book(BTC)])) == (True, [])
    assert books.apply(BookFrame("update", [book(BTC)])) == (True, [])


def test_an_update_without_a_snapshot_is_not_trusted() -> None:
    books = OrderBooks()
    assert books.apply(BookFrame("update", [book(BTC)])) == (False, [])
    books.apply(BookFrame("snapshot", [book(BTC)]))
    books.clear()
    assert books.apply(BookFrame("update", [book(BTC)])) == (False, [])
