"""From log messages to feature rows: decoding, checking, trade continuity and the fold, in the order of the log.

The stream worker and `replay` both drive this one class, so that streamed and replayed rows are equal to the last bit.
What does not belong here: where messages come from and where rows go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from btc_core.errors import BadFrame
from btc_core.features.catalogue import FEATURES, ROW
from btc_core.features.fold import BAR, EMIT_NONE, EMIT_TICKS, EVENT, TRADE, fold, new_state
from btc_core.market.continuity import TradeContinuity, Verdict
from btc_core.market.events import Event, events_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from btc_core.market.messages import Envelope


class RowId(msgspec.Struct, frozen=True, gc=False):
    """Where a row comes from: its event's times and its place in the log."""

    ts_event_ns: int
    ts_recv_ns: int
    partition: int
    offset: int
    item: int
    kind: int
    trade_id: int
    trade_price: float
    trade_qty: float
    trade_side: float


class Rows(msgspec.Struct, frozen=True):
    """Feature rows of one symbol in the order of the log."""

    symbol: str
    ids: list[RowId]
    values: np.ndarray
    """dtype `features.ROW`, one record per id."""

    def matrix(self) -> np.ndarray:
        """All features as float64 of shape (rows, features)."""
        return self.values.view(np.float64).reshape(len(self.values), len(FEATURES))


class SavedMarket(msgspec.Struct, frozen=True):
    """One symbol of a saved engine."""

    symbol: str
    partition: int
    state: bytes
    last_id: int | None
    open_gaps: list[tuple[int, int]]


class _Market:
    """One symbol: its fold state, its trade sequence and the events that wait for the next flush."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.state = new_state()
        self.trades = TradeContinuity()
        self.events: list[tuple[int, int, float, float, float, float, float]] = []
        self.ids: list[RowId] = []


class FeatureEngine:
    """Feed it the log with `push`, take rows with `flush`.

    `rejected` counts entries that were refused by reason, and `skipped` trades that were duplicates or late
    (they fill a gap; they join when the day is sealed).
    """

    def __init__(self) -> None:
        self._markets: dict[str, _Market] = {}
        self.rejected: dict[str, int] = {}
        self.skipped = 0

    def push(self, envelope: Envelope, partition: int, offset: int) -> None:
        """Take one message; entries that cannot be used are counted, the others wait for `flush`."""
        try:
            for event in events_of(envelope):
                if isinstance(event, BadFrame):
                    self._reject(event)
                else:
                    self._take(event, envelope.ts_recv_ns, partition, offset)
        except BadFrame as error:
            self._reject(error)

    def flush(self, *, emit: bool = True) -> list[Rows]:
        """Fold what waits; rows of quotes and trades per symbol, or none when `emit` is false (warm-up)."""
        batches = []
        for symbol, market in self._markets.items():
            if not market.events:
                continue
            events = np.array(market.events, dtype=EVENT)
            values = np.empty(len(market.ids) if emit else 0, ROW)
            written = fold(market.state, events, values, EMIT_TICKS if emit else EMIT_NONE)
            if emit and written:
                batches.append(Rows(symbol, market.ids, values))
            market.events, market.ids = [], []
        return batches

    def save(self, partition: int) -> bytes:
        """The state of the markets of one partition, between two flushes; for `load` of the same feature version."""
        return msgspec.msgpack.encode(
            [
                SavedMarket(symbol, partition, market.state.tobytes(), market.trades.last_id, market.trades.open_gaps)
                for symbol, market in self._markets.items()
                if market.partition == partition
            ]
        )

    def load(self, saved: bytes) -> None:
        """Go on as the engine that saved this would have."""
        for one in msgspec.msgpack.decode(saved, type=list[SavedMarket]):
            market = self._markets[one.symbol] = _Market(one.partition)
            market.state = np.frombuffer(one.state, market.state.dtype).copy()
            market.trades = TradeContinuity(one.last_id, one.open_gaps)

    def _take(self, event: Event, ts_recv_ns: int, partition: int, offset: int) -> None:
        market = self._markets.get(event.symbol)
        if market is None:
            market = self._markets[event.symbol] = _Market(partition)
        is_trade = event.kind == TRADE
        if is_trade and market.trades.observe(event.trade_id) in (Verdict.DUPLICATE, Verdict.FILLS_GAP):
            self.skipped += 1
            return
        market.events.append((event.ts_event_ns, event.kind, event.a, event.b, event.c, event.d, event.e))
        if event.kind == BAR:
            return
        price, qty, side = (event.a, event.b, event.c) if is_trade else (np.nan, np.nan, np.nan)
        market.ids.append(
            RowId(
                event.ts_event_ns,
                ts_recv_ns,
                partition,
                offset,
                event.item,
                event.kind,
                event.trade_id,
                price,
                qty,
                side,
            )
        )

    def _reject(self, error: BadFrame) -> None:
        self.rejected[error.reason] = self.rejected.get(error.reason, 0) + 1


def run(engine: FeatureEngine, messages: Iterable[tuple[Envelope, int, int]], batch_rows: int = 10_000) -> list[Rows]:
    """Push (envelope, partition, offset) and flush every `batch_rows`; the rows do not depend on that number."""
    rows: list[Rows] = []
    for count, (envelope, partition, offset) in enumerate(messages, start=1):
        engine.push(envelope, partition, offset)
        if count % batch_rows == 0:
            rows.extend(engine.flush())
    rows.extend(engine.flush())
    return rows
