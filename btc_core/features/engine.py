"""The feature engine: from messages of the log to feature rows, by decoding, checks, trade continuity and the fold.

The stream worker and the replay of a file use this one class, so streamed and replayed rows are equal to the last bit.
What does not belong here: where messages come from, and where rows go.
"""

from __future__ import annotations

import hashlib
import logging
import math
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core.errors import BadFrame, RefusedTrade, SchemaError
from btc_core.exchanges.decoding import events_of, frame_of
from btc_core.features.book_reader import BookReader, SavedReader
from btc_core.features.catalogue import FEATURE_VERSION, ROW, as_matrix
from btc_core.features.fold import EMIT_NONE, EMIT_TICKS, fold
from btc_core.features.past_ticks import past_ticks
from btc_core.features.state import EVENT, STATE, new_state, pack, pack_for_followers, pack_lead_quote
from btc_core.features.user.values import MarketMinutes, UserRows
from btc_core.market import continuity
from btc_core.market.continuity import IntakeState, TradeIntake, Verdict
from btc_core.market.events import (
    EVENT_CHANNELS,
    QUOTE,
    TRADE,
    BarEvent,
    QuoteEvent,
    TradeEvent,
    latest_time_ns,
    quote_error,
)
from btc_core.market.frames import BookFrame, TickerFrame, timestamp_ns
from btc_core.market.messages import AbsentTrades, FeatureId, decode_absent

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from btc_core.exchanges.recorded_blocks import Block
    from btc_core.exchanges.tick_lines import Ticks
    from btc_core.features.past_ticks import PastTicks
    from btc_core.features.state import PackedEvent
    from btc_core.features.user.values import UserFeatures
    from btc_core.market.book import OrderBook
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


STATE_VERSION = f"{FEATURE_VERSION}-{hashlib.sha256(repr(STATE).encode()).hexdigest()[:8]}-{continuity.STATE_VERSION}"
"""Version of what `FeatureEngine.save` gives: the features, the revision of the fold, the layout of its state, and the trade ids."""


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
        self.past: np.ndarray | None = None
        """In a warm-up, these events and those that came in arrays, in the order of the log."""

    def count_gaps(self) -> None:
        """Count the open gaps again."""
        self.open_gaps = len(self.trades.open_gaps())


