"""Rows of an imported file that cannot be used: counted by fault, each fault with a few examples.

What does not belong here: which rows are bad (`bar_files`, `trade_files`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from btc_core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLES = 3
"""The number of rows that a report shows for each fault."""
SKIP_HINT = "Correct these rows, or leave them out with --skip-bad-rows."


class BadRows:
    """The bad rows of one file. A row with several faults counts for the first one."""

    def __init__(self, unit: str) -> None:
        self.unit = unit
        """What a row is counted in: `line` of a text file, or `row` of a Parquet file."""
        self._counts: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}

    @property
    def count(self) -> int:
        """The number of bad rows."""
        return sum(self._counts.values())

    def add(self, fault: str, numbers: list[int], value_of: Callable[[int], str] = lambda _: "") -> None:
        """Add rows with a fault; `value_of` returns the value to show for a position in `numbers`."""
        if not numbers:
            return
        self._counts[fault] = self._counts.get(fault, 0) + len(numbers)
        examples = self._examples.setdefault(fault, [])
        for place, number in enumerate(numbers[: EXAMPLES - len(examples)]):
            value = value_of(place)
            examples.append(f"{self.unit} {number}" + (f" ({value})" if value else ""))

    def report(self) -> list[str]:
        """One line for each fault, the most frequent first."""
        faults = sorted(self._counts, key=lambda fault: -self._counts[fault])
        return [
            f"{self._counts[fault]} × {fault}: {', '.join(self._examples[fault])}"
            + (", …" if self._counts[fault] > len(self._examples[fault]) else "")
            for fault in faults
        ]

    def refuse(self, label: str, rows: int, forms: str, *, are_skipped: bool) -> None:
        """Raise `InvalidInput` with the report if bad rows are not skipped, or if all `rows` rows of the file are bad.

        `forms` says what a file must look like.
        """
        if not rows:
            msg = f"{label} has no rows. {forms}"
            raise InvalidInput(msg)
        if self.count < rows and (are_skipped or not self.count):
            return
        advice = SKIP_HINT if self.count < rows else f"{forms}."
        msg = "\n  ".join([f"{label}: {self.count} of {rows} rows cannot be used", *self.report()]) + f"\n{advice}"
        raise InvalidInput(msg)
