"""The realized variances of ticks of sealed days, with which a volatility of ticks is trained.

The prices are the mids of the day's feature rows in the order of the log, as the forecast worker reads them to judge its
forecasts. A day of imported trades has no mids; its prices are those of its trades. Other days have no labels.
What does not belong here: the variance of a price path (`btc_core.models.tick_variance`), and rows with features
(`closing_rows`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from btc_core.clock import NS_PER_DAY, NS_PER_S, column_ns
from btc_core.days.closing_rows import ALWAYS_NS, kept_of_copy, sealed_days
from btc_core.errors import StoreError
from btc_core.horizons import suffix
from btc_core.models.dataset import TickLabels
from btc_core.models.targets import TICK_RV_TARGETS
from btc_core.models.tick_variance import is_current, log_price_by_second, origins_between, tick_variance
from btc_core.names import HORIZONS_MIN
from btc_core.tables.catalogue import SILVER_FEATURES
from btc_core.tables.sql import of_symbol, on_day
from btc_core.utc_day import day_ns

if TYPE_CHECKING:
    import pyarrow.parquet as pq

    from btc_core.stores.questdb import QuestDB
    from btc_core.stores.s3 import ObjectStore

COLUMNS = ("ts_event", "kafka_partition", "kafka_offset", "frame_item", "trade_id", "mid", "trade_price")
_log = logging.getLogger(__name__)
_KIND = f"{TICK_RV_TARGETS[0]}{suffix(HORIZONS_MIN)}"
"""Names what is kept of a day's copy: labels of these horizons."""


def read_tick_labels(
    db: QuestDB, store: ObjectStore | None, symbol: str, since_ns: int, until_ns: int = ALWAYS_NS
) -> TickLabels:
    """The labels of one market at every minute of the sealed days of a time, oldest first.

    Without a `store`, and for days whose copy cannot be read, only the days that QuestDB still has are returned.
    """
    parts = [
        _of_database(db, symbol, day) if place is None else _of_copy(place, symbol, day)
        for day, place in sealed_days(db, store, symbol, since_ns, until_ns)
    ]
    if not parts:
        return TickLabels.none()
    return TickLabels(
        np.concatenate([part.origin_ns for part in parts]), np.concatenate([part.realized for part in parts])
    )


def labels_of_day(rows: pa.Table, day: str) -> TickLabels:
    """The labels of a day from its feature rows, which have the `COLUMNS`. A window over midnight has none."""
    first_s = day_ns(day) // NS_PER_S
    last_s = first_s + NS_PER_DAY // NS_PER_S
    ts_ns = column_ns(rows["ts_event"])
    partition, offset, item, trade_id, mid, price = (rows[name].to_numpy() for name in COLUMNS[1:])
    has_quotes = bool(((partition >= 0) & (mid > 0.0)).any())
    if has_quotes:
        order = np.lexsort((item, offset))
        order = order[partition[order] >= 0]
        clock_ns, price = np.maximum.accumulate(ts_ns[order]), mid
        current = is_current(ts_ns[order], clock_ns)
        order, clock_ns = order[current], clock_ns[current]
    else:
        order = np.lexsort((trade_id, ts_ns))
        clock_ns = ts_ns[order]
    logs = log_price_by_second(clock_ns, price[order].astype(np.float64), first_s, last_s)
    origins_s = origins_between(first_s, last_s)
    realized = tick_variance(logs, origins_s, first_s, bounces=not has_quotes)
    known = ~np.isnan(realized).any(axis=1)
    return TickLabels(origins_s[known] * NS_PER_S, realized[known])


def _of_database(db: QuestDB, symbol: str, day: str) -> TickLabels:
    rows = db.query(
        f"SELECT {', '.join(COLUMNS)} FROM {SILVER_FEATURES.name} "  # noqa: S608 - names of the catalogue
        f"WHERE {of_symbol(symbol)} AND {on_day(SILVER_FEATURES, day)}"
    )
    return labels_of_day(rows, day)


def _of_copy(store: ObjectStore, symbol: str, day: str) -> TickLabels:
    """The labels of a day's copy; none if it cannot be read."""

    def make(file: pq.ParquetFile) -> pa.Table:
        parts = [
            pa.Table.from_batches([batch]).filter(pc.equal(batch["symbol"], symbol))
            for batch in file.iter_batches(columns=[*COLUMNS, "symbol"])
        ]
        labels = labels_of_day(pa.concat_tables(parts), day)
        columns = dict(zip(TICK_RV_TARGETS, np.ascontiguousarray(labels.realized.T), strict=True))
        return pa.table({"origin": pa.array(labels.origin_ns, pa.timestamp("ns")), **columns})

    try:
        table = kept_of_copy(store, symbol, day, _KIND, make)
    except StoreError as error:
        _log.warning("the copy of %s cannot be read, so its minutes have no variance of ticks: %s", day, error)
        table = None
    if table is None:
        return TickLabels.none()
    return TickLabels(column_ns(table["origin"]), np.column_stack([table[name] for name in TICK_RV_TARGETS]))
