"""The series `dataset`: the inputs and labels of each origin, as training makes them from minute bars.

What does not belong here: features and labels themselves (`btc_core.models.dataset`), and splits of a data set into parts,
which a client makes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from btc_core.clock import NS_PER_DAY, NS_PER_MIN
from btc_core.days.seals import seals_of_bars
from btc_core.features.catalogue import FEATURE_VERSION, MODEL_FEATURES
from btc_core.features.minute_columns import COLUMNS, MEMORY_DAYS
from btc_core.market.bars import bars_of_table
from btc_core.models.dataset import make_frame
from btc_core.models.recipe import RECIPE
from btc_core.models.targets import BID_TARGETS, LABEL_SPAN_NS, RV_TARGETS
from btc_core.tables.catalogue import BRONZE_TRADES
from btc_core.tables.rows import UNKNOWN_TRADES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from btc_core.days.history import History
    from btc_core.models.dataset import Frame

    ReadBars = Callable[[History, str, int, int], Iterator[pa.Table]]

WINDOW_DAYS = 60
"""Days whose rows are made at once. Each window also reads the days before it that its columns remember."""
_RECIPE = msgspec.structs.replace(RECIPE.dataset, every_minute_up_to_bars=0, min_bars=1)
"""That of training for a long history, however short the range is: the rows of a range do not depend on its length."""
INPUTS = (*MODEL_FEATURES, *COLUMNS)
LABELS = (*RV_TARGETS, *BID_TARGETS)
SCHEMA = pa.schema(
    [
        ("origin", pa.timestamp("ns", "UTC")),
        ("symbol", pa.string()),
        *((name, pa.float64()) for name in MODEL_FEATURES),
        *((name, pa.float32()) for name in COLUMNS),
        *((name, pa.float64()) for name in LABELS),
    ]
)


def rows_of(  # noqa: PLR0913, PLR0917 - the bars and the range of a read
    read_bars: ReadBars, history: History, symbol: str, begin_ns: int, end_ns: int, names: Sequence[str]
) -> Iterator[pa.Table]:
    """The rows with an origin from `begin_ns` until before `end_ns` whose labels are complete, in the order of time."""
    for first_ns in range(begin_ns, end_ns, WINDOW_DAYS * NS_PER_DAY):
        last_ns = min(first_ns + WINDOW_DAYS * NS_PER_DAY, end_ns)
        warm_ns = (first_ns // NS_PER_DAY - MEMORY_DAYS - 1) * NS_PER_DAY
        tables = [table for table in read_bars(history, symbol, warm_ns, last_ns + LABEL_SPAN_NS) if len(table)]
        if tables:
            bars = pa.concat_tables(tables)
            trades = pc.fill_null(bars["trades"], UNKNOWN_TRADES)
            bars = bars.set_column(bars.column_names.index("trades"), "trades", trades)
            frame = make_frame(bars_of_table(bars), _RECIPE).between(first_ns - 1, last_ns - 1)
            yield _table(frame, symbol, names)


def metadata(history: History, symbol: str, begin_ns: int, end_ns: int) -> dict[str, str]:
    """What the rows rest on: the seals of their days as `day@seal`, the version of the features, and the embargo."""
    copies = history.days(BRONZE_TRADES, symbol, begin_ns, end_ns)
    archived = {f"{each.day}@{each.copy.seal}" for each in copies if each.copy is not None and each.copy.seal}
    first, last = (f"{np.datetime64(ns, 'ns').astype('datetime64[D]')}" for ns in (begin_ns, max(begin_ns, end_ns - 1)))
    held = {seal for seal in seals_of_bars(history.db, symbol, begin_ns) if first <= seal.partition("@")[0] <= last}
    return {
        "seals": ",".join(sorted(archived | held)),
        "feature_version": FEATURE_VERSION,
        "inputs": ",".join(INPUTS),
        "labels": ",".join(LABELS),
        "embargo_min": str(_RECIPE.embargo_ns // NS_PER_MIN),
    }


def _table(frame: Frame, symbol: str, names: Sequence[str]) -> pa.Table:
    count = len(frame.origin_ns)
    values: dict[str, np.ndarray] = {
        **dict(zip(MODEL_FEATURES, frame.matrix.T, strict=True)),
        **dict(zip(COLUMNS, frame.columns.T, strict=True)),
        **dict(zip(RV_TARGETS, frame.realized.T, strict=True)),
        **dict(zip(BID_TARGETS, frame.bid_bps.T, strict=True)),
    }
    columns = []
    for name in names:
        match name:
            case "origin":
                columns.append(pa.array(frame.origin_ns, pa.timestamp("ns")))
            case "symbol":
                columns.append(pa.array([symbol] * count, pa.string()))
            case _:
                columns.append(pa.array(np.ascontiguousarray(values[name]), from_pandas=True))
    return pa.table(columns, names=list(names))
