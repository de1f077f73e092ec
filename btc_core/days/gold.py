"""The gold bars of a sealed day: computed from its silver rows, and kept independently of the materialized views.

What does not belong here: the formulas of the bars. Those are the statements of the views in `tables.catalogue`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from btc_core.days.stored_days import read_day
from btc_core.market.bars import bars_of_table
from btc_core.stores.questdb import write_rows
from btc_core.tables.arrow import in_form
from btc_core.tables.bar_tables import GOLD_1MIN, GOLD_1MIN_SEALED, GOLD_5MIN, GOLD_5MIN_SEALED
from btc_core.tables.catalogue import MINUTE_BARS, SILVER_FEATURES
from btc_core.tables.rows import minute_bars
from btc_core.tables.sql import on_day

if TYPE_CHECKING:
    from btc_core.stores.questdb import QuestDB
    from btc_core.tables.form import Table

RELATIVE_TOLERANCE = 1e-9
"""QuestDB sums in parallel, so the last digits of a sum depend on how it splits the day."""


class GoldProof(msgspec.Struct, frozen=True, kw_only=True):
    """The result of comparing a view's bars of a day with the bars computed at sealing."""

    rows: int
    rows_missing: int
    """Bars that the view does not have."""
    rows_different: int
    max_abs_diff: dict[str, float]


_SOURCES: dict[str, tuple[Table, Table, Table]] = {
    GOLD_1MIN_SEALED.name: (GOLD_1MIN, SILVER_FEATURES, SILVER_FEATURES),
    GOLD_5MIN_SEALED.name: (GOLD_5MIN, GOLD_1MIN, GOLD_1MIN_SEALED),
}
"""For each table of sealed bars: its view, the table that the view reads, and the table to read instead."""


def statement(sealed: Table, day: str) -> str:
    """The SELECT of the view, over one day of the sealed source."""
    view, reads, source = _SOURCES[sealed.name]
    return view.view.replace(f"FROM {reads.name} SAMPLE", f"FROM {source.name} WHERE {on_day(source, day)} SAMPLE")


def make_gold(db: QuestDB, sealed: Table, day: str) -> GoldProof:
    """Compute the bars of a day, write them, and compare the view with them."""
    rows = in_form(db.query(statement(sealed, day)), sealed)
    write_rows(db, sealed, rows)
    return _compare(rows, read_day(db, _SOURCES[sealed.name][0], day), sealed)


def fill_minute_bars(db: QuestDB, day: str) -> tuple[int, int]:
    """Add the traded minutes of a day to `minute_bars` where it has no bar; returns traded minutes and bars written."""
    bars = read_day(db, GOLD_1MIN_SEALED, day)
    traded = bars.filter(pc.greater(bars["trades"], 0))
    stored = read_day(db, MINUTE_BARS, day)
    known = set(zip(stored["ts"].to_pylist(), stored["symbol"].to_pylist(), strict=True))
    places = zip(traded["ts"].to_pylist(), traded["symbol"].to_pylist(), strict=True)
    new = traded.filter(pa.array([place not in known for place in places], pa.bool_()))
    for symbol in pc.unique(new["symbol"]).to_pylist():
        bars = bars_of_table(new.filter(pc.equal(new["symbol"], symbol)))
        write_rows(db, MINUTE_BARS, minute_bars(bars, symbol, "sealed"))
    return len(traded), len(new)


def _compare(rows: pa.Table, seen: pa.Table, sealed: Table) -> GoldProof:
    keys = [list(zip(*(table[name].to_pylist() for name in sealed.keys), strict=True)) for table in (rows, seen)]
    places = {key: place for place, key in enumerate(keys[1])}
    pairs = [(here, places[key]) for here, key in enumerate(keys[0]) if key in places]
    here, there = (np.array(side, np.int64) for side in zip(*pairs, strict=True)) if pairs else (np.empty(0, int),) * 2
    wrong = np.zeros(len(here), bool)
    largest: dict[str, float] = {}
    for column in sealed.columns:
        if column.type not in ("DOUBLE", "LONG"):
            continue
        mine = rows[column.name].to_numpy().astype(np.float64)[here]
        theirs = seen[column.name].to_numpy().astype(np.float64)[there]
        differs = ~np.isclose(mine, theirs, rtol=RELATIVE_TOLERANCE, atol=0.0, equal_nan=True)
        if differs.any():
            wrong |= differs
            largest[column.name] = float(np.nan_to_num(np.abs(mine - theirs)[differs], nan=np.inf).max())
    return GoldProof(
        rows=len(rows), rows_missing=len(rows) - len(pairs), rows_different=int(wrong.sum()), max_abs_diff=largest
    )
