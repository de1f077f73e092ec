"""The user's own features of stored days: compared with a replay, and at the origins of training rows.

What does not belong here: what a feature is and its values (`btc_core.features.user`), and the replay itself.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa

from btc_core.clock import NS_PER_DAY, column_ns
from btc_core.days.day_replay import CHUNK, by_partition, events_around, for_fold, gives_row, orders
from btc_core.days.silver_proof import MAX_CHANGED_SHARE
from btc_core.days.stored_days import read_rows
from btc_core.errors import StoreError
from btc_core.features.user.values import MarketMinutes, UserColumns
from btc_core.market.messages import FeatureId
from btc_core.stores.questdb import write_rows
from btc_core.tables import rows as table_rows
from btc_core.tables.sql import of_symbol, within
from btc_core.tables.user_tables import USER_FEATURES
from btc_core.utc_day import day_ns

if TYPE_CHECKING:
    import numpy.typing as npt

    from btc_core.days.history import History
    from btc_core.days.replaced import Keep
    from btc_core.features.user.values import ClosedMinute, UserFeatures
    from btc_core.stores.questdb import QuestDB


log = logging.getLogger(__name__)

FEW_VALUES = 60
"""Up to this many changed values of a feature are always accepted, because a day that began late has few: an hour of closes."""
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


class UserProof(msgspec.Struct, frozen=True):
    """The stored values of a market's day compared with a replay of its bronze rows."""

    values: int
    """Values that the replay gives."""
    missing: int
    """Values that were not stored, for example because the feature is newer than the day. They have been written unless the
    proof was refused."""
    different: int
    """Values that were stored with other bits. They have been replaced unless the proof was refused."""
    unexplained: int
    """Different values that no late trade explains: the stream computed or stored them wrongly."""
    refusal: str = ""
    """Why nothing was written; empty if everything that differed was written."""


def prove_user_features(  # noqa: PLR0913 - what is compared, and how
    db: QuestDB, symbol: str, day: str, features: UserFeatures, keep: Keep, *, insist: bool = False
) -> UserProof:
    """Replay a day, and write the values of the user's features that are missing or different in `silver_user_features`.

    `keep` stores the old rows before they are replaced. If too much would change, nothing is written and `UserProof.refusal`
    says why; `insist` writes it nevertheless. Late and imported trades are at their place, as in `silver_proof`.
    """
    ordered = orders(events_around(db, symbol, day))
    begin_ns = day_ns(day)
    span = f"{of_symbol(symbol)} AND {within('ts_event', begin_ns, begin_ns + NS_PER_DAY)}"
    stored = read_rows(db, USER_FEATURES, span)
    true = _replayed(symbol, ordered.truth, begin_ns, features)
    missing, wrong = _compared(stored, true)
    unexplained = wrong
    if ordered.moved_trades:
        as_streamed = _replayed(symbol, ordered.streamed, begin_ns, features)
        unexplained = wrong & np.isin(
            _places(true), _places(as_streamed.filter(pa.array(_compared(stored, as_streamed)[1])))
        )
    fresh = true.filter(pa.array(missing | wrong))
    refusal = "" if insist else _refusal(symbol, day, true, unexplained)
    if len(fresh) and not refusal:
        keep(USER_FEATURES, stored.filter(pa.array(np.isin(_places(stored), _places(fresh)))))
        write_rows(db, USER_FEATURES, fresh)
    return UserProof(len(true), int(missing.sum()), int(wrong.sum()), int(unexplained.sum()), refusal)


def _refusal(symbol: str, day: str, true: pa.Table, unexplained: np.ndarray) -> str:
    """Why the values of the replay must not be written without a person's consent; empty if they may.

    Each feature is judged alone, because only those that look back far lose their values if the day before is missing.
    Changes by late trades do not count: one of them changes a feature of the last 1,440 minutes for a whole day.
    """
    names = np.array(true["feature"].to_pylist(), object)
    reasons = []
    for name in sorted(set(names[unexplained])):
        values, changed = int((names == name).sum()), int((unexplained & (names == name)).sum())
        if changed > FEW_VALUES and changed > MAX_CHANGED_SHARE * values:
            reasons.append(
                f"{symbol} on {day}: without a late trade, the replay changes {changed} of {values} values of the user's feature "
                f"{name} ({changed / values:.0%}); at most {MAX_CHANGED_SHARE:.0%} are plausible"
            )
    return "; ".join(reasons)


def _replayed(symbol: str, events: np.ndarray, begin_ns: int, features: UserFeatures) -> pa.Table:
    """The values at the minutes that closed in the day from `begin_ns` on, as rows of `silver_user_features`."""
    ids: list[FeatureId] = []
    closed: list[ClosedMinute] = []
    for part in by_partition(events):
        live = MarketMinutes(features)
        for start in range(0, len(part), CHUNK):
            chunk = part[start : start + CHUNK]
            ticks = chunk[gives_row(chunk)]
            for each in live.fold(for_fold(chunk)).closed:
                if begin_ns <= each.end_ns < begin_ns + NS_PER_DAY:
                    ids.append(_id(symbol, ticks[each.row]))
                    closed.append(each)
    return table_rows.user_features(ids, closed, features.files)


def _id(symbol: str, event: Any) -> FeatureId:
    times = int(event["ts_ns"]), int(event["recv_ns"])
    return FeatureId(symbol, *times, *(int(event[name]) for name in ("partition", "offset", "item", "kind")))


def different(db: QuestDB, symbol: str, replayed: pa.Table) -> pa.Table:
    """The rows of a replay (of `silver_user_features`) that are not stored with the same bits and version; NaNs are equal."""
    if not len(replayed):
        return replayed
    ends_ns = column_ns(replayed["ts_event"])
    span = within("ts_event", int(ends_ns.min()), int(ends_ns.max()) + 1)
    missing, wrong = _compared(read_rows(db, USER_FEATURES, f"{of_symbol(symbol)} AND {span}"), replayed)
    return replayed.filter(pa.array(missing | wrong))


def _compared(stored: pa.Table, replayed: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Masks of the replayed rows that are not stored with their version, and of those that are stored with other bits."""
    known = dict(zip(_keys(stored), _values(stored), strict=True))
    found = [known.get(key) for key in _keys(replayed)]
    missing = np.array([value is None for value in found], bool)
    there = np.array([np.nan if value is None else value for value in found], np.float64)
    here = np.array(_values(replayed), np.float64)
    return missing, ~missing & (there != here) & ~(np.isnan(there) & np.isnan(here))


def _values(rows: pa.Table) -> list[float]:
    return [float("nan") if value is None else value for value in rows["value"].to_pylist()]


def _keys(rows: pa.Table) -> list[tuple[int, str, str]]:
    """The close, the feature and its version of each row."""
    ends_ns = column_ns(rows["ts_event"]).tolist()
    return list(zip(ends_ns, rows["feature"].to_pylist(), rows["feature_version"].to_pylist(), strict=True))


def _places(rows: pa.Table) -> np.ndarray:
    """A text for each row of one market, which is equal for rows of one close and feature."""
    return np.array([f"{end_ns} {name}" for end_ns, name, _ in _keys(rows)], np.str_)
