"""What the live stream has stored in QuestDB, read back as the rows that models are judged on.

What does not belong here: features and labels that are computed from minute bars (`btc_core.models.dataset`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, column_ns
from btc_core.features import catalogue
from btc_core.features.minute_columns import COLUMNS, MEMORY_DAYS, minute_columns
from btc_core.models.dataset import Frame
from btc_core.models.recipe import RECIPE
from btc_core.models.targets import close_times_ns
from btc_core.names import HORIZONS_MIN, MINUTES, STORED_HORIZONS_MIN
from btc_core.stores.minute_bars import read_stored
from btc_core.stores.newest_rows import MINUTE_END, newest_rows
from btc_core.tables.sql import of_symbol, of_target

if TYPE_CHECKING:
    import numpy.typing as npt

    from btc_core.names import VolatilityTarget
    from btc_core.stores.questdb import QuestDB

    Floats = npt.NDArray[np.float64]
    Longs = npt.NDArray[np.int64]


def features_at_minute_ends(db: QuestDB, symbol: str, names: tuple[str, ...], after_ns: int) -> tuple[Longs, Floats]:
    """The newest feature row of each whole minute after `after_ns`: the ends of the minutes, ns, and the rows, (n, names).

    Minutes without a row are missing, and so are rows of another feature version.
    """
    newest = db.execute(f"SELECT cast(max(ts_event) AS LONG) FROM silver_features WHERE {of_symbol(symbol)}")  # noqa: S608 - a quoted symbol
    until_ns = int(newest[0][0]) // NS_PER_MIN * NS_PER_MIN if newest and newest[0][0] is not None else 0
    parts = list(newest_rows(db, symbol, after_ns, until_ns, names, version=catalogue.FEATURE_VERSION))
    ends_ns = np.concatenate([np.empty(0, np.int64), *(column_ns(part[MINUTE_END]) for part in parts)])
    rows = [np.column_stack([part[name].to_numpy() for name in names]) for part in parts]
    return ends_ns, np.concatenate([np.empty((0, len(names))), *rows])


def live_frame(db: QuestDB, symbol: str, after_ns: int, target: VolatilityTarget | None = None) -> Frame:
    """Origins as far apart as the recipe says whose outcome is final, with the features that the forecast worker used.

    Unlike a frame of bars, it holds the features of the book and of trades. Its labels are the ones that the stream
    stored, from its mid and bid. Outcomes of late forecasts are left out: nothing was served at their origins. With a
    `target`, only outcomes with this variance are used.
    """
    minutes, matrix = features_at_minute_ends(db, symbol, catalogue.MODEL_FEATURES, after_ns - NS_PER_MIN)
    columns = [f"{name}_{h}m_bps" for name in ("realized", "bid_return") for h in HORIZONS_MIN]
    table = db.query(
        f"SELECT ts_event, {', '.join(columns)} FROM gold_prediction_outcomes "  # noqa: S608 - the names come from the catalogue
        f"WHERE {of_symbol(symbol)} AND late = false AND ts_event > cast({after_ns} AS TIMESTAMP_NS)"
        + "".join(f" AND {name} IS NOT NULL" for name in columns if HORIZONS_MIN != STORED_HORIZONS_MIN)
        + (f" AND {of_target(target)}" if target else "")
    )
    origin_ns, left, right = np.intersect1d(minutes, column_ns(table["ts_event"]), return_indices=True)
    apart = (origin_ns // NS_PER_MIN) % RECIPE.dataset.origin_step_min == 0
    labels = np.column_stack([table[name].to_numpy() for name in columns])[right][apart]
    realized, bid_bps = np.split(labels, 2, axis=1)
    rows = matrix[left][apart]
    columns_of_bars = _columns_at(db, symbol, origin_ns[apart])
    variance = np.square(realized / 1e4)
    return Frame(origin_ns[apart], rows, columns_of_bars, variance, bid_bps, target=target or MINUTES)


def _columns_at(db: QuestDB, symbol: str, origin_ns: Longs) -> npt.NDArray[np.float32]:
    """The minute columns at origins, from the stored bars; NaN at an origin at which no bar closed."""
    columns = np.full((len(origin_ns), len(COLUMNS)), np.nan, np.float32)
    if len(origin_ns):
        days = (int(origin_ns[-1]) - int(origin_ns[0])) / NS_PER_DAY + MEMORY_DAYS + 1.0
        bars = read_stored(db, symbol, days)
        _, at, closed = np.intersect1d(origin_ns, close_times_ns(bars["ts_ns"]), return_indices=True)
        chosen = np.zeros(len(bars), np.bool_)
        chosen[closed] = True
        columns[at] = minute_columns(bars, chosen)
    return columns
