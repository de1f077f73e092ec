"""Rows of any table of the catalogue, for tests that need rows and not a market."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from btc_core.clock import NS_PER_S
from btc_core.tables.arrow import arrow_schema
from btc_core.utc_day import day_ns

if TYPE_CHECKING:
    from btc_core.tables.form import Table

ROWS = 500


def made_up(table: Table, day: str, rows: int = ROWS, **given: list[Any]) -> pa.Table:
    """Rows of any table: distinct keys, NaN among the numbers; `given` columns are as they are given."""
    rng = np.random.default_rng(5)
    columns = {}
    for name, kind in zip(arrow_schema(table).names, arrow_schema(table).types, strict=True):
        if name in given:
            columns[name] = pa.array(given[name]).cast(kind)
            continue
        if name == table.timestamp:
            values = day_ns(day) + np.arange(rows) * NS_PER_S * 3
        elif pa.types.is_floating(kind):
            values = np.where(rng.random(rows) < 0.2, np.nan, rng.normal(size=rows))
        elif pa.types.is_string(kind):
            values = rng.choice(["BTC/USD", "ETH/USD"], rows)
        elif pa.types.is_boolean(kind):
            values = rng.random(rows) < 0.5
        else:
            values = day_ns(day) + np.arange(rows) if pa.types.is_timestamp(kind) else np.arange(rows)
        columns[name] = pa.array(values).cast(kind)
    return pa.table(columns)
