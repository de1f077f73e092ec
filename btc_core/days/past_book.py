"""The order book of a past moment, from the frames in the log or in the archive of a day.

What does not belong here: the book and its checksum (`btc_core.market.book`), and what features are made of it
(`btc_core.features.depth`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from btc_core.clock import NS_PER_MIN, NS_PER_S, from_ns
from btc_core.days.forecast_search import TAIL_NS, blocks_between
from btc_core.errors import InvalidInput
from btc_core.features.depth import MAX_SNAPSHOT_AGE_S
from btc_core.features.engine import FeatureEngine

if TYPE_CHECKING:
    from btc_core.settings import Settings
    from btc_core.stores.s3 import ObjectStore

READ_NS = MAX_SNAPSHOT_AGE_S * NS_PER_S + NS_PER_MIN
"""How long before a moment a snapshot can have begun its book."""


class PastBook(msgspec.Struct, frozen=True):
    """The levels of an order book that every checksum up to its last frame has verified, best first."""

    received_ns: int
    """When its last frame was received, ns since the epoch."""
    bids: tuple[tuple[float, float], ...]
    """Price and quantity of each level."""
    asks: tuple[tuple[float, float], ...]


def book_at(settings: Settings, store: ObjectStore, symbol: str, partition: int, at_ns: int) -> PastBook:
    """The order book of a market, whose messages are in one partition, after the last frame received until a time.

    Raises `InvalidInput` if there was none then or its frames are not stored, and `ServiceError`.
    """
    engine, newest_ns = FeatureEngine(), 0
    _, blocks = blocks_between(settings, store, partition, (at_ns - READ_NS, at_ns + TAIL_NS), at_ns)
    for block in blocks():
        received_ns = block.lines["received_ns"]
        is_wanted = block.lines["is_book"] & (received_ns >= at_ns - READ_NS) & (received_ns <= at_ns)
        engine.warm_up(block, is_wanted)
        newest_ns = max(newest_ns, int(np.max(received_ns[is_wanted], initial=0)))
    book = engine.order_book(symbol, partition)
    if book is None:
        when = f"{from_ns(at_ns):%Y-%m-%dT%H:%M:%SZ}"
        raise InvalidInput(
            f"no order book of {symbol} was known at {when}: it had no snapshot yet, or had lost a frame"
        )
    return PastBook(newest_ns, tuple(book.bids()), tuple(book.asks()))
