"""The order book, compared with a reference that keeps sorted lists, for random sequences of updates."""

from __future__ import annotations

import zlib
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btc_core.market.book import ChecksumMismatch, OrderBook
from btc_core.market.frames import BookData, Level

pytestmark = pytest.mark.unit

DEPTH = 10
LEVELS = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 3)), max_size=8)
"""Tuples (price in tenths, quantity in hundred-millionths). A quantity of 0 deletes the level."""


def reference(old: list[tuple[int, int]], changes: list[tuple[int, int]], *, best_high: bool) -> list[tuple[int, int]]:
    """Return the levels after the changes, best first, truncated to the depth."""
    for price, qty in changes:
        old = [level for level in old if level[0] != price] + ([(price, qty)] if qty else [])
    return sorted(old, reverse=best_high)[:DEPTH]


def levels(changes: list[tuple[int, int]]) -> list[Level]:
    return [Level(Decimal(price).scaleb(-1), Decimal(qty).scaleb(-8)) for price, qty in changes]


def crc(bids: list[tuple[int, int]], asks: list[tuple[int, int]]) -> int:
    return zlib.crc32("".join(f"{price}{qty}" for price, qty in asks + bids).encode())


@given(steps=st.lists(st.tuples(st.booleans(), LEVELS, LEVELS), min_size=1, max_size=30))
@settings(max_examples=200, deadline=None)
def test_the_book_equals_its_reference_after_every_update(
    steps: list[tuple[bool, list[tuple[int, int]], list[tuple[int, int]]]],
) -> None:
    book, bids, asks = OrderBook("BTC/USD", DEPTH), [], []
    for snapshot, bid_changes, ask_changes in steps:
        bids = reference([] if snapshot else bids, bid_changes, best_high=True)
        asks = reference([] if snapshot else asks, ask_changes, best_high=False)
        data = BookData("BTC/USD", levels(bid_changes), levels(ask_changes), crc(bids, asks))
        book.apply(data, snapshot=snapshot)
        assert book.bids() == [(price / 10, qty / 1e8) for price, qty in bids]
        assert book.asks() == [(price / 10, qty / 1e8) for price, qty in asks]


@given(bids=LEVELS, asks=LEVELS)
def test_a_wrong_checksum_raises_a_mismatch(bids: list[tuple[int, int]], asks: list[tuple[int, int]]) -> None:
    right = crc(reference([], bids, best_high=True), reference([], asks, best_high=False))
    with pytest.raises(ChecksumMismatch):
        OrderBook("BTC/USD", DEPTH).apply(BookData("BTC/USD", levels(bids), levels(asks), right ^ 1), snapshot=True)
