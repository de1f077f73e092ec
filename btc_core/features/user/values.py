"""The values of a user's features: at the closes of a live or replayed market, and at the closes of stored minute bars.

A feature that raises an error, or returns an infinity, yields NaN for that minute. A replay of the same minutes gives NaN again.
What does not belong here: the minutes that features read (`minutes`), and where values are stored.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core import metrics
from btc_core.clock import NS_PER_MIN
from btc_core.errors import InvalidInput, SchemaError
from btc_core.features.user.compile import compiled
from btc_core.features.user.files import version_of
from btc_core.features.user.folder import features_in
from btc_core.features.user.minutes import (
    LONGEST,
    MINUTES_STATE,
    fold_minutes,
    minutes_of_bars,
    new_minutes,
)
from btc_core.market.events import QUOTE, TRADE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from btc_core.features.user.compile import Value
    from btc_core.features.user.files import FeatureFile

    Floats = npt.NDArray[np.float64]

log = logging.getLogger(__name__)


class ClosedMinute(msgspec.Struct, frozen=True):
    """The values at the close of a minute, and the row with which it closed."""

    row: int
    """The number of that row among the rows of its batch."""
    end_ns: int
    values: Any
    """(features,)."""


class UserRows(msgspec.Struct, frozen=True):
    """The values of the user's features at the feature rows of one batch."""

    end_ns: Any
    """(rows,); the close of the newest minute before each row."""
    values: Any
    """(rows, features); the values at that close."""
    closed: tuple[ClosedMinute, ...] = ()
    """The minutes that closed in the batch. If several minutes closed since the last quote or trade, only the newest is listed."""

    def take(self, kept: npt.NDArray[np.bool_]) -> UserRows:
        """The values at some of the rows."""
        places = np.cumsum(kept) - 1
        closed = tuple(
            ClosedMinute(int(places[each.row]), each.end_ns, each.values) for each in self.closed if kept[each.row]
        )
        return UserRows(self.end_ns[kept], self.values[kept], closed)


class UserColumns(msgspec.Struct, frozen=True):
    """The user's features at closes of minutes, in time order: columns of training rows."""

    names: tuple[str, ...] = ()
    version: str = ""
    """The version of the set of features; empty without features."""
    origin_ns: Any = ()
    """(n,); the closes."""
    matrix: Any = ()
    """(n, names)."""

    def at(self, origin_ns: npt.NDArray[np.int64]) -> Floats:
        """The values at some closes, (n, names); NaN where there is none."""
        values = np.full((len(origin_ns), len(self.names)), math.nan)
        if self.names and len(self.origin_ns):
            places = np.searchsorted(self.origin_ns, origin_ns).clip(0, len(self.origin_ns) - 1)
            found = np.asarray(self.origin_ns)[places] == origin_ns
            values[found] = self.matrix[places[found]]
        return values


NO_COLUMNS = UserColumns()


class UserFeatures:
    """The compiled features of a user. Compiling one takes about a second."""

    def __init__(self, files: Sequence[FeatureFile]) -> None:
        self.files = tuple(files)
        self.names = tuple(file.name for file in files)
        self.version = version_of(files)
        self._values: list[Value | None] = [_compiled(file) for file in files]
        self._failed: set[str] = set()

    @classmethod
    def in_folder(cls, folder: Path) -> UserFeatures | None:
        """The features in a folder; None if there are none."""
        files = features_in(folder)
        return cls(files) if files else None

    def at(self, fields: Floats, end: int) -> Floats:
        """The value of each feature of the minutes before place `end` of an array of shape (fields, minutes)."""
        return np.array([self._value(number, fields, end) for number in range(len(self.files))])

    def of_bars(self, bars: npt.NDArray[Any], origin_ns: npt.NDArray[np.int64]) -> Floats:
        """The values at closes, (n, features), from minute bars alone (dtype `bars.BARS`, sorted).

        A close after the last bar, or before the first one, has NaN.
        """
        values = np.full((len(origin_ns), len(self.files)), math.nan)
        if not len(bars):
            return values
        first_min = int(bars["ts_ns"][0]) // NS_PER_MIN - LONGEST
        count = int(bars["ts_ns"][-1]) // NS_PER_MIN + 1 - first_min
        fields = minutes_of_bars(bars, first_min, count)
        ends = (origin_ns // NS_PER_MIN - first_min).tolist()
        for row, end in enumerate(ends):
            if LONGEST < end <= count:
                values[row] = self.at(fields, end)
        return values

    def _value(self, number: int, fields: Floats, end: int) -> float:
        file, function = self.files[number], self._values[number]
        if function is None:
            return math.nan
        try:
            value = function(fields, end - file.minutes, end)
        except Exception as error:  # noqa: BLE001 - the function is the user's, and may raise anything
            self._report(file, f"{type(error).__name__}: {error}")
            return math.nan
        if math.isinf(value):
            self._report(file, f"it returned {value}")
            return math.nan
        return value

    def _report(self, file: FeatureFile, reason: str) -> None:
        """Count a failure; the log has the first one of each feature, because the others come every minute."""
        metrics.USER_FEATURE_FAILURES.labels(file.name).inc()
        if file.name not in self._failed:
            self._failed.add(file.name)
            log.warning("the feature %s is NaN where it fails: %s", file.name, reason)


class MarketMinutes:
    """The closed minutes of one market in the order of the log, and the values at each close."""

    def __init__(self, features: UserFeatures) -> None:
        self._features = features
        self._state = new_minutes()
        self._values = np.full(len(features.files), math.nan)
        self._end_ns = 0

    def fold(self, events: np.ndarray, *, emit: bool = True) -> UserRows:
        """Apply events (dtype `EVENT`), and return the values at the rows of quotes and trades; no rows without `emit`."""
        is_row = (events["kind"] == QUOTE) | (events["kind"] == TRADE)
        row_of = np.cumsum(is_row) - 1
        rows = int(is_row.sum()) if emit else 0
        end_ns, values = np.full(rows, self._end_ns, np.int64), np.tile(self._values, (rows, 1))
        closed = []
        at = fold_minutes(self._state, events, 0)
        is_new = at < len(events)
        while at < len(events):
            if emit:
                self._compute()
                row = int(row_of[at])
                end_ns[row:], values[row:] = self._end_ns, self._values
                closed.append(ClosedMinute(row, self._end_ns, self._values))
            at = fold_minutes(self._state, events, at)
        if is_new and not emit:
            self._compute()
        return UserRows(end_ns, values, tuple(closed))

    def save(self) -> bytes:
        """The state; the values follow from it."""
        return self._state.tobytes()

    def load(self, saved: bytes) -> None:
        """Restore what `save` returned; raises `SchemaError` for another size."""
        if len(saved) != MINUTES_STATE.itemsize:
            msg = f"the minutes of the user's features have {len(saved)} bytes instead of {MINUTES_STATE.itemsize}"
            raise SchemaError(msg)
        self._state = np.frombuffer(saved, MINUTES_STATE).copy()
        if self._state["valued"][0]:
            self._compute()

    def _compute(self) -> None:
        """Compute the values at the close of the newest minute."""
        state = self._state[0]
        self._end_ns = int(state["minute"]) * NS_PER_MIN
        self._values = self._features.at(state["closed"], int(state["count"]))


def _compiled(file: FeatureFile) -> Value | None:
    """The function of a file; None if it cannot be compiled, which `btc features add` would have refused."""
    try:
        return compiled(file)
    except InvalidInput as error:
        log.error("the feature %s is always NaN: %s", file.name, error)  # noqa: TRY400 - the message names the file and the line
        return None
