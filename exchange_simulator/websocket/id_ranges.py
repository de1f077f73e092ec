"""A compact set of trade ids, for the ledger and for what the market has published.

What does not belong here: whose trades they are (`ledger`, `channels`).
"""

from __future__ import annotations

from bisect import bisect_right


class IdRanges:
    """A set of integers that arrive mostly in order, kept as inclusive ranges.

    >>> ids = IdRanges()
    >>> for number in (1, 2, 5, 3, 2):
    ...     ids.add(number)
    >>> ids.ranges(), len(ids), ids.repeats
    ([[1, 3], [5, 5]], 4, 1)
    """

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self.repeats = 0
        """How often a number was added that was in the set already."""

    def add(self, number: int) -> None:
        """Add one number, or count a repeat."""
        at = bisect_right(self._firsts, number) - 1
        if at >= 0 and number <= self._lasts[at]:
            self.repeats += 1
            return
        joins_left = at >= 0 and self._lasts[at] == number - 1
        joins_right = at + 1 < len(self._firsts) and self._firsts[at + 1] == number + 1
        if joins_left and joins_right:
            self._lasts[at] = self._lasts.pop(at + 1)
            del self._firsts[at + 1]
        elif joins_left:
            self._lasts[at] = number
        elif joins_right:
            self._firsts[at + 1] = number
        else:
            self._firsts.insert(at + 1, number)
            self._lasts.insert(at + 1, number)

    def ranges(self) -> list[list[int]]:
        """Inclusive [first, last] pairs in order."""
        return [[first, last] for first, last in zip(self._firsts, self._lasts, strict=True)]

    def summary(self) -> dict[str, int | None]:
        """The number of ids, the first and the last."""
        first, last = (self._firsts[0], self._lasts[-1]) if self._firsts else (None, None)
        return {"count": len(self), "first_id": first, "last_id": last}

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in zip(self._firsts, self._lasts, strict=True))
