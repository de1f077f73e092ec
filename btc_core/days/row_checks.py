"""The checks that every imported row passes, whatever it describes: its values can be read, and its market is the right one.

What does not belong here: the checks of bars and trades (`bar_files`, `trade_files`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from btc_core.days.file_names import market_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.days.bad_rows import BadRows
    from btc_core.days.file_columns import Column

_SHOWN_CHARACTERS = 40


class RowChecks:
    """The checks of one block of rows. They mark bad rows and report them to `BadRows`."""

    def __init__(self, numbers: np.ndarray, bad: BadRows) -> None:
        self._numbers = numbers
        self._bad = bad
        self.is_good = np.ones(len(numbers), bool)

    def refuse(self, fault: str, mask: np.ndarray, value_of: Callable[[int], str] = lambda _: "") -> None:
        """Mark the rows of a mask as bad; `value_of` returns the value to show for the index of a row in the block."""
        places = np.flatnonzero(mask & self.is_good)
        self.is_good[places] = False
        self._bad.add(fault, self._numbers[places].tolist(), lambda place: value_of(int(places[place])))

    def values(self, name: str, raw: pa.Array, column: Column, kind: str, *, is_optional: bool = False) -> np.ndarray:
        """The values of a converted column. Rows without a value of this kind are bad."""
        if not is_optional:
            self.refuse(f"{name} is missing", column.is_missing)
        self.refuse(
            f"{name} is not {kind}", column.is_unreadable, lambda row: str(raw[row].as_py())[:_SHOWN_CHARACTERS]
        )
        return column.values

    def market(self, raw: pa.Array, symbol: str) -> None:
        """Mark the rows that a column of markets assigns to another market than `symbol`."""
        words = raw.cast(pa.string()).fill_null("").dictionary_encode()
        wanted = market_of(symbol) or symbol
        names = words.dictionary.to_pylist()
        is_other = np.array([(market_of(name) or name) != wanted for name in names], bool)
        codes = words.indices.to_numpy(zero_copy_only=False)
        for code in np.flatnonzero(is_other).tolist():
            self.refuse(f"the row is of {names[code] or 'no market'}, not of {symbol}", codes == code)


def first_market(raw: pa.Array) -> str | None:
    """The first market in a column of markets, as the pipeline writes it."""
    names = pc.drop_null(raw.cast(pa.string())).slice(0, 1).to_pylist()
    return (market_of(names[0]) or str(names[0])) if names else None
