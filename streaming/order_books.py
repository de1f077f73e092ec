"""The order books of one connection, kept only to verify the exchange's checksums.

A book that does not match is wrong until its next snapshot. The first mismatch asks for one at once, further ones ask
more and more rarely: the stream continues without that book, and a metric says so. Readers of the log need a snapshot,
too, after frames were left out of the log, and every hour, so that a row never depends on an older frame.
What does not belong here: how a book and its checksum are computed (`btc_core.market.book`), or subscribing
(`exchange_link`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from btc_core import metrics
from btc_core.errors import BadFrame
from btc_core.market.book import OrderBook
from streaming.backoff import backoff_s

if TYPE_CHECKING:
    from collections.abc import Iterable

    from btc_core.market.frames import BookData, BookFrame, InstrumentFrame

log = logging.getLogger(__name__)

DEPTH = 10
"""Levels of each side: the depth that ingest subscribes to."""
DEFAULT_PRECISION = (1, 8)
"""Decimals of price and quantity of BTC/USD, for a book that comes before the exchange's list of pairs."""
RETRY_FIRST_S, RETRY_MAX_S = 2.0, 600.0
"""Pause before the snapshot after the second mismatch; it doubles after each further one."""
SNAPSHOT_PATIENCE_S = 30.0
"""Time after which a requested snapshot that did not come is requested again."""
UNVERIFIED_MISMATCHES = 3
"""So many mismatches without a stable time between them, and the book counts as one that cannot be verified."""
STABLE_S = 60.0
"""A book that matched for this long is sound again, and its next mismatch counts as the first."""


REFRESH_S = 3_600.0
"""Time from a snapshot to the request for the next one. Features of a book are empty `depth.MAX_SNAPSHOT_AGE_S` (6 h) after
its snapshot."""
LEFT_OUT_PAUSE_S = 10.0
"""Time from the first frame that was left out of the log to the request for a snapshot. While frames are still left out,
the snapshot is, too, and the next one is requested after the same time."""


class _Check:
    """The history of one book, across connections."""

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.mismatches = 0
        self.matching_since_s: float | None = None
        self.request_s: float | None = None
        """When the next snapshot is requested; None while none is needed."""
        self.reason = "checksum"
        """Why it is requested: `checksum`, `left_out` or `refresh`."""

    def request_at(self, request_s: float, reason: str) -> None:
        self.request_s, self.reason = request_s, reason

    def matched(self, now_s: float) -> None:
        if self.matching_since_s is None:
            self.matching_since_s = now_s
        if self.mismatches and now_s - self.matching_since_s >= STABLE_S:
            if self.mismatches >= UNVERIFIED_MISMATCHES:
                log.info("%s: the order book matches its checksums again", self.symbol)
            self.mismatches = 0
            metrics.BOOK_UNVERIFIED.labels(self.symbol).set(0)

    def mismatched(self, error: BadFrame, now_s: float) -> None:
        self.mismatches += 1
        self.matching_since_s = None
        pause_s = 0.0 if self.mismatches == 1 else backoff_s(self.mismatches - 2, RETRY_FIRST_S, RETRY_MAX_S)
        self.request_at(now_s + pause_s, "checksum")
        metrics.BOOK_MISMATCHES.labels(self.symbol).inc()
        if self.mismatches < UNVERIFIED_MISMATCHES:
            log.warning("%s; subscribing to this book again in %.0f s", error, pause_s)
        elif self.mismatches == UNVERIFIED_MISMATCHES:
            log.error("%s: the order book does not match after %d snapshots (%s); continuing without it, and asking "
                      "more and more rarely", self.symbol, self.mismatches, error)  # fmt: skip
            metrics.BOOK_UNVERIFIED.labels(self.symbol).set(1)


class OrderBooks:
    """One book for each of `symbols`; frames of other markets are not applied. `now_s` is monotonic seconds."""

    def __init__(self, symbols: Iterable[str]) -> None:
        self._books: dict[str, OrderBook] = {}
        self._checks = {symbol: _Check(symbol) for symbol in symbols}
        self._precision: dict[str, tuple[int, int]] = {}
        for symbol in self._checks:
            metrics.BOOK_UNVERIFIED.labels(symbol).set(0)

    def clear(self) -> None:
        """Forget every book, for a new connection; precisions and past mismatches stay."""
        self._books.clear()
        for check in self._checks.values():
            check.request_s = None

    def set_precisions(self, frame: InstrumentFrame, now_s: float) -> None:
        """Remember the decimals of the followed pairs; a book of another precision needs a new snapshot."""
        for pair in frame.data.pairs:
            if pair.symbol not in self._checks:
                continue
            precision = (pair.price_precision, pair.qty_precision)
            if pair.symbol in self._books and self._precision.get(pair.symbol, DEFAULT_PRECISION) != precision:
                del self._books[pair.symbol]
                self._checks[pair.symbol].request_at(now_s, "checksum")
            self._precision[pair.symbol] = precision

    def apply(self, frame: BookFrame, now_s: float) -> bool:
        """Apply a frame; returns whether all its books are known and all its checksums match."""
        results = [self._apply_entry(data, now_s, snapshot=frame.type == "snapshot") for data in frame.data]
        return all(results) and not frame.bad

    def left_out(self, symbol: str, now_s: float) -> None:
        """Ask for a snapshot soon, because a frame of this book is not in the log."""
        check = self._checks.get(symbol)
        if check is not None and (check.request_s is None or check.reason == "refresh"):
            check.request_at(now_s + LEFT_OUT_PAUSE_S, "left_out")

    def take_requests(self, now_s: float) -> list[str]:
        """The symbols whose snapshot has to be requested now; each is returned once."""
        due = [check for check in self._checks.values() if check.request_s is not None and check.request_s <= now_s]
        for check in due:
            check.request_s = now_s + SNAPSHOT_PATIENCE_S
        return [check.symbol for check in due]

    def reason(self, symbol: str) -> str:
        """Why the last snapshot of a symbol was requested: `checksum`, `left_out` or `refresh`."""
        return self._checks[symbol].reason

    def _apply_entry(self, data: BookData, now_s: float, *, snapshot: bool) -> bool:
        check = self._checks.get(data.symbol)
        if check is None:
            return False
        if snapshot:
            precision = self._precision.get(data.symbol, DEFAULT_PRECISION)
            self._books[data.symbol] = OrderBook(data.symbol, DEPTH, *precision)
            check.request_at(now_s + REFRESH_S, "refresh")
        book = self._books.get(data.symbol)
        if book is None:
            return False
        try:
            book.apply(data, snapshot=snapshot)
        except BadFrame as error:
            del self._books[data.symbol]
            check.mismatched(error, now_s)
            return False
        check.matched(now_s)
        return True
