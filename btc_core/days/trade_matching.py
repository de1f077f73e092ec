"""Which trades of an import are stored already: by their id, or by their time, price, quantity and side.

What does not belong here: reading and writing what is stored (`trade_import`).
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from btc_core.clock import NS_PER_MS, NS_PER_S, NS_PER_US
from btc_core.days.trade_files import NO_ID, PAST

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_TOLERANCE_NS = NS_PER_S
"""Files with coarser times than a second are not matched by time."""
COARSE_SHARE = 0.02
"""Times are taken for whole milliseconds or seconds if at least this share is. Of times in µs, 0.1 % are by chance."""

STORED = np.dtype(
    [*((name, PAST[name]) for name in PAST.names or ()), ("tolerance_ns", "i8"), ("item", "i4"), ("is_logged", "?")],
    align=True,
)
"""A stored trade: its `trade_id` is negative if its source had none, `item` is its position among the imported trades
of its microsecond, and `is_logged` says whether it comes from the log."""


def tolerances_ns(ts_ns: np.ndarray) -> np.ndarray:
    """How far the true time of each trade may be from the time that a file gives for it.

    Exchanges and vendors truncate or round times to seconds, milliseconds or microseconds.

    >>> tolerances_ns(np.array([1_000_000_000, 2_000_000_000])).tolist()
    [1000000000, 1000000000]
    """
    found = np.full(len(ts_ns), NS_PER_US)
    for unit_ns in (NS_PER_MS, NS_PER_S):
        is_whole = ts_ns % unit_ns == 0
        if is_whole.any() and is_whole.mean() >= COARSE_SHARE:
            found[is_whole] = unit_ns
    return np.asarray(found)


def pairs_of_ids(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of places in two arrays that hold the same id; an id may be in each array more than once.

    >>> [each.tolist() for each in pairs_of_ids(np.array([5, 7]), np.array([7, 5, 7]))]
    [[0, 1, 1], [1, 0, 2]]
    """
    order = np.argsort(right, kind="stable")
    first, end = (np.searchsorted(right[order], left, side) for side in ("left", "right"))
    counts = end - first
    starts = np.repeat(first - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
    return np.repeat(np.arange(len(left)), counts), order[starts + np.arange(counts.sum())]


class Matcher:
    """Matches trades in blocks of ascending time. Each stored trade is the match of one trade at most."""

    def __init__(self, *, has_sides: bool) -> None:
        self._has_sides = has_sides
        self._used: set[tuple[int, int]] = set()
        """Stored trades near the end of the last block that have a match: time and id."""

    def known(self, trades: np.ndarray, tolerance_ns: np.ndarray, stored: np.ndarray) -> np.ndarray:
        """The mask of the trades (dtype `PAST`, sorted by time) that are among the stored ones (dtype `STORED`).

        `stored` must hold everything within `MAX_TOLERANCE_NS` of the trades, sorted by time. A trade with an id is
        known by its id, or by the values of a stored trade without one. A trade without an id is known by its values.
        Trades whose sides differ match if no other trade does, since sides may come from the tick rule, and some
        vendors give the maker's side.
        """
        pairing = _Pairing(trades, tolerance_ns, stored)
        pairing.is_used = np.array([key in self._used for key in _keys(stored)], bool)
        has_id = trades["trade_id"] != NO_ID
        pairing.is_known = has_id & np.isin(trades["trade_id"], stored["trade_id"])
        pairing.is_used |= np.isin(stored["trade_id"], trades["trade_id"][has_id])
        if self._has_sides:
            pairing.match("price", "qty", "buy")
        pairing.match("price", "qty")
        end_ns = int(trades["ts_ns"][-1]) - 2 * MAX_TOLERANCE_NS if len(trades) else 0
        self._used = set(_keys(stored[pairing.is_used & (stored["ts_ns"] >= end_ns)]))
        return pairing.is_known


_Stored = tuple[int, int, int, int]
"""The place of a stored trade, its time, its tolerance and its id."""


class _Pairing:
    """Pairs of a trade of the import and a stored one. A trade is in one pair at most."""

    def __init__(self, trades: np.ndarray, tolerance_ns: np.ndarray, stored: np.ndarray) -> None:
        self._trades, self._tolerance_ns, self._stored = trades, tolerance_ns, stored
        self.is_known = np.zeros(len(trades), bool)
        self.is_used = np.zeros(len(stored), bool)

    def match(self, *names: str) -> None:
        """Pair the trades that have no partner yet and whose named values are equal, the earliest trades first."""
        free, unknown = np.flatnonzero(~self.is_used), np.flatnonzero(~self.is_known)
        trades, stored = self._trades[unknown], self._stored[free]
        candidates: defaultdict[tuple[float, ...], list[_Stored]] = defaultdict(list)
        columns = (stored[name].tolist() for name in ("ts_ns", "tolerance_ns", "trade_id"))
        for entry, values in zip(zip(free.tolist(), *columns, strict=True), _values(stored, names), strict=True):
            candidates[values].append(entry)
        wanted = zip(
            unknown.tolist(),
            trades["ts_ns"].tolist(),
            self._tolerance_ns[unknown].tolist(),
            (trades["trade_id"] != NO_ID).tolist(),
            strict=True,
        )
        for (place, ts_ns, tolerance_ns, has_id), values in zip(wanted, _values(trades, names), strict=True):
            same_values = candidates.get(values)
            if same_values:
                partner = _earliest(ts_ns, tolerance_ns, same_values, has_id=has_id)
                if partner is not None:
                    same_values.remove(partner)
                    self.is_known[place] = self.is_used[partner[0]] = True


def _keys(stored: np.ndarray) -> Iterator[tuple[int, int]]:
    return zip(stored["ts_ns"].tolist(), stored["trade_id"].tolist(), strict=True)


def _values(trades: np.ndarray, names: tuple[str, ...]) -> Iterator[tuple[float, ...]]:
    return zip(*(trades[name].tolist() for name in names), strict=True)


def _earliest(ts_ns: int, tolerance_ns: int, same_values: list[_Stored], *, has_id: bool) -> _Stored | None:
    """The first of the stored trades, which are in order of time, that may be the trade.

    Those that are too early for this trade and all later ones are removed.
    """
    while same_values and same_values[0][1] < ts_ns - MAX_TOLERANCE_NS:
        del same_values[0]
    for stored in same_values:
        _, stored_ns, stored_tolerance_ns, stored_id = stored
        if stored_ns > ts_ns + MAX_TOLERANCE_NS:
            return None
        are_two_ids = has_id and stored_id > NO_ID
        if not are_two_ids and abs(stored_ns - ts_ns) <= max(tolerance_ns, stored_tolerance_ns):
            return stored
    return None
