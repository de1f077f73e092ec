"""The user's own features of stored days: compared with a replay, and at the origins of training rows.

What does not belong here: what a feature is and its values (`btc_core.features.user`), and the replay itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from btc_core.clock import column_ns
from btc_core.tables.sql import of_symbol, within
from btc_core.tables.user_tables import USER_FEATURES

if TYPE_CHECKING:
    from btc_core.stores.questdb import QuestDB


def different(db: QuestDB, symbol: str, replayed: pa.Table) -> pa.Table:
    """The rows of a replay (of `silver_user_features`) that are not stored with the same bits and version; NaNs are equal."""
    if not len(replayed):
        return replayed
    ends_ns = column_ns(replayed["ts_event"])
    stored = db.query(
        f"SELECT ts_event, feature, value, feature_version FROM {USER_FEATURES.name} "  # noqa: S608 - names of the catalogue
        f"WHERE {of_symbol(symbol)} AND {within('ts_event', int(ends_ns.min()), int(ends_ns.max()) + 1)}"
    )
    known = dict(zip(_keys(stored), stored["value"].to_numpy(zero_copy_only=False).tolist(), strict=True))
    missing = object()
    equal = [
        _same(known.get(key, missing), value)
        for key, value in zip(_keys(replayed), replayed["value"].to_numpy(zero_copy_only=False).tolist(), strict=True)
    ]
    return replayed.filter(pa.array(~np.array(equal, bool)))


def _keys(rows: pa.Table) -> list[tuple[int, str, str]]:
    """The close, the feature and its version of each row."""
    ends_ns = column_ns(rows["ts_event"]).tolist()
    return list(zip(ends_ns, rows["feature"].to_pylist(), rows["feature_version"].to_pylist(), strict=True))


def _same(stored: object, value: float) -> bool:
    return isinstance(stored, float) and (stored == value or (stored != stored and value != value))  # noqa: PLR0124 - NaN
