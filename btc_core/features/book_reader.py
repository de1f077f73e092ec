"""The order book of one market as the log has it: book frames in, events of the fold out.

The log may lack frames that ingest left out under overload, so this reader keeps a book of its own and verifies every
checksum, instead of trusting that ingest's book was right. The stream and every replay read the same log with this class.
What does not belong here: the book and its checksum (`market.book`), or what the fold makes of its events (`depth`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from btc_core.clock import NS_PER_S
from btc_core.features.depth import LEVELS, MAX_SNAPSHOT_AGE_S, measured
from btc_core.market.book import OrderBook, SavedBook
from btc_core.market.events import BOOK_ASKS, BOOK_BIDS, BOOK_LOST, check_time
from btc_core.market.frames import timestamp_ns

if TYPE_CHECKING:
    from btc_core.features.state import PackedEvent
    from btc_core.market.frames import BookData
    from btc_core.market.messages import Envelope


class SavedReader(msgspec.Struct, frozen=True):
    """The state of a reader in a checkpoint."""

    book: SavedBook | None = None
    snapshot_ns: int = 0
    newest_ns: int = 0


class BookReader:
    """Turns the frames of one book into events: two for each frame, or one that says that the book is lost.

    A lost book stays lost until its next snapshot. `saved` is what `save` returned.
    """

    def __init__(self, saved: SavedReader | None = None) -> None:
        saved = saved or SavedReader()
        self.book = None if saved.book is None else OrderBook.load(saved.book)
        """None while it is lost."""
        self._snapshot_ns = saved.snapshot_ns
        """The exchange time of the snapshot that the book began with."""
        self._newest_ns = saved.newest_ns
        """The exchange time of the last frame."""

    def save(self) -> SavedReader:
        """Return the state, for a checkpoint."""
        return SavedReader(None if self.book is None else self.book.save(), self._snapshot_ns, self._newest_ns)

    def read(self, data: BookData, frame_type: str, envelope: Envelope) -> list[PackedEvent]:
        """Apply one entry of a frame and return its events; raises `BadFrame`, after which the caller calls `lose`."""
        ts_ns = timestamp_ns(data.timestamp, envelope.ts_recv_ns)
        check_time(ts_ns, envelope.ts_recv_ns, envelope.clock_offset_ns or 0)
        is_snapshot = frame_type == "snapshot"
        if is_snapshot:
            if self.book is not None and ts_ns < self._newest_ns:  # from a second connection that is behind
                return []
            self.book = OrderBook.of_snapshot(data)
            self._snapshot_ns = ts_ns
        elif self.book is None:
            return []
        elif ts_ns - self._snapshot_ns > MAX_SNAPSHOT_AGE_S * NS_PER_S:
            return self.lose()
        self._newest_ns = ts_ns
        self.book.apply(data, snapshot=is_snapshot)
        bids, asks = measured(self.book.bids(LEVELS), self.book.asks(LEVELS)).tolist()
        return [(ts_ns, BOOK_BIDS, *bids), (ts_ns, BOOK_ASKS, *asks)]

    def lose(self) -> list[PackedEvent]:
        """Forget the book; returns the event that says so, or nothing if there was no book."""
        if self.book is None:
            return []
        self.book = None
        return [(self._newest_ns, BOOK_LOST, 0.0, 0.0, 0.0, 0.0, 0.0)]
