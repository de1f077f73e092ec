"""The feature engine: from messages of the log to feature rows, by decoding, checks, trade continuity and the fold.

The stream worker and the replay of a file use this one class, so streamed and replayed rows are equal to the last bit.
What does not belong here: where messages come from, and where rows go.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core.errors import BadFrame, RefusedTrade, SchemaError
from btc_core.exchanges.decoding import events_of, frame_of
from btc_core.features.book_reader import BookReader, SavedReader
from btc_core.features.catalogue import ROW, as_matrix
from btc_core.features.fold import EMIT_NONE, EMIT_TICKS, fold
from btc_core.features.state import EVENT, new_state, pack, pack_for_followers
from btc_core.features.user.values import MarketMinutes, UserRows
from btc_core.market.continuity import IntakeState, TradeIntake, Verdict
from btc_core.market.events import QUOTE, TRADE, BarEvent, QuoteEvent, TradeEvent
from btc_core.market.frames import BookFrame
from btc_core.market.messages import AbsentTrades, FeatureId, decode_absent

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from btc_core.features.state import PackedEvent
    from btc_core.features.user.values import UserFeatures
    from btc_core.market.events import Event
    from btc_core.market.messages import Envelope

log = logging.getLogger(__name__)


class FoldedEvent(FeatureId, frozen=True, gc=False):
    """A quote or trade that has a feature row. For a quote the fields of the trade are 0 or NaN."""

    trade_id: int = 0
    trade_price: float = math.nan
    trade_qty: float = math.nan
    trade_side: float = math.nan
    """+1 if the taker bought, −1 if the taker sold."""
    open_gaps: int = 0
    conflated: bool = False
    clock_offset_ns: int = 0
    """The state of the market's feed at the event, as in `FeatureMessage`."""


class Rows(msgspec.Struct, frozen=True):
    """Feature rows of one symbol in the order of the log."""

    symbol: str
    ids: list[FoldedEvent]
    values: np.ndarray
    """One record of dtype `catalogue.ROW` per id."""
    user: UserRows | None = None
    """The values of the user's features; None if there are none."""

    def matrix(self) -> np.ndarray:
        """Return all features as a float64 matrix of shape (rows, features)."""
        return as_matrix(self.values)

    def take(self, kept: np.ndarray) -> Rows:
        """Some of the rows; `kept` is a mask."""
        ids = [row for row, keep in zip(self.ids, kept, strict=True) if keep]
        return Rows(self.symbol, ids, self.values[kept], None if self.user is None else self.user.take(kept))


def columns_of(events: Sequence[FoldedEvent]) -> dict[str, list[Any]]:
    """Return each field of the events as a column."""
    return {field: [getattr(event, field) for event in events] for field in FoldedEvent.__struct_fields__}


class SavedMarket(msgspec.Struct, frozen=True):
    """The state of one symbol in a checkpoint."""

    symbol: str
    """Empty for what a market that appears later would know of the leader."""
    partition: int
    state: bytes
    trades: IntakeState
    book: SavedReader
    conflated: bool = False
    minutes: bytes = b""
    """The minutes of the user's features; empty if there are none."""


class _Market:
    """One symbol: the state of its fold, its trade ids, its order book, and the events that wait for the next flush."""

    def __init__(self, features: UserFeatures | None) -> None:
        self.minutes = None if features is None else MarketMinutes(features)
        self.state = new_state()
        self.trades = TradeIntake()
        self.open_gaps = 0
        """The number of open gaps of `trades`, counted when one may have changed."""
        self.conflated = False
        """Whether the newest quote replaced older ones that are not in the log."""
        self.book = BookReader()
        self.events: list[PackedEvent] = []
        self.ids: list[FoldedEvent] = []

    def count_gaps(self) -> None:
        """Count the open gaps again."""
        self.open_gaps = len(self.trades.open_gaps())


