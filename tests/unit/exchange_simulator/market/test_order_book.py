"""Books around a quote are ordered, full, and begin with the quote."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btc_core.clock import NS_PER_MIN
from exchange_simulator.market.generated import EPOCH_MIN, GeneratedMarket
from exchange_simulator.market.order_book import BookGenerator
from exchange_simulator.pairs import BTC_USD

pytestmark = pytest.mark.unit

MARKET = GeneratedMarket(BTC_USD, seed=3)
MINUTES = st.integers(EPOCH_MIN, EPOCH_MIN + 400 * 1_440)
WITHOUT_DEADLINE = settings(deadline=None, max_examples=40)
"""The first example compiles the kernels."""


@WITHOUT_DEADLINE
@given(MINUTES, st.integers(0, 59_999), st.sampled_from([10, 25, 100, 1_000]))
def test_a_book_is_ordered_from_its_quote_outward_and_full(minute: int, ms: int, depth: int) -> None:
    quote = MARKET.quote_at(minute * NS_PER_MIN + ms * 1_000_000)
    bids, asks = BookGenerator(BTC_USD, 3).sides(quote, depth)
    assert list(bids) == sorted(bids, reverse=True)
    assert list(asks) == sorted(asks)
    assert (next(iter(bids.items())), next(iter(asks.items()))) == (
        (quote.bid, quote.bid_qty),
        (quote.ask, quote.ask_qty),
    )
    assert len(bids) == len(asks) == depth
    assert min(*bids.values(), *asks.values()) > 0
