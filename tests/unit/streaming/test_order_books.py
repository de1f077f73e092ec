"""The order books that ingest keeps to verify the exchange's checksums."""

from __future__ import annotations

import zlib
from decimal import Decimal

import pytest
from prometheus_client import REGISTRY

from btc_core.market.frames import BookData, BookFrame, InstrumentFrame, Instruments, Level, Pair
from streaming.order_books import OrderBooks

pytestmark = pytest.mark.unit

BTC, ETH = "BTC/USD", "ETH/USD"


def book(symbol: str, checksum: int | None = None) -> BookData:
    """One level on each side: an ask of 1 at 2.0 and a bid of 1 at 1.0; by default with the right checksum."""
    right = zlib.crc32(b"20" + b"100000000" + b"10" + b"100000000")
    bid, ask = Level(Decimal("1.0"), Decimal(1)), Level(Decimal("2.0"), Decimal(1))
    return BookData(symbol, [bid], [ask], right if checksum is None else checksum)


def test_a_mismatched_book_is_reported_once_and_trusted_again_after_its_next_snapshot() -> None:
    books = OrderBooks((BTC, ETH))
    assert books.apply(BookFrame("snapshot", [book(BTC), book(ETH)]), 0.0) is True
    assert books.apply(BookFrame("update", [book(BTC, checksum=1), book(ETH)]), 0.0) is False
    assert books.take_requests(0.0) == [BTC]
    assert books.apply(BookFrame("update", [book(BTC)]), 0.0) is False
    assert books.take_requests(0.0) == [], "it is already being subscribed again"
    assert books.apply(BookFrame("update", [book(ETH)]), 0.0) is True
    assert books.apply(BookFrame("snapshot", [book(BTC)]), 0.0) is True
    assert books.apply(BookFrame("update", [book(BTC)]), 0.0) is True


def test_an_update_without_a_snapshot_is_not_trusted() -> None:
    books = OrderBooks((BTC,))
    assert books.apply(BookFrame("update", [book(BTC)]), 0.0) is False
    books.apply(BookFrame("snapshot", [book(BTC)]), 0.0)
    books.clear()
    assert books.apply(BookFrame("update", [book(BTC)]), 0.0) is False
    assert books.take_requests(0.0) == []


def unverified(symbol: str) -> float | None:
    return REGISTRY.get_sample_value("btc_book_unverified", {"symbol": symbol})


def requests_of_an_hour(books: OrderBooks, symbol: str) -> list[float]:
    """When a snapshot is requested of an exchange whose checksum never matches and that answers at once."""
    requested, now_s = [], 0.0
    books.apply(BookFrame("snapshot", [book(symbol, checksum=1)]), now_s)
    while now_s < 3_600.0:
        for each in books.take_requests(now_s):
            requested.append(now_s)
            books.apply(BookFrame("snapshot", [book(each, checksum=1)]), now_s)
        now_s += 0.5
    return requested


def test_a_book_that_never_matches_asks_more_and_more_rarely_and_is_marked(caplog: pytest.LogCaptureFixture) -> None:
    books = OrderBooks((BTC,))
    requested = requests_of_an_hour(books, BTC)
    assert requested[:6] == [0.0, 2.0, 6.0, 14.0, 30.0, 62.0]
    assert len(requested) <= 15
    assert unverified(BTC) == 1.0
    assert sum("does not match" in record.message for record in caplog.records if record.levelname == "ERROR") == 1


def test_a_connection_does_not_reset_the_pauses_and_a_minute_of_matches_does() -> None:
    books = OrderBooks((BTC,))
    requests_of_an_hour(books, BTC)
    books.clear()
    books.apply(BookFrame("snapshot", [book(BTC, checksum=1)]), 4_000.0)
    assert books.take_requests(4_100.0) == []
    books.apply(BookFrame("snapshot", [book(BTC)]), 5_000.0)
    assert unverified(BTC) == 1.0
    books.apply(BookFrame("update", [book(BTC)]), 5_061.0)
    assert unverified(BTC) == 0.0
    books.apply(BookFrame("update", [book(BTC, checksum=1)]), 5_062.0)
    assert books.take_requests(5_062.0) == [BTC]


def test_a_book_that_was_not_asked_for_and_odd_pairs_change_nothing() -> None:
    books = OrderBooks((BTC,))
    assert books.apply(BookFrame("snapshot", [book("XBT/USD", checksum=1)]), 0.0) is False
    assert books.take_requests(100.0) == []
    books.set_precisions(InstrumentFrame("snapshot", Instruments([Pair("ODD/USD", 18, 18), Pair(BTC, 1, 8)])), 0.0)
    assert books.apply(BookFrame("snapshot", [book(BTC)]), 0.0) is True
    assert books.take_requests(100.0) == []


def test_a_book_from_before_its_precision_was_known_gets_a_new_snapshot() -> None:
    books = OrderBooks((BTC,))
    books.apply(BookFrame("snapshot", [book(BTC)]), 0.0)
    books.set_precisions(InstrumentFrame("snapshot", Instruments([Pair(BTC, 2, 8)])), 1.0)
    assert books.take_requests(1.0) == [BTC]


def test_every_book_gets_a_new_snapshot_each_hour_because_readers_forget_old_ones() -> None:
    books = OrderBooks((BTC,))
    books.apply(BookFrame("snapshot", [book(BTC)]), 0.0)
    books.apply(BookFrame("update", [book(BTC)]), 3_000.0)
    assert books.take_requests(3_599.0) == []
    assert books.take_requests(3_600.0) == [BTC]
    assert books.reason(BTC) == "refresh"
    books.apply(BookFrame("snapshot", [book(BTC)]), 3_600.1)
    assert books.take_requests(7_200.0) == []


def test_a_frame_that_was_left_out_of_the_log_is_followed_by_a_snapshot() -> None:
    books = OrderBooks((BTC,))
    books.apply(BookFrame("snapshot", [book(BTC)]), 0.0)
    for now_s in (100.0, 101.0, 105.0):
        books.left_out(BTC, now_s)
    assert books.take_requests(109.0) == []
    assert books.take_requests(110.0) == [BTC]
    assert books.reason(BTC) == "left_out"
    books.left_out("XBT/USD", 111.0)
    books.apply(BookFrame("snapshot", [book(BTC)]), 110.5)
    books.left_out(BTC, 110.5)  # the snapshot was left out, too
    assert books.take_requests(120.5) == [BTC]
