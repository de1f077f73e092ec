"""The newest feature row of each minute, as one rule says it for training, for judging a challenger, and for clients.

What does not belong here: the same rows from the copies of days that have left QuestDB (`btc_core.days.closing_rows`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, column_ns
from btc_core.tables.catalogue import SILVER_FEATURES
from btc_core.tables.sql import of_symbol, within

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from btc_core.stores.questdb import QuestDB

    Longs = npt.NDArray[np.int64]

PLACE = ("ts_event", "kafka_partition", "kafka_offset", "frame_item", "trade_id")
"""The columns that decide which row of a minute is the newest."""
MINUTE_END = "minute_end"
_CHUNK_ROWS = 10_000
"""About how many rows are read at once: 7 MB of all features, and a week of minutes."""
_TIMES_IN_QUERY = 200
"""Times that one statement names. QuestDB closes the connection if a request line is much longer than 16 kB."""


def newest_of_minutes(rows: pa.Table, max_age_ns: int = NS_PER_MIN) -> tuple[Longs, Longs]:
    """The ends of minutes, ns, and the index of the newest row of each; `rows` has the columns `PLACE`, in any order.

    The newest row is the last one in the order of the log. A row that came after the clock had passed its minute is left
    out: it holds what happened after the end. Imported trades, which have no place in the log, are in the order of their
    times and ids. A minute whose newest row is older than `max_age_ns` at its end is left out.
    """
    ts_ns = column_ns(rows["ts_event"])
    partition, offset, item, trade_id = (rows[name].to_numpy() for name in PLACE[1:])
    logged = partition >= 0
    order = np.lexsort((item, offset))
    in_log = order[logged[order]]
    clock_ns = ts_ns.copy()
    clock_ns[in_log] = np.maximum.accumulate(ts_ns[in_log])
    rank = np.where(logged, 0, trade_id)
    rank[in_log] = np.arange(len(in_log))
    minute = ts_ns // NS_PER_MIN
    usable = np.flatnonzero(clock_ns // NS_PER_MIN == minute)
    newest = usable[np.lexsort((rank[usable], ~logged[usable], clock_ns[usable], minute[usable]))]
    last = np.append(np.flatnonzero(np.diff(minute[newest])), len(newest) - 1) if len(newest) else newest
    chosen = newest[last]
    ends_ns = (minute[chosen] + 1) * NS_PER_MIN
    fresh = ends_ns - ts_ns[chosen] <= max_age_ns
    return ends_ns[fresh], chosen[fresh]


def newest_rows(  # noqa: PLR0913 - the range, and three limits that callers combine
    db: QuestDB,
    symbol: str,
    begin_ns: int,
    end_ns: int,
    names: Sequence[str],
    *,
    max_age_ns: int = NS_PER_MIN,
    version: str = "",
    every_min: int = 1,
) -> Iterator[pa.Table]:
    """The newest rows of the minutes that end after `begin_ns` and not after `end_ns`, in tables of a few days each.

    A table has the column `MINUTE_END` and those in `names`. With a `version`, rows of other feature versions do not count.
    Only minutes whose end is a multiple of `every_min` are read. Whether a row was late is decided by the rows of its UTC
    day, as on a copy of the day.
    """
    begin_ns, end_ns = (each // NS_PER_MIN * NS_PER_MIN for each in (begin_ns, end_ns))
    where = of_symbol(symbol) + (f" AND feature_version = '{version}'" if version else "")
    found: list[tuple[Longs, pa.Table]] = []
    for day_begin_ns in range(begin_ns // NS_PER_DAY * NS_PER_DAY, end_ns, NS_PER_DAY):
        day_end_ns = day_begin_ns + NS_PER_DAY
        first_ns, last_ns = max(begin_ns, day_begin_ns), min(end_ns, day_end_ns)
        places = _places(db, where, first_ns, last_ns, day_end_ns)
        ends_ns, chosen = newest_of_minutes(places, max_age_ns)
        asked = (ends_ns <= last_ns) & (ends_ns // NS_PER_MIN % every_min == 0)
        if asked.any():
            found.append((ends_ns[asked], places.take(chosen[asked])))
        if sum(len(ends) for ends, _ in found) >= _CHUNK_ROWS:
            yield _rows_at(db, where, found, names)
            found = []
    if found:
        yield _rows_at(db, where, found, names)


def _row_keys(rows: pa.Table) -> npt.NDArray[Any]:
    """The time and the place in the log of each row, which no two rows of a market share, as sortable records."""
    partition, offset, item = (rows[name].to_numpy().astype(np.int64) for name in PLACE[1:4])
    keys = np.empty(len(rows), [("ts_ns", np.int64), ("place", np.int64)])
    keys["ts_ns"], keys["place"] = column_ns(rows["ts_event"]), (offset << 17) + (item << 1) + (partition >= 0)
    return keys


def _places(db: QuestDB, where: str, begin_ns: int, end_ns: int, day_end_ns: int) -> pa.Table:
    """The places of the rows from `begin_ns` until before `end_ns`, and of the first row in the log that is later.

    That row stands for all later ones: what came after it in the log came too late for a minute before `end_ns`.
    """
    select = f"SELECT {', '.join(PLACE)} FROM {SILVER_FEATURES.name} WHERE {where}"  # noqa: S608 - names of the catalogue
    places = db.query(f"{select} AND {within('ts_event', begin_ns, end_ns)}")
    if end_ns == day_end_ns or not len(places):
        return places
    later = f"{within('ts_event', end_ns, day_end_ns)} AND kafka_partition >= 0"
    first_later = db.query(f"{select} AND {later} ORDER BY kafka_offset, frame_item LIMIT 1")
    return pa.concat_tables([places, first_later], promote_options="default")


def _rows_at(db: QuestDB, where: str, newest: list[tuple[Longs, pa.Table]], names: Sequence[str]) -> pa.Table:
    """Some columns of the newest rows of minutes, given the ends of the minutes and the places of the rows day by day.

    An ASOF join finds the last row by event time of every minute without reading the others. Most of these are the rows
    that are wanted; the others are read by their times.
    """
    ends_ns = np.concatenate([ends for ends, _ in newest])
    places = pa.concat_tables([each for _, each in newest], promote_options="default")
    wanted, times_ns = _row_keys(places), column_ns(places["ts_event"])
    columns = tuple(dict.fromkeys((*PLACE[:4], *names)))
    step_ns = int(np.gcd.reduce(ends_ns - ends_ns[0])) or NS_PER_MIN
    count = int(ends_ns[-1] - ends_ns[0]) // step_ns + 1
    ends = (
        f"SELECT cast({int(ends_ns[0]) - step_ns} + x * {step_ns} - 1 AS TIMESTAMP_NS) ts FROM long_sequence({count})"  # noqa: S608 - numbers
    )
    last = db.query(
        f"SELECT {', '.join(f'f.{name} {name}' for name in columns)} FROM (({ends}) TIMESTAMP(ts)) m "  # noqa: S608 - names of the catalogue
        f"ASOF JOIN (SELECT * FROM {SILVER_FEATURES.name} WHERE {where}) f TOLERANCE 1m"
    )
    last = last.filter(pc.is_valid(last["ts_event"]))
    parts = [last.filter(pa.array(np.isin(_row_keys(last), wanted)))]
    missing_ns = np.unique(times_ns[~np.isin(wanted, _row_keys(parts[0]))])
    for first in range(0, len(missing_ns), _TIMES_IN_QUERY):
        times = ", ".join(str(each) for each in missing_ns[first : first + _TIMES_IN_QUERY].tolist())
        tied = db.query(
            f"SELECT {', '.join(columns)} FROM {SILVER_FEATURES.name} WHERE {where} AND ts_event IN ({times})"  # noqa: S608 - names of the catalogue
        )
        parts.append(tied.filter(pa.array(np.isin(_row_keys(tied), wanted))))
    found = pa.concat_tables(parts, promote_options="default")
    keys = _row_keys(found)
    order = np.argsort(keys)
    at = np.searchsorted(keys[order], wanted).clip(0, max(len(keys) - 1, 0))
    present = keys[order][at] == wanted if len(keys) else np.zeros(len(wanted), bool)
    rows = found.take(order[at[present]]).select(list(names))
    return rows.add_column(0, MINUTE_END, pa.array(ends_ns[present], pa.timestamp("ns")))
