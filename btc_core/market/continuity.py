"""Which trade ids have been seen: next, duplicate, filling a gap, or opening one.

One small state per symbol, shared by the workers and by replay, so that all of them take the same trades.
What does not belong here: repairing a gap (`streaming`), or writing it down.
"""

from __future__ import annotations

from enum import Enum


class Verdict(Enum):
    """What a trade id means for the sequence."""

    NEXT = "next"
    OPENS_GAP = "opens_gap"
    FILLS_GAP = "fills_gap"
    DUPLICATE = "duplicate"


class TradeContinuity:
    """The trade ids of one symbol seen so far, as the last one and the open gaps below it.

    Ids below the first one seen count as duplicates: history before the start is not a gap.
    """

    def __init__(self, last_id: int | None = None, open_gaps: list[tuple[int, int]] | None = None) -> None:
        self.last_id = last_id
        self.open_gaps: list[tuple[int, int]] = list(open_gaps or [])
        """Inclusive ranges of missing ids, oldest first."""

    def observe(self, trade_id: int) -> Verdict:
        """Take note of one id and say what it is.

        >>> seen = TradeContinuity()
        >>> [seen.observe(i).value for i in (7, 8, 11, 9, 9)]
        ['next', 'next', 'opens_gap', 'fills_gap', 'duplicate']
        >>> seen.open_gaps
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

    def give_up(self, first_id: int, last_id: int) -> int:
        """Take the missing ids of this range out of the open gaps: they will never come. Returns how many those were.

        >>> seen = TradeContinuity(10, [(3, 5), (8, 8)])
        >>> seen.give_up(4, 8), seen.open_gaps
        (3, [(3, 3)])
        """
        before = self.missing()
        self.open_gaps = [
            (low, high)
            for first, last in self.open_gaps
            for low, high in ((first, min(last, first_id - 1)), (max(first, last_id + 1), last))
            if low <= high
        ]
        return before - self.missing()

    def missing(self) -> int:
        """How many ids are missing in all open gaps."""
        return sum(last - first + 1 for first, last in self.open_gaps)
