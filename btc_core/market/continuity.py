"""The continuity of trade ids: each id is the next one, a duplicate, opens a gap, or fills one.

The workers and the replay use the same class, one object per symbol, so they all accept the same trades.
What does not belong here: repairing a gap or storing it (`streaming`).
"""

from __future__ import annotations

from enum import Enum


class Verdict(Enum):
    """How a trade id relates to the ids before it."""

    NEXT = "next"
    OPENS_GAP = "opens_gap"
    FILLS_GAP = "fills_gap"
    DUPLICATE = "duplicate"


class TradeContinuity:
    """The trade ids of one symbol that have been observed: the highest id, and the open gaps below it.

    An id below the first observed id counts as a duplicate, because history before the start is not a gap.
    """

    def __init__(self, last_id: int | None = None, open_gaps: list[tuple[int, int]] | None = None) -> None:
        self.last_id = last_id
        self.open_gaps: list[tuple[int, int]] = list(open_gaps or [])
        """Inclusive ranges of missing ids, oldest first."""

    def observe(self, trade_id: int) -> Verdict:
        """Add one id and return its verdict.

        >>> trades = TradeContinuity()
        >>> [trades.observe(i).value for i in (7, 8, 11, 9, 9)]
        ['next', 'next', 'opens_gap', 'fills_gap', 'duplicate']
        >>> trades.open_gaps
        [(10, 10)]
        """
        if self.last_id is None or trade_id == self.last_id + 1:
            self.last_id = trade_id
            return Verdict.NEXT
        if trade_id > self.last_id:
            self.open_gaps.append((self.last_id + 1, trade_id - 1))
            self.last_id = trade_id
            return Verdict.OPENS_GAP
        for index, (first, last) in enumerate(self.open_gaps):
            if first <= trade_id <= last:
                rest = [(first, trade_id - 1), (trade_id + 1, last)]
                self.open_gaps[index : index + 1] = [(low, high) for low, high in rest if low <= high]
                return Verdict.FILLS_GAP
        return Verdict.DUPLICATE

    def mark_absent(self, first_id: int, last_id: int) -> int:
        """Remove the missing ids of a range from the open gaps, because they will never arrive; return their number.

        >>> trades = TradeContinuity(10, [(3, 5), (8, 8)])
        >>> trades.mark_absent(4, 8), trades.open_gaps
        (3, [(3, 3)])
        """
        missing_before = self.missing()
        self.open_gaps = [
            (low, high)
            for first, last in self.open_gaps
            for low, high in ((first, min(last, first_id - 1)), (max(first, last_id + 1), last))
            if low <= high
        ]
        return missing_before - self.missing()

    def missing(self) -> int:
        """Return the number of ids that are missing in all open gaps."""
        return sum(last - first + 1 for first, last in self.open_gaps)
