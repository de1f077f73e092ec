"""What past forecasts were made from beside their feature rows: the models, level and quantiles, and the minute bars.

The forecast worker stores each change with the time from which forecasts used it (`taken_at`), so what a forecast read is the
newest row of its time. What does not belong here: feature rows, and making forecasts (`forecast_check`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, NS_PER_S, column_ns
from btc_core.features.minute_columns import MEMORY_DAYS
from btc_core.models.intervals import with_tails
from btc_core.models.row_forecasts import TrackedState
from btc_core.stores.minute_bars import newest_recorded
from btc_core.tables.arrow import arrow_schema, values_of
from btc_core.tables.proof_tables import FORECAST_MINUTES, FORECAST_STATES

if TYPE_CHECKING:
    from btc_core.days.history import History
    from btc_core.tables.form import Table

AHEAD_NS = 900 * NS_PER_S
"""How far the time of a row may be ahead of our clock."""
STATE_DAYS = 3
"""How long before a forecast its state is looked for. A state is stored at each start of the worker, and every outcome of a
five-minute origin changes it, so an older one is only in force while the market stands still."""


class StatesInForce:
    """The stored states of a market, by the time from which each was in force."""

    def __init__(self, rows: pa.Table) -> None:
        taken_ns, minutes_ns = column_ns(rows["taken_at"]), column_ns(rows["ts_event"])
        order = np.lexsort((minutes_ns, taken_ns))
        self.rows = rows.take(pa.array(order))
        self._taken_ns = taken_ns[order]
        self._bundles = [
            tuple(bytes.fromhex(row[f"{name}_bundle"] or "") for name in ("bid", "volatility"))
            for row in self.rows.select(["bid_bundle", "volatility_bundle"]).to_pylist()
        ]

    def place(self, made_at_ns: int) -> int:
        """The place in `rows` of the state that a forecast of this time read; −1 if none is stored."""
        return int(np.searchsorted(self._taken_ns, made_at_ns, side="right")) - 1

    def places(self, made_at_ns: np.ndarray) -> np.ndarray:
        """The place of the state of each forecast, (n,), as `place`."""
        return np.asarray(np.searchsorted(self._taken_ns, made_at_ns, side="right")) - 1

    def bundles(self, made_at_ns: int) -> tuple[bytes, ...]:
        """The hashes of the bundles of the bid and the volatility; empty if they are not known."""
        return self.bundles_at(self.place(made_at_ns))

    def bundles_at(self, place: int) -> tuple[bytes, ...]:
        """The hashes of the bundles of the state at a place, as `bundles`."""
        return self._bundles[place] if place >= 0 and all(self._bundles[place]) else ()

    def state(self, place: int) -> TrackedState:
        """The level and the quantiles at a place."""
        row = values_of(self.rows, place)
        quantiles = [with_tails(msgspec.json.decode(row[f"{name}_quantiles"])) for name in ("bid", "volatility")]
        return TrackedState(row["level"], *quantiles)


def read_states(history: History, symbol: str, begin_ns: int, end_ns: int) -> StatesInForce:
    """The states that were in force for forecasts that were made from `begin_ns` until before `end_ns`."""
    return StatesInForce(
        read_table(history, FORECAST_STATES, symbol, begin_ns - STATE_DAYS * NS_PER_DAY, end_ns + NS_PER_MIN)
    )


def read_minutes(history: History, symbol: str, until_ns: int, taken_before_ns: int) -> pa.Table:
    """The rows of `gold_forecast_minutes` that a forecast made at `taken_before_ns` could depend on, up to `until_ns`."""
    rows = read_table(history, FORECAST_MINUTES, symbol, until_ns - (MEMORY_DAYS + 1) * NS_PER_DAY, until_ns)
    return rows.filter(pa.array(column_ns(rows["taken_at"]) <= taken_before_ns))


def bars_of(minutes: pa.Table) -> np.ndarray:
    """The bars that these rows leave in force, dtype `bars.BARS`, oldest first."""
    bars = newest_recorded(minutes)
    known: np.ndarray = bars[~np.isnan(bars["close"])]
    return known


def read_table(history: History, table: Table, symbol: str, begin_ns: int, end_ns: int) -> pa.Table:
    """The rows of a market in a range of the table's timestamp."""
    chunks = list(history.chunks(table, symbol, begin_ns, end_ns))
    return pa.concat_tables(chunks) if chunks else arrow_schema(table).empty_table()
