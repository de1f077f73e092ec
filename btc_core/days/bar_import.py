"""Importing minute bars of a file into `minute_bars`, without changing stored bars unless that is asked for.

What does not belong here: reading the file (`bar_files`), and bars made from trades (`trade_bars`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa

from btc_core.clock import NS_PER_MIN
from btc_core.errors import InvalidInput
from btc_core.market.bars import bars_of_table
from btc_core.market.checked_bars import describe, have_equal_values
from btc_core.stores.questdb import append, wait_until_applied, write_rows
from btc_core.tables.arrow import arrow_schema
from btc_core.tables.catalogue import MINUTE_BARS
from btc_core.tables.form import Column, Table
from btc_core.tables.rows import minute_bars
from btc_core.tables.sql import of_symbol, within

if TYPE_CHECKING:
    from collections.abc import Callable

    from btc_core.stores.questdb import QuestDB

SOURCE = "file"
"""Value of the column `source` of imported bars."""
BLOCK_BARS = 50_000
"""Bars that are compared or written at a time. Each write is one commit in QuestDB."""
FEW_BARS, MOST_DIFFER = 10, 0.5
"""From this number of common minutes on, a file is of another market if more than this share of them differs."""

REPLACED_BARS = Table(
    "replaced_bars",
    "bronze",
    "Minute bars that an import replaced. Undoing the import restores them.",
    (*MINUTE_BARS.columns, Column("replaced_by", "SYMBOL", "", "id of the import that replaced the bar")),
    (*MINUTE_BARS.keys, "replaced_by"),
)
"""This table is no part of the catalogue. It belongs to the imports of this database, so no copy of it is kept."""


class BarPlan(msgspec.Struct, frozen=True):
    """What importing bars would do."""

    new: np.ndarray
    """Bars (dtype `BARS`) of minutes without a stored bar."""
    stored: int
    """The number of minutes whose stored bar has the same values."""
    different: np.ndarray
    """Bars of minutes whose stored bar has other values."""
    stored_different: pa.Table
    """The stored bars of these minutes, in the same order, as rows of `minute_bars`."""
    replaces: bool
    """Whether the different bars replace the stored ones."""

    @property
    def written(self) -> np.ndarray:
        """The bars to write, sorted."""
        if not self.replaces:
            return self.new
        bars = np.concatenate([self.new, self.different])
        return bars[np.argsort(bars["ts_ns"])]

    def example(self) -> str:
        """The first stored bar that differs, and the bar of the file."""
        stored = bars_of_table(self.stored_different.slice(0, 1))[0]
        source = self.stored_different["source"][0].as_py()
        return f"stored from {source}: {describe(stored)}; in the file: {describe(self.different[0])}"


def plan_bars(db: QuestDB, symbol: str, bars: np.ndarray, *, replaces: bool = False) -> BarPlan:
    """Compare bars (dtype `BARS`, sorted, one for each minute) with the stored ones of their minutes."""
    is_new, is_different = np.ones(len(bars), bool), np.zeros(len(bars), bool)
    kept: list[pa.Table] = []
    for start in range(0, len(bars), BLOCK_BARS):
        block = bars[start : start + BLOCK_BARS]
        rows = stored_bars(db, symbol, int(block["ts_ns"][0]), int(block["ts_ns"][-1]) + NS_PER_MIN)
        stored = bars_of_table(rows)
        _, here, there = np.intersect1d(block["ts_ns"], stored["ts_ns"], assume_unique=True, return_indices=True)
        is_new[start + here] = False
        differs = ~have_equal_values(block[here], stored[there])
        is_different[start + here[differs]] = True
        kept.append(rows.take(pa.array(there[differs])))
    different_rows = pa.concat_tables(kept) if kept else arrow_schema(MINUTE_BARS).empty_table()
    return BarPlan(bars[is_new], int((~is_new & ~is_different).sum()), bars[is_different], different_rows, replaces)


def check_same_market(plan: BarPlan, label: str, symbol: str) -> None:
    """Raise `InvalidInput` if most of the minutes that are stored and in the file have different bars."""
    common = plan.stored + len(plan.different)
    if not plan.replaces and common >= FEW_BARS and len(plan.different) > MOST_DIFFER * common:
        msg = (
            f"{label}: {len(plan.different)} of the {common} minutes that are stored already have other values, so this "
            f"is probably not a file of {symbol} on this exchange. Nothing was imported. The first such minute is "
            f"{plan.example()}. To import the file all the same, add --replace"
        )
        raise InvalidInput(msg)


def store_bars(db: QuestDB, symbol: str, plan: BarPlan, import_id: str, advance: Callable[[int], None]) -> None:
    """Write the bars of a plan and return when queries can read them; bars that they replace go to `replaced_bars`.

    `advance` is called with the number of bars of each write.
    """
    if plan.replaces and len(plan.different):
        db.execute(REPLACED_BARS.ddl(db.settings))
        replaced_by = pa.array([import_id] * len(plan.different), pa.string())
        write_rows(db, REPLACED_BARS, plan.stored_different.append_column("replaced_by", replaced_by))
    bars = plan.written
    for start in range(0, len(bars), BLOCK_BARS):
        block = bars[start : start + BLOCK_BARS]
        append(db, MINUTE_BARS, minute_bars(block, symbol, SOURCE, import_id))
        advance(len(block))
    if len(bars):
        wait_until_applied(db, MINUTE_BARS.name)


def stored_bars(db: QuestDB, symbol: str, begin_ns: int, end_ns: int, name: str = MINUTE_BARS.name) -> pa.Table:
    """The rows of `minute_bars`, or of a table with the same columns, in a time range, oldest first."""
    columns = ", ".join(column.name for column in MINUTE_BARS.columns)
    rows = db.query(
        f"SELECT {columns} FROM {name} WHERE {of_symbol(symbol)} AND {within('ts', begin_ns, end_ns)} ORDER BY ts"  # noqa: S608 - names of the catalogue
    )
    schema = arrow_schema(MINUTE_BARS)
    return pa.table([rows[field.name].cast(field.type) for field in schema], schema=schema)
