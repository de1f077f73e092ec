"""A forecast computed again from frames: the frames to feature rows, the minutes to columns, and both to the forecast.

Every step is the code of the stream. What does not belong here: comparing the result with what was served
(`forecast_check`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core.clock import NS_PER_MIN, NS_PER_S
from btc_core.days.fold_states import BOOKS_NS
from btc_core.days.forecast_hours import Place
from btc_core.days.forecast_inputs import StatesInForce, bars_of
from btc_core.days.merkle import GrowingRoot, leaf_hashes
from btc_core.errors import StoreError
from btc_core.features.catalogue import FEATURE_VERSION
from btc_core.features.engine import FeatureEngine, FoldedEvent, columns_of
from btc_core.features.live_minutes import LiveMinutes
from btc_core.market.events import TRADE
from btc_core.models.row_forecasts import Models, forecasts_of
from btc_core.tables import rows as table_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pyarrow as pa

    from btc_core.days.log_hours import LogRange
    from btc_core.exchanges.recorded_blocks import Block
    from btc_core.features.engine import Rows
    from btc_core.market.messages import ForecastRow

EMITTED_NS = 900 * NS_PER_S
"""How long before the row of a forecast feature rows are computed, by receipt: the minute columns read those of two minutes,
and the time of an event may be ten minutes ahead of its receipt."""
FEW_BOOKS_NS = 5_400 * NS_PER_S
"""How long before the row of a forecast they matter nearly always: a snapshot begins the book again every hour, and the
resilience shows the newest 32 trades of a side."""


class ReplayedRows(msgspec.Struct, frozen=True):
    """The feature rows of a market up to one place."""

    ids: list[FoldedEvent]
    values: Any
    """All features, (rows, features)."""

    def silver(self) -> pa.Table:
        """The last row as `silver_features` has it."""
        return table_rows.silver_features(columns_of(self.ids[-1:]), self.values[-1:])


class LogCheck:
    """Compares the messages that pass through with the roots of the log, for each range that is read from its begin.

    `first` is the offset from which messages are read; −1 if it is that of the first message that passes.
    """

    def __init__(self, ranges: Iterable[LogRange], first: int = -1) -> None:
        self._ranges = sorted(ranges, key=lambda each: each.first)
        self._growing = [GrowingRoot() for _ in self._ranges]
        self._first = first
        self.messages = 0
        """Messages in ranges that were read from their begin."""

    def passing(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """The blocks, of which each line is added to the root of its range before it is handed on."""
        for block in blocks:
            if len(block.lines):
                self._add(block)
                yield block

    def _add(self, block: Block) -> None:
        offsets, begins, ends = (block.lines[name] for name in ("offset", "begin", "end"))
        if self._first < 0:
            self._first = int(offsets[0])
        for chosen, growing in zip(self._ranges, self._growing, strict=True):
            first, stop = np.searchsorted(offsets, (chosen.first, chosen.end)).tolist()
            if first < stop and chosen.first >= self._first:
                growing.extend(leaf_hashes(block.data(), begins[first:stop], ends[first:stop]))
                self.messages += stop - first

    @property
    def end(self) -> int:
        """The offset up to which messages have to be read, 0 without a range."""
        return self._ranges[-1].end if self._ranges else 0

    def compared(self) -> list[tuple[LogRange, bool]]:
        """The ranges that were read from their begin, and whether each has its root."""
        return [
            (each, growing.root().hex() == each.root)
            for each, growing in zip(self._ranges, self._growing, strict=True)
            if 0 <= self._first <= each.first
        ]


class WantedRow(msgspec.Struct, frozen=True):
    """The feature row that a replay looks for."""

    symbol: str
    place: Place
    received_ns: int
    leader: str


def replayed_rows(
    blocks: Iterable[Block], wanted: WantedRow, read_to: int = 0, books_ns: int = BOOKS_NS, start: bytes = b""
) -> ReplayedRows | None:
    """The feature rows up to the wanted one; None if the messages do not give it.

    Blocks are read up to the offset `read_to`, if that is behind the place. Frames of order books that were received more
    than `books_ns` before the row are not decoded, because that takes most of the time of a busy market. The blocks continue
    the state `start` of the features, if there is one; then every frame counts. Raises `SchemaError` for another state.
    """
    replay = _Replay(wanted, books_ns, start)
    ids: list[FoldedEvent] = []
    values: list[Any] = []
    for block in blocks:
        for batch in replay.rows(block):
            if batch.symbol == wanted.symbol:
                ids += batch.ids
                values.append(batch.matrix())
        if replay.is_done and block.lines["offset"][-1] + 1 >= read_to:
            break
    at = next((at for at, each in enumerate(ids) if (each.partition, each.offset, each.item) == wanted.place), None)
    if at is None:
        return None
    return ReplayedRows(ids[: at + 1], np.concatenate(values)[: at + 1])


class _Replay:
    """Folds blocks, and gives the rows of the messages from `EMITTED_NS` before the wanted row up to its place."""

    def __init__(self, wanted: WantedRow, books_ns: int, start: bytes) -> None:
        self._wanted = wanted
        self._books_from_ns = 0 if start else wanted.received_ns - books_ns
        self._engine = FeatureEngine(wanted.leader)
        if start:
            self._engine.load(start)
        self._is_warm = False
        self.is_done = False
        """Whether the place of the wanted row has been reached."""

    def rows(self, block: Block) -> list[Rows]:
        """The rows that the next block gives."""
        if self.is_done:
            return []
        lines, wanted = block.lines, self._wanted
        stop = int(np.searchsorted(lines["offset"], wanted.place.offset)) + 1
        self.is_done = stop <= len(lines)
        needed = ~lines["is_book"] | (lines["received_ns"] >= self._books_from_ns)
        needed[stop:] = False
        first = 0
        if not self._is_warm:
            is_late = lines["received_ns"] >= wanted.received_ns - EMITTED_NS
            self._is_warm = bool(is_late.any())
            first = int(np.argmax(is_late)) if self._is_warm else len(lines)
            warm_up = needed.copy()
            warm_up[first:] = False
            self._engine.warm_up(block, warm_up)
        needed[:first] = False
        for message in block.messages(needed):
            self._engine.push(message.envelope, message.partition, message.offset)
        return self._engine.flush(emit=self._is_warm)


def forecast_again(  # noqa: PLR0913, PLR0917 - everything that a forecast depends on
    rows: ReplayedRows, columns: Any, state: pa.Table, models: Models, made_at_ns: int, user_sigma_bps: Any = None
) -> ForecastRow:
    """The forecast of the last row with its minute columns (1, COLUMNS); raises `StoreError` if the row has no bid.

    `user_sigma_bps` (1, horizons) is σ of the user's model, as in `forecasts_of`.
    """
    tracked = StatesInForce(state).state(0)
    values = rows.values[-1:]
    made = forecasts_of(rows.ids[-1:], FEATURE_VERSION, values, columns, models, tracked, made_at_ns, user_sigma_bps)
    if not made:
        raise StoreError("the replayed feature row has no bid, so there is no forecast of it")
    return made[0]


def columns_at(rows: ReplayedRows, minutes: pa.Table) -> Any:
    """The minute columns at the last row, (1, COLUMNS), from the minutes before the last two and the rows in these."""
    clocks_ns = np.maximum.accumulate([row.ts_event_ns for row in rows.ids])
    first = int(np.searchsorted(clocks_ns, (clocks_ns[-1] // NS_PER_MIN - 1) * NS_PER_MIN))
    live = LiveMinutes(bars_of(minutes), int(clocks_ns[first]))
    is_trade = [row.kind == TRADE for row in rows.ids[first:]]
    return live.columns(clocks_ns[first:].tolist(), np.ascontiguousarray(rows.values[first:]), is_trade)[-1:]