_NO_TRADE = (0, math.nan, math.nan, math.nan)
"""The fields of the trade in the row of a quote."""


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
        self._gives_rows = True
        self.rejected: dict[str, int] = {}
        self.skipped_trades = 0

    def push(self, envelope: Envelope, partition: int, offset: int) -> None:
        """Add one message; entries that fail a check are counted, the others wait for `flush`."""
        channel = envelope.channel
        try:
            if channel == "absent":
                self._mark_absent(decode_absent(envelope), partition)
            elif channel == "book":
                self._add_book(envelope, partition)
            elif channel in EVENT_CHANNELS:
                frame = frame_of(envelope)
                if isinstance(frame, TickerFrame) and not frame.bad:
                    self._add_quotes(frame, envelope, partition, offset)
                    return
                for event in events_of(envelope, frame):
                    if isinstance(event, BadFrame):
                        self._refuse(event, envelope, partition)
                    else:
                        self._add_event(event, envelope, partition, offset)
        except BadFrame as error:
            self._reject(error)

    def warm_up(self, block: Block, mask: np.ndarray) -> None:
        """Fold some messages of a block with the same result as `push` and `flush`, but give no rows.

        No event waits for a flush meanwhile. The ticks of the block, if they have been read, are not decoded again. With a
        leader they are not used, because its events go to the other markets, too.
        """
        self._gives_rows = False
        try:
            if block.ticks is None or self._leader:
                for message in block.messages(mask):
                    self.push(message.envelope, message.partition, message.offset)
            else:
                self._push_around(block, mask, block.ticks)
            self.flush(emit=False)
        finally:
            self._gives_rows = True

    def _push_around(self, block: Block, mask: np.ndarray, ticks: Ticks) -> None:
        """Push the messages that `ticks` lacks, and put the events of all into the order of the log."""
        if not len(block.lines):
            return
        partition = int(block.lines["partition"][0])
        parts = [(self._market(part.symbol, partition), part) for part in past_ticks(ticks, mask)]
        lines: dict[int, list[int]] = {}
        others = mask & ~ticks.is_read & block.lines["is_frame"]
        for line, message in zip(np.flatnonzero(others).tolist(), block.messages(others), strict=True):
            if message.envelope.channel != "book":  # this message may change which trades are new
                self._take_trades(parts, line)
            self.push(message.envelope, message.partition, message.offset)
            for market in self._markets.values():
                known = lines.setdefault(id(market), [])
                known += [line] * (len(market.events) - len(known))
        self._take_trades(parts, len(block.lines))
        for market, part in parts:
            market.past = part.merged(market.events, lines.get(id(market), []))

    def _take_trades(self, parts: list[tuple[_Market, PastTicks]], line: int) -> None:
        """Take the trades of the lines before `line`."""
        for market, part in parts:
            part.take_until(line, market.trades, partial(self._is_folded, market))

    def _is_folded(self, market: _Market, trade: TradeEvent, received_ns: int) -> bool:
        """Take a trade, and return whether the features include it when it arrives."""
        decision = market.trades.take(trade, received_ns)
        if decision.verdict is not Verdict.NEXT or decision.gaps:
            market.count_gaps()
        self.skipped_trades += not decision.folded
        return decision.folded

    def flush(self, *, emit: bool = True) -> list[Rows]:
        """Fold the waiting events and return the rows of each symbol, or no rows if `emit` is false (warm-up)."""
        batches = []
        for (_, symbol), market in self._markets.items():
            if not market.events and market.past is None:
                continue
            events = np.array(market.events, EVENT) if market.past is None else market.past
            values = np.empty(len(market.ids) if emit else 0, ROW)
            written = fold(market.state, events, values, EMIT_TICKS if emit else EMIT_NONE)
            user = None if market.minutes is None else market.minutes.fold(events, emit=emit)
            if emit and written:
                batches.append(Rows(symbol, market.ids, values, user))
            market.events, market.ids, market.past = [], [], None
        return batches

    def order_book(self, symbol: str, partition: int) -> OrderBook | None:
        """The order book of a market after the messages that were pushed; None if there is none or it is lost."""
        market = self._markets.get((partition, symbol))
        return None if market is None else market.book.book

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
        """Restore the markets that `save` of the same `STATE_VERSION` encoded; raises `SchemaError` for anything else."""
        try:
            markets = msgspec.msgpack.decode(saved, type=list[SavedMarket])
        except msgspec.MsgspecError as error:
            raise SchemaError(f"the state of the features cannot be read: {error}") from error
        for saved_market in markets:
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

    def _add_quotes(self, frame: TickerFrame, envelope: Envelope, partition: int, offset: int) -> None:
        """Add the quotes of a frame as `_add_event`, without making events of them, which would double the time."""
        received_ns = envelope.ts_recv_ns
        latest_ns = latest_time_ns(received_ns, envelope.clock_offset_ns)
        for item, quote in enumerate(frame.data):
            ts_ns = timestamp_ns(quote.timestamp, received_ns)
            error = quote_error(quote, ts_ns, latest_ns)
            if error is not None:
                self._reject(error)
                continue
            symbol, bid, ask = quote.symbol, quote.bid, quote.ask
            market = self._markets.get((partition, symbol)) or self._market(symbol, partition)
            market.events.append((ts_ns, QUOTE, bid, quote.bid_qty, ask, quote.ask_qty, 0.0))
            market.conflated = envelope.conflated
            if self._gives_rows:
                place = (symbol, ts_ns, received_ns, partition, offset, item)
                market.ids.append(_folded(place, QUOTE, _NO_TRADE, envelope, market))
            if symbol == self._leader:
                self._lead(pack_lead_quote(ts_ns, bid, ask), partition)

    def _add_event(self, event: Event, envelope: Envelope, partition: int, offset: int) -> None:
        market = self._market(event.symbol, partition)
        if isinstance(event, TradeEvent) and not self._is_folded(market, event, envelope.ts_recv_ns):
            return
        market.events.append(pack(event))
        if isinstance(event, BarEvent):
            return
        kind, traded = QUOTE, _NO_TRADE
        if isinstance(event, QuoteEvent):
            market.conflated = envelope.conflated
        else:
            kind, traded = TRADE, (event.trade_id, event.price, event.qty, event.sign)
        if self._gives_rows:
            place = (event.symbol, event.ts_event_ns, envelope.ts_recv_ns, partition, offset, event.item)
            market.ids.append(_folded(place, kind, traded, envelope, market))
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

    def _refuse(self, error: BadFrame, envelope: Envelope, partition: int) -> None:
        self._reject(error)
        if isinstance(error, RefusedTrade) and envelope.origin == "rest":  # nothing else can fill its gap
            self._mark_absent(AbsentTrades(error.symbol, error.trade_id, error.trade_id), partition)

    def _reject(self, error: BadFrame) -> None:
        self.rejected[error.reason] = self.rejected.get(error.reason, 0) + 1


def _folded(
    place: tuple[str, int, int, int, int, int],
    kind: int,
    traded: tuple[int, float, float, float],
    envelope: Envelope,
    market: _Market,
) -> FoldedEvent:
    """A quote or trade at its place, with the state of the market's feed."""
    feed = (market.open_gaps, market.conflated, envelope.clock_offset_ns or 0)
    return FoldedEvent(*place, kind, *traded, *feed)


def run(engine: FeatureEngine, messages: Iterable[tuple[Envelope, int, int]], batch_rows: int = 10_000) -> list[Rows]:
    """Push all messages (envelope, partition, offset); flushing after every `batch_rows` does not change the rows."""
    rows: list[Rows] = []
    for count, (envelope, partition, offset) in enumerate(messages, start=1):
        engine.push(envelope, partition, offset)
        if count % batch_rows == 0:
            rows.extend(engine.flush())
    rows.extend(engine.flush())
    return rows
