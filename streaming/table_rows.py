"""Rows as the data frame that QuestDB's client sends, with the types that the table's columns have.

What does not belong here: which rows there are (the workers), and what the columns are (`btc_core.tables.catalogue`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from btc_core.tables.form import Table

_TYPES = {"TIMESTAMP_NS": "datetime64[ns]", "SYMBOL": "category", "INT": "int32"}
"""Of pandas, for columns whose type it would not see in the values."""


def typed(table: Table, rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows by column name, each with a value for every column of the table."""
    return pd.DataFrame(rows).astype(
        {column.name: _TYPES[column.type] for column in table.columns if column.type in _TYPES}
    )
