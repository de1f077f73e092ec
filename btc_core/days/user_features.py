"""The user's own features of stored days: compared with a replay, and at the origins of training rows.

What does not belong here: what a feature is and its values (`btc_core.features.user`), and the replay itself.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from btc_core.clock import column_ns
from btc_core.errors import StoreError
from btc_core.features.user.values import UserColumns
from btc_core.tables.sql import of_symbol, within
from btc_core.tables.user_tables import USER_FEATURES

if TYPE_CHECKING:
    import numpy.typing as npt

    from btc_core.days.history import History
    from btc_core.features.user.values import UserFeatures
    from btc_core.stores.questdb import QuestDB


log = logging.getLogger(__name__)

_READ = ("ts_event", "feature", "value", "feature_version")


def user_columns(
    history: History, symbol: str, bars: npt.NDArray[Any], origin_ns: npt.NDArray[np.int64], features: UserFeatures
) -> UserColumns:
    """The values at the origins of training rows (sorted): those that the stream stored, elsewhere those of minute bars.

    Stored values of another version of a file are not used. Values that only a copy has are those of bars if the copy cannot
    be read.
    """
    values = features.of_bars(bars, origin_ns)
    if len(origin_ns):
        try:
            for rows in history.chunks(USER_FEATURES, symbol, int(origin_ns[0]), int(origin_ns[-1]) + 1, _READ):
                _put(values, origin_ns, rows, features)
        except StoreError as error:
            log.warning("some stored values of the user's features cannot be read, so they are made of bars: %s", error)
    return UserColumns(features.names, features.version, origin_ns, values)


def _put(values: np.ndarray, origin_ns: npt.NDArray[np.int64], rows: pa.Table, features: UserFeatures) -> None:
    """Put the stored values at their origins."""
    ends_ns = column_ns(rows["ts_event"])
    places = np.searchsorted(origin_ns, ends_ns).clip(0, len(origin_ns) - 1)
    is_origin = origin_ns[places] == ends_ns
    stored = rows["value"].to_numpy(zero_copy_only=False)
    names, versions = (np.array(rows[name].to_pylist(), object) for name in ("feature", "feature_version"))
    for column, file in enumerate(features.files):
        chosen = is_origin & (names == file.name) & (versions == file.version)
        values[places[chosen], column] = stored[chosen]


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
