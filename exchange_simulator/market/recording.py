"""A recorded market in memory: its events in order, moved to another time when wanted, and a tape of its past.

What does not belong here: file formats (`recording_formats`), or when an event is due (`websocket.feeds`).
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_right
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from btc_core.clock import NS_PER_MIN, to_ns
from exchange_simulator.market.events import Bars, Quote, Trade
from exchange_simulator.pairs import BTC_USD, Pair
from exchange_simulator.units import time_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_TIMES = re.compile(r'"timestamp":"([^"]+)"')


class MarketEvent(msgspec.Struct, frozen=True):
    """A new quote, or the trades of one time."""

    ts_ns: int
    symbol: str
    quote: Quote | None = None
    trades: tuple[Trade, ...] = ()


class RecordedFrame(msgspec.Struct, frozen=True):
    """One recorded frame of the WebSocket, and the trades in it."""

    ts_ns: int
    symbol: str
    channel: str
    text: str
    trades: tuple[Trade, ...] = ()

    @property
    def trade_ids(self) -> tuple[int, ...]:
        """The ids of its trades."""
        return tuple(trade.trade_id for trade in self.trades)


RecordedEvent = MarketEvent | RecordedFrame


class RecordedTape:
    """The trades that were replayed so far. Later trades of the recording are not in it."""

    def __init__(self) -> None:
        self._trades: list[Trade] = []

    def append(self, trades: Iterable[Trade]) -> None:
        """Add trades that have just been replayed."""
        self._trades.extend(trades)

    def trades_since(self, since_ns: int, count: int, until_ns: int) -> list[Trade]:
        """The first `count` trades after `since_ns`, up to and including `until_ns`."""
        first = bisect_right(self._trades, since_ns, key=lambda trade: trade.ts_ns)
        end = bisect_right(self._trades, until_ns, key=lambda trade: trade.ts_ns)
        return self._trades[first : min(end, first + count)]

    def last_trades(self, count: int, until_ns: int) -> list[Trade]:
        """The newest `count` trades up to and including `until_ns`, oldest first."""
        end = bisect_right(self._trades, until_ns, key=lambda trade: trade.ts_ns)
        return self._trades[max(0, end - count) : end]

    def minute_bars(self, first_min: int, end_min: int) -> Bars:
        """Bars of the minutes [first_min, end_min), counted since 1970, without minutes before the first trade."""
        trades = self._trades
        first = max(first_min, trades[0].ts_ns // NS_PER_MIN) if trades else end_min
        columns, value = np.zeros((max(0, end_min - first), 6), np.int64), np.zeros(max(0, end_min - first))
        start = bisect_right(trades, first * NS_PER_MIN - 1, key=lambda trade: trade.ts_ns)
        for trade in itertools.islice(trades, start, None):
            row = trade.ts_ns // NS_PER_MIN - first
            if row >= len(columns):
                break
            bar = columns[row].tolist()
            price, count = trade.price, bar[5] + 1
            if count == 1:
                bar[:4] = [price] * 4
            columns[row] = bar[0], max(bar[1], price), min(bar[2], price), price, bar[4] + trade.qty, count
            value[row] += float(price) * trade.qty
        return Bars(np.arange(first, max(first, end_min)), columns, value)


class Recording:
    """All events of one recording. The pair is always BTC/USD."""

    def __init__(self, events: Sequence[RecordedEvent]) -> None:
        self.pair: Pair = BTC_USD
        self.tape = RecordedTape()
        self._events = events
        self.first_ns = events[0].ts_ns
        frame_channels = {event.channel for event in events if isinstance(event, RecordedFrame)}
        self.holds_frames = bool(frame_channels)
        """Whether it holds frames of the WebSocket instead of trades and quotes."""
        self.channels = frozenset(frame_channels or {"ticker", "trade"})
        """The channels that clients must have subscribed to before the replay starts."""

    def events(self, shift_ns: int) -> Iterator[RecordedEvent]:
        """All events in order, `shift_ns` later than recorded."""
        for event in self._events:
            ts_ns = event.ts_ns + shift_ns
            trades = tuple(trade._replace(ts_ns=trade.ts_ns + shift_ns) for trade in event.trades)
            if isinstance(event, RecordedFrame):
                text = _TIMES.sub(lambda match: _shifted(match, shift_ns), event.text) if shift_ns else event.text
                yield RecordedFrame(ts_ns, event.symbol, event.channel, text, trades)
            else:
                quote = event.quote and event.quote._replace(ts_ns=ts_ns)
                yield MarketEvent(ts_ns, event.symbol, quote, trades)


def _shifted(match: re.Match[str], shift_ns: int) -> str:
    return f'"timestamp":"{time_text(to_ns(datetime.fromisoformat(match[1])) + shift_ns)}"'