class FeatureEngine:
    """Computes feature rows: `push` adds a message of the log, `flush` returns the rows since the last flush.

    `rejected` counts the refused entries by reason. `skipped_trades` counts trades that were duplicates, corrections or
    late. A late trade is folded in its place when the day is sealed.

    Every market of a partition reads the quotes and trades of `leader` in the same partition, as of the offsets of its own
    events. Each partition has states of its own: a market whose messages move to another partition starts again there,
    because nothing orders the messages of two partitions. `features` are the user's own, which change no other column.
    """

    def __init__(self, leader: str = "", features: UserFeatures | None = None) -> None:
        self._leader = leader
        self._features = features
        self._markets: dict[tuple[int, str], _Market] = {}
        """By partition and symbol. The symbol is empty for a market without events of its own, which only reads the leader:
        a market that appears later begins as its copy."""
        self.rejected: dict[str, int] = {}
        self.skipped_trades = 0

    def push(self, envelope: Envelope, partition: int, offset: int) -> None:
        """Add one message; entries that fail a check are counted, the others wait for `flush`."""
        try:
            if envelope.channel == "absent":
                self._mark_absent(decode_absent(envelope), partition)
            elif envelope.channel == "book":
                self._add_book(envelope, partition)
            for event in events_of(envelope):
                if isinstance(event, BadFrame):
                    self._reject(event)
                    if isinstance(event, RefusedTrade) and envelope.origin == "rest":  # nothing else can fill its gap
                        self._mark_absent(AbsentTrades(event.symbol, event.trade_id, event.trade_id), partition)
                else:
                    self._add_event(event, envelope, partition, offset)
        except BadFrame as error:
            self._reject(error)

    def flush(self, *, emit: bool = True) -> list[Rows]:
        """Fold the waiting events and return the rows of each symbol, or no rows if `emit` is false (warm-up)."""
        batches = []
        for (_, symbol), market in self._markets.items():
            if not market.events:
                continue
            events = np.array(market.events, EVENT)
            values = np.empty(len(market.ids) if emit else 0, ROW)
            written = fold(market.state, events, values, EMIT_TICKS if emit else EMIT_NONE)
            user = None if market.minutes is None else market.minutes.fold(events, emit=emit)
            if emit and written:
                batches.append(Rows(symbol, market.ids, values, user))
            market.events, market.ids = [], []
        return batches

    def save(self, partition: int) -> bytes:
        """Encode the state of the markets of one partition, for `load`; call it between two flushes."""
        return msgspec.msgpack.encode(
            [
                SavedMarket(
                    symbol,
                    partition,
                    market.state.tobytes(),
                    market.trades.state,
                    market.book.save(),
                    market.conflated,
                    b"" if market.minutes is None else market.minutes.save(),
                )
                for (place, symbol), market in self._markets.items()
                if place == partition
            ]
        )

    def load(self, saved: bytes) -> None:
        """Restore the markets that `save` of the same feature version encoded; raises `SchemaError` for another size."""
        for saved_market in msgspec.msgpack.decode(saved, type=list[SavedMarket]):
            market = self._markets[saved_market.partition, saved_market.symbol] = _Market(self._features)
            if len(saved_market.state) != market.state.nbytes:
                msg = f"the state of {saved_market.symbol} has {len(saved_market.state)} bytes instead of {market.state.nbytes}"
                raise SchemaError(msg)
            market.state = np.frombuffer(saved_market.state, market.state.dtype).copy()
            market.trades = TradeIntake(saved_market.trades)
            market.count_gaps()
            market.book = BookReader(saved_market.book)
            market.conflated = saved_market.conflated
            if market.minutes is not None:
                market.minutes.load(saved_market.minutes)

    def _add_event(self, event: Event, envelope: Envelope, partition: int, offset: int) -> None:
        market = self._market(event.symbol, partition)
        if isinstance(event, TradeEvent):
            decision = market.trades.take(event, envelope.ts_recv_ns)
            if decision.verdict is not Verdict.NEXT or decision.gaps:
                market.count_gaps()
            if not decision.folded:
                self.skipped_trades += 1
                return
        market.events.append(pack(event))
        if isinstance(event, BarEvent):
            return
        if isinstance(event, QuoteEvent):
            market.conflated = envelope.conflated
        market.ids.append(_folded_event(event, envelope, partition, offset, market))
        if event.symbol == self._leader:
            self._lead(pack_for_followers(event), partition)

    def _lead(self, event: PackedEvent, partition: int) -> None:
        """Hand an event of the leader to the other markets of its partition."""
        self._market("", partition)
        for (place, symbol), market in self._markets.items():
            if place == partition and symbol != self._leader:
                market.events.append(event)

    def _add_book(self, envelope: Envelope, partition: int) -> None:
        """Add what the frame of an order book changes; an entry that is refused makes its book unknown."""
        frame = frame_of(envelope)
        if not isinstance(frame, BookFrame):
            return
        for data in frame.data:
            market = self._market(data.symbol, partition)
            try:
                market.events.extend(market.book.read(data, frame.type, envelope))
            except BadFrame as error:
                market.events.extend(market.book.lose())
                self._reject(error)

    def _market(self, symbol: str, partition: int) -> _Market:
        market = self._markets.get((partition, symbol))
        if market is None:
            if any(name == symbol != "" for _, name in self._markets):
                log.warning(
                    "%s is in partition %d now, as BTC_LEADER or the number of partitions was changed: its windows start again",
                    *(symbol, partition),
                )
            market = self._markets[partition, symbol] = _Market(self._features)
            if symbol != self._leader and (partition, "") in self._markets:
                knows_leader = self._markets[partition, ""]
                market.state, market.events = knows_leader.state.copy(), knows_leader.events.copy()
        return market

    def _mark_absent(self, absent: AbsentTrades, partition: int) -> None:
        market = self._markets.get((partition, absent.symbol))
        if market is not None:
            market.trades.mark_absent(absent.first_id, absent.last_id, absent.before_ns)
            market.count_gaps()

    def _reject(self, error: BadFrame) -> None:
        self.rejected[error.reason] = self.rejected.get(error.reason, 0) + 1


def _folded_event(
    event: QuoteEvent | TradeEvent, envelope: Envelope, partition: int, offset: int, market: _Market
) -> FoldedEvent:
    place = (event.symbol, event.ts_event_ns, envelope.ts_recv_ns, partition, offset, event.item)
    feed = (market.open_gaps, market.conflated, envelope.clock_offset_ns or 0)
    if isinstance(event, TradeEvent):
        return FoldedEvent(*place, TRADE, event.trade_id, event.price, event.qty, event.sign, *feed)
    return FoldedEvent(*place, QUOTE, 0, math.nan, math.nan, math.nan, *feed)


def run(engine: FeatureEngine, messages: Iterable[tuple[Envelope, int, int]], batch_rows: int = 10_000) -> list[Rows]:
    """Push all messages (envelope, partition, offset); flushing after every `batch_rows` does not change the rows."""
    rows: list[Rows] = []
    for count, (envelope, partition, offset) in enumerate(messages, start=1):
        engine.push(envelope, partition, offset)
        if count % batch_rows == 0:
            rows.extend(engine.flush())
    rows.extend(engine.flush())
    return rows
