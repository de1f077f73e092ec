"""From log messages to feature rows: decoding, checking, trade continuity and the fold, in the order of the log.

The stream worker and `replay` both drive this one class, so that streamed and replayed rows are equal to the last bit.
What does not belong here: where messages come from and where rows go.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core.errors import BadFrame
from btc_core.exchanges.decoding import events_of
from btc_core.features.catalogue import ROW, as_matrix
from btc_core.features.fold import EMIT_NONE, EMIT_TICKS, fold
from btc_core.features.state import EVENT, new_state, pack
from btc_core.market.continuity import TradeContinuity, Verdict
from btc_core.market.events import QUOTE, TRADE, BarEvent, TradeEvent
from btc_core.market.messages import FeatureId

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from btc_core.features.state import PackedEvent
    from btc_core.market.events import Event, QuoteEvent
    from btc_core.market.messages import Envelope


_NOT_FOLDED = frozenset({Verdict.DUPLICATE, Verdict.FILLS_GAP})
"""Trades that the fold leaves out: one that it has, and one that comes late."""


class FoldedEvent(FeatureId, frozen=True, gc=False):
    """A quote or trade that the fold gave a row for; the fields of a trade are empty for a quote."""

    trade_id: int = 0
    trade_price: float = math.nan
    trade_qty: float = math.nan
    trade_side: float = math.nan
    """+1 when the taker bought, −1 when the taker sold."""


class Rows(msgspec.Struct, frozen=True):
    """Feature rows of one symbol in the order of the log."""

    symbol: str
    ids: list[FoldedEvent]
    values: np.ndarray
    """dtype `features.ROW`, one record per id."""

    def matrix(self) -> np.ndarray:
        """All features as float64 of shape (rows, features)."""
        return as_matrix(self.values)


def columns_of(events: Sequence[FoldedEvent]) -> dict[str, list[Any]]:
    """The fields of events, each as a column."""
    return {field: [getattr(event, field) for event in events] for field in FoldedEvent.__struct_fields__}


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
        self.events: list[PackedEvent] = []
        self.ids: list[FoldedEvent] = []


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
            events = np.array(market.events, EVENT)
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
        if isinstance(event, TradeEvent) and market.trades.observe(event.trade_id) in _NOT_FOLDED:
            self.skipped += 1
            return
        market.events.append(pack(event))
        if not isinstance(event, BarEvent):
            market.ids.append(_folded(event, ts_recv_ns, partition, offset))

    def _reject(self, error: BadFrame) -> None:
        self.rejected[error.reason] = self.rejected.get(error.reason, 0) + 1


def _folded(event: QuoteEvent | TradeEvent, ts_recv_ns: int, partition: int, offset: int) -> FoldedEvent:
    place = (event.symbol, event.ts_event_ns, ts_recv_ns, partition, offset, event.item)
    if isinstance(event, TradeEvent):
        return FoldedEvent(*place, TRADE, event.trade_id, event.price, event.qty, event.sign)
    return FoldedEvent(*place, QUOTE)


def run(engine: FeatureEngine, messages: Iterable[tuple[Envelope, int, int]], batch_rows: int = 10_000) -> list[Rows]:
    """Push (envelope, partition, offset) and flush every `batch_rows`; the rows do not depend on that number."""
    rows: list[Rows] = []
    for count, (envelope, partition, offset) in enumerate(messages, start=1):
        engine.push(envelope, partition, offset)
        if count % batch_rows == 0:
            rows.extend(engine.flush())
    rows.extend(engine.flush())
    return rows
